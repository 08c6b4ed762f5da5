# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Cutting images into tiles and joining their maps."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anomalib_aprilgan.components.tiles import check_tiles, cut, join, worst


def test_tiles_come_row_by_row_image_by_image():
    images = torch.arange(2 * 4 * 4).view(2, 1, 4, 4)
    tiles = cut(images, 2)
    assert tiles.flatten(1).tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
        [16, 17, 20, 21],
        [18, 19, 22, 23],
        [24, 25, 28, 29],
        [26, 27, 30, 31],
    ]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_joined_tiles_are_the_image(number, tiles, side):
    images = torch.rand(number, 1, tiles * side, tiles * side)
    assert torch.equal(join(cut(images, tiles).flatten(1), tiles), images.flatten(1))


def test_an_image_scores_as_its_worst_tile():
    assert worst(torch.tensor([1.0, 9.0, 3.0, 4.0, 5.0, 6.0, 7.0, 2.0]), 2).tolist() == [9.0, 7.0]
    assert worst(torch.tensor([1.0, 2.0]), 1).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("tiles", [0, -2, 1.5, "2", True, None])
def test_impossible_numbers_are_refused(tiles):
    with pytest.raises(ValueError, match=re.escape(f"tiles={tiles!r} must be 1 (whole images) or how many")):
        check_tiles(tiles)
