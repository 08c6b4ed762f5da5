# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""From tokens and text to anomaly maps: pure functions.

The authors up-sample two channels a stage and take their softmax (``test.py``). Interpolation is linear and a softmax
of two is the sigmoid of their difference, so one channel gives the same map.
"""

import math

import torch
from torch.nn import functional

# The authors write 100 and not CLIP's learned scale (test.py), which is 100 in OpenAI's weights.
LOGIT_SCALE = 100.0


def logit_difference(features: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """How much closer features are to the anomalous text than to the normal one.

    Args:
        features (torch.Tensor): P features in the text space, any length, perhaps of N images, (..., P, E).
        text (torch.Tensor): Unit vectors, normal first: of one class, (2, E), or of each image's class, (N, 2, E).

    Returns:
        torch.Tensor: 100 * (cos anomalous - cos normal), (..., P), in [-200, 200].

    Example:
        >>> logit_difference(torch.tensor([[0.0, 3.0], [2.0, 0.0]]), torch.eye(2))
        tensor([ 100., -100.])
    """
    direction = text[..., 1, :] - text[..., 0, :]  # (..., E)
    return LOGIT_SCALE * (functional.normalize(features, dim=-1) @ direction.unsqueeze(-1)).squeeze(-1)


def probability(difference: torch.Tensor) -> torch.Tensor:
    """Softmax over the two logits, anomalous channel: the sigmoid of their difference, in [0, 1]."""
    return torch.sigmoid(difference)


def text_probability(pooled: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Probability of the anomalous text for whole images.

    Args:
        pooled (torch.Tensor): CLIP's image features, (N, E).
        text (torch.Tensor): Of one class (2, E), or of each image's class (N, 2, E).

    Returns:
        torch.Tensor: (N,), in [0, 1].
    """
    return probability(logit_difference(pooled.unsqueeze(1), text).squeeze(1))


def upsample(grid: torch.Tensor, size: int) -> torch.Tensor:
    """Bring values on a square grid of patches to image size.

    Bilinear with aligned corners, as in ``test.py`` of the authors.

    Args:
        grid (torch.Tensor): One value a patch, row by row, (N, g*g).
        size (int): Side in pixels S.

    Returns:
        torch.Tensor: (N, S, S).
    """
    side = math.isqrt(grid.shape[1])
    planes = grid.unflatten(1, (1, side, side))  # (N, 1, g, g)
    pixels = functional.interpolate(planes, size=(size, size), mode="bilinear", align_corners=True)  # (N, 1, S, S)
    return pixels.squeeze(1)  # (N, S, S)
