# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Matrices that resize and smooth maps do what torch's and scipy's functions do."""

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from anomalib_aprilgan.components.map_matrices import bilinear_matrix, gaussian_matrix


@pytest.mark.parametrize(("side", "size"), [(1, 7), (5, 70), (37, 518), (8, 4)])
def test_bilinear_is_that_of_torch(side, size):
    grid = torch.rand(2, side, side, dtype=torch.float64)
    matrix = bilinear_matrix(side, size)
    expected = functional.interpolate(grid[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(matrix @ grid @ matrix.T, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [3, 5, 16, 70])  # radius 16: at 3 points an edge is mirrored many times
@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_gaussian_is_that_of_scipy(size, sigma):
    grid = torch.rand(size, size, dtype=torch.float64)
    matrix = gaussian_matrix(size, sigma)
    expected = torch.from_numpy(gaussian_filter(grid.numpy(), sigma))
    torch.testing.assert_close(matrix @ grid @ matrix.T, expected, rtol=0, atol=1e-12)


def test_no_smoothing():
    assert torch.equal(gaussian_matrix(4, 0), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("sigma", [-1, float("nan"), float("inf")])
def test_impossible_sigma(sigma):
    with pytest.raises(ValueError, match=rf"sigma={sigma} must be 0 \(no smoothing\) or positive"):
        gaussian_matrix(4, sigma)
