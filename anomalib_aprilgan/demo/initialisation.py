# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""How the image tower of the small CLIP starts: with patches that compare themselves with their neighbours."""

from typing import Any

import torch
from open_clip.model import CLIP

POSITIONS, LOOKING, TAKING_AWAY = 0.5, 0.2, 0.4  # sizes of positions, of query-key and of value-projection products


@torch.no_grad()
def initialise_image_tower(clip: CLIP) -> None:
    """Overwrite positions and attention weights of a ViT, in place as the functions of ``torch.nn.init``.

    Mimetic initialisation (Trockman and Kolter, arXiv 2305.09828): sinusoidal positions; queries and keys whose product
    is near the identity, so that patches look at similar and near ones; values whose product with the projection is
    near minus the identity, so that what neighbours have in common is taken away.

    Args:
        clip (CLIP): open_clip's model with a ViT.
    """
    visual: Any = clip.visual
    count, width = visual.positional_embedding[1:].shape
    visual.positional_embedding[1:] = POSITIONS * _sinusoids(int(count**0.5), width)
    for block in visual.transformer.resblocks:
        query, key, value = block.attn.in_proj_weight.chunk(3)  # (W, W) each, rows by head
        for rows in torch.arange(width).chunk(block.attn.num_heads):
            left, right = _factors(LOOKING, LOOKING, width)
            query[rows], key[rows] = left.T[: len(rows)], right[: len(rows)]
        block.attn.out_proj.weight[:], value[:] = _factors(TAKING_AWAY, -TAKING_AWAY, width)


def _factors(noise: float, identity: float, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices (W, W) whose product is noise plus a multiple of the identity."""
    product = noise * torch.randn(width, width) / width**0.5 + identity * torch.eye(width)
    left, size, right = torch.linalg.svd(product)
    return left * size.sqrt(), size.sqrt()[:, None] * right


def _sinusoids(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of row and column, (g*g, W)."""
    frequencies = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    angles = torch.arange(side)[:, None] * frequencies  # (g, W / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (g, W / 2)
    rows, columns = waves[:, None].expand(side, side, -1), waves[None].expand(side, side, -1)  # (g, g, W / 2)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)  # (g*g, W)
