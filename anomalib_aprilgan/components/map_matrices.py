# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Resizing and smoothing of square maps as matrices: ``M @ map @ M.T``, one way along rows, the other along columns.

Both are linear and work along one axis at a time, so both together are one small matrix, for any device and export.
"""

import math

import torch
from torch.nn import functional

# Beyond so many standard deviations the Gaussian counts for nothing, as by default in scipy's gaussian_filter.
TRUNCATION = 4.0


def bilinear_matrix(side: int, size: int) -> torch.Tensor:
    """Weights of bilinear up-sampling, corners not aligned, as ``torch.nn.functional.interpolate`` has them.

    Args:
        side (int): Points to come from.
        size (int): Points to come to.

    Returns:
        torch.Tensor: (size, side), float64, rows add up to 1.

    Example:
        >>> bilinear_matrix(2, 4)[:, 0].tolist()
        [1.0, 0.75, 0.25, 0.0]
    """
    points = torch.eye(side, dtype=torch.float64)[None]  # (1, side, side)
    return functional.interpolate(points, size=size, mode="linear", align_corners=False)[0].T.contiguous()


def gaussian_matrix(size: int, sigma: float) -> torch.Tensor:
    """Weights of a Gaussian filter that is cut at 4 sigma, its input mirrored at the edges with the edge repeated.

    Source: ``scipy.ndimage.gaussian_filter`` with its defaults, which the authors of AnomalyCLIP use (``test.py``).

    Args:
        size (int): Points of the map.
        sigma (float): Standard deviation in points; 0 changes nothing.

    Returns:
        torch.Tensor: (size, size), float64, rows add up to 1.

    Raises:
        ValueError: If sigma is negative, infinite or no number.

    Example:
        >>> gaussian_matrix(3, 0.5).round(decimals=3)[0].tolist()
        [0.893, 0.107, 0.0]
    """
    if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 <= sigma < math.inf:
        msg = f"sigma={sigma!r} must be 0 (no smoothing) or positive: pixels of standard deviation."
        raise ValueError(msg)
    if sigma == 0:
        return torch.eye(size, dtype=torch.float64)
    radius = int(TRUNCATION * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.softmax(-((offsets.double() / sigma) ** 2) / 2, dim=0)  # (2*radius + 1,)
    sources = torch.remainder(torch.arange(size)[:, None] + offsets, 2 * size)  # (size, 2*radius + 1)
    mirrored = torch.where(sources < size, sources, 2 * size - 1 - sources)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add(1, mirrored, weights.expand(size, -1).contiguous())
