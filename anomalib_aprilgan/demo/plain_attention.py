# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Blocks of an image tower with attention as three plain operations, for the small CLIP's training.

Under bfloat16 autocast on a CPU, torch's own attention either multiplies in float32 (``MATH``) or goes backwards slowly
(``FLASH_ATTENTION``). Products and softmax by themselves take half the time of the better one, for 129 to 577 tokens.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

TOKENS_AT_ONCE = 1024  # so that their weights of attention stay in the processor's cache


def plain_stream(blocks: nn.ModuleList, tokens: torch.Tensor) -> Iterator[torch.Tensor]:
    """Run transformer blocks of open_clip one by one, with the numbers of ``residual_stream``.

    Args:
        blocks (nn.ModuleList): ``transformer.resblocks`` of a ViT without layer scale.
        tokens (torch.Tensor): Input of the first block, (N, T, W).

    Yields:
        torch.Tensor: The residual stream after each block, (N, T, W).
    """
    stream = tokens
    for block in blocks:
        stream = stream + _attended(block.attn, block.ln_1(stream))  # type: ignore[operator, arg-type]
        stream = stream + block.mlp(block.ln_2(stream))  # type: ignore[operator]
        yield stream


def _attended(attention: nn.MultiheadAttention, tokens: torch.Tensor) -> torch.Tensor:
    """What self-attention makes of tokens (N, T, W), of the same shape."""
    projected = functional.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)  # (N, T, 3*W)
    by_head = projected.unflatten(2, (3, attention.num_heads, attention.head_dim))  # (N, T, 3, H, W/H)
    groups = [
        _attend(*group.permute(2, 0, 3, 1, 4).unbind())  # (n, H, T, W/H)
        for group in by_head.split(max(1, TOKENS_AT_ONCE // tokens.shape[1]))
    ]
    together = torch.cat(groups).transpose(1, 2).flatten(2)  # (N, T, W)
    mixed: torch.Tensor = attention.out_proj(together)
    return mixed


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention; all (n, H, T, W/H)."""
    weights = ((query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)).softmax(-1)  # (n, H, T, T)
    attended: torch.Tensor = weights @ value
    return attended
