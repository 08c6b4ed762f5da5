# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Logits, probabilities and maps, against numbers worked out by hand and the authors' two-channel form."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.nn import functional

from anomalib_aprilgan.components.anomaly_maps import logit_difference, probability, upsample

NORMAL_AND_ANOMALOUS = torch.eye(2)


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        ([0.0, 3.0], 100.0),
        ([2.0, 0.0], -100.0),
        ([5.0, 5.0], 0.0),
        ([3.0, 4.0], 100 * (0.8 - 0.6)),
        ([-3.0, 4.0], 100 * (0.8 + 0.6)),
        ([0.0, 0.0], 0.0),
    ],
)
def test_logit_difference_is_a_hundred_times_the_difference_of_cosines(feature, expected):
    difference = logit_difference(torch.tensor(feature), NORMAL_AND_ANOMALOUS)
    assert difference.item() == pytest.approx(expected, abs=1e-4)


def test_logit_difference_keeps_leading_dimensions():
    assert logit_difference(torch.ones(2, 5, 3), torch.ones(2, 3)).shape == (2, 5)
    assert logit_difference(torch.ones(4, 3), torch.ones(2, 3)).shape == (4,)


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_length_of_features_does_not_matter(scale, seed):
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))
    text = functional.normalize(torch.randn(2, 8, generator=torch.Generator().manual_seed(seed + 1)), dim=-1)
    torch.testing.assert_close(
        logit_difference(scale * features, text), logit_difference(features, text), rtol=0, atol=1e-3
    )


def test_probability_is_the_sigmoid():
    difference = torch.tensor([0.0, math.log(3), -math.log(3), 200.0, -200.0])
    torch.testing.assert_close(probability(difference), torch.tensor([0.5, 0.75, 0.25, 1.0, 0.0]))


@given(side=st.integers(1, 5), size=st.integers(1, 12), scale=st.floats(0, 100), seed=st.integers(0, 2**32 - 1))
def test_sigmoid_of_one_channel_equals_the_softmax_of_two_upsampled_channels(side, size, scale, seed):
    logits = scale * torch.randn(2, 3, side * side, generator=torch.Generator().manual_seed(seed))  # normal, anomalous
    channels = torch.stack([upsample(channel, size) for channel in logits], dim=1)  # (3, 2, S, S)
    ours = probability(upsample(logits[1] - logits[0], size))
    torch.testing.assert_close(ours, channels.softmax(dim=1)[:, 1], rtol=0, atol=2e-5)


def test_upsampling_keeps_the_corners_and_is_linear_between_them():
    grid = torch.tensor([[0.0, 2.0, 4.0, 6.0]])  # rows (0, 2) and (4, 6)
    assert upsample(grid, 3).tolist() == [[[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]]


@given(side=st.integers(2, 6), size=st.integers(2, 30), seed=st.integers(0, 2**32 - 1))
def test_corners_are_aligned_at_any_size(side, size, seed):
    grid = torch.rand(1, side * side, generator=torch.Generator().manual_seed(seed))
    corners = upsample(grid, size)[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    torch.testing.assert_close(corners, grid[0, [0, side - 1, side * (side - 1), side * side - 1]])


def test_upsampling_to_the_size_of_the_grid_changes_nothing():
    grid = torch.rand(2, 9)
    torch.testing.assert_close(upsample(grid, 3), grid.reshape(2, 3, 3))


@given(side=st.integers(1, 6), size=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_upsampling_stays_within_the_range_of_the_grid(side, size, seed):
    grid = torch.randn(2, side * side, generator=torch.Generator().manual_seed(seed))
    pixels = upsample(grid, size)
    assert pixels.shape == (2, size, size)
    assert (pixels.amax(dim=(1, 2)) <= grid.amax(dim=1) + 1e-6).all()
    assert (pixels.amin(dim=(1, 2)) >= grid.amin(dim=1) - 1e-6).all()
