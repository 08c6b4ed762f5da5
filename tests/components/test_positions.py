# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Positional embeddings fit the size that a tower runs at, and nothing else changes."""

import copy

import pytest
import torch
from torch.nn import functional

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.positions import resize_grid, resize_positions

KEY = "visual.positional_embedding"


def test_grid_is_resized_with_antialiasing_and_the_class_token_kept(golden_source):
    loaded = golden_source._tensors(lambda name: name == KEY)
    stored = loaded[KEY]
    resized = resize_positions(loaded, golden_source._skeleton(70).visual)[KEY]
    assert torch.equal(resized[0], stored[0])
    grid = stored[1:].T.reshape(1, 64, 4, 4)
    plain, antialiased = (
        functional.interpolate(grid, size=(5, 5), mode="bicubic", antialias=antialias).flatten(2)[0].T
        for antialias in (False, True)
    )
    torch.testing.assert_close(resized[1:], antialiased)
    assert (resized[1:] - plain).abs().max() > 1e-3


def test_embedding_of_the_right_length_is_left_alone(golden_source):
    loaded = golden_source._tensors(lambda name: name == KEY)
    assert resize_positions(loaded, golden_source._skeleton(56).visual)[KEY] is loaded[KEY]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_grid_of_the_same_side_keeps_its_values(interpolation):
    embedding = torch.randn(1 + 9, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize_grid(embedding, 3, interpolation), embedding)


@pytest.mark.parametrize(("name", "side"), [("tiny_vit", 28), ("tiny_vit", 140), ("tiny_rn", 128)])
def test_constant_grid_stays_constant_at_any_size(golden_dir, name, side):
    source = CLIPSource.resolve(str(golden_dir / f"{name}.json"), None)
    key = KEY if source.is_vit else "visual.attnpool.positional_embedding"
    state = source._tensors(lambda name: name == key)
    state[key][1:] = 0.25
    given = copy.deepcopy(state)
    resized = resize_positions(state, source._skeleton(side).visual)[key]
    assert len(resized) == 1 + (side // (14 if source.is_vit else 32)) ** 2
    torch.testing.assert_close(resized[1:], torch.full_like(resized[1:], 0.25))
    assert torch.equal(state[key], given[key])  # what was passed in has not changed
