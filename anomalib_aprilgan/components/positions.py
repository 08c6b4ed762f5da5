# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Positional embeddings of image towers at other sizes than those of training."""

import math

import torch
from torch import nn
from torch.nn import functional

# Of a ViT, and of a ResNet's attention pooling.
POSITIONS = ("visual.positional_embedding", "visual.attnpool.positional_embedding")


def resize_positions(
    state: dict[str, torch.Tensor], visual: nn.Module, interpolation: str = "bicubic"
) -> dict[str, torch.Tensor]:
    """Fit the image tower's positional embedding to the grid that it was built for; the class token's is kept.

    Source: ``resize_pos_embed`` in open_clip's ``model.py``, which leaves ResNets out.

    Args:
        state (dict[str, torch.Tensor]): Weights by name; not changed.
        visual (nn.Module): Image tower at the size to run at.
        interpolation (str): ``bicubic``, with antialiasing as in open_clip, or ``bilinear``, without.

    Returns:
        dict[str, torch.Tensor]: The same, the embedding replaced where its grid differs.
    """
    shapes = {f"visual.{name}": tensor.shape for name, tensor in visual.state_dict().items()}
    resized = {
        name: resize_grid(state[name], math.isqrt(shapes[name][0] - 1), interpolation)
        for name in POSITIONS
        if name in state and name in shapes
    }
    return {**state, **resized}


def resize_grid(embedding: torch.Tensor, side: int, interpolation: str = "bicubic") -> torch.Tensor:
    """Fit a positional embedding to a square grid; the class token's, which comes first, is kept.

    Args:
        embedding (torch.Tensor): Of another grid, (1 + g*g, W).
        side (int): Side g' of the new grid.
        interpolation (str): As for :func:`resize_positions`.

    Returns:
        torch.Tensor: (1 + g'*g', W).
    """
    old_side = math.isqrt(len(embedding) - 1)
    if side == old_side:
        return embedding
    grid = embedding[1:].T.unflatten(1, (old_side, old_side))[None]  # (1, W, g, g)
    antialias = interpolation == "bicubic"
    resized = functional.interpolate(grid, (side, side), mode=interpolation, antialias=antialias, align_corners=False)
    return torch.cat([embedding[:1], resized[0].flatten(1).T])  # (1 + g'*g', W)
