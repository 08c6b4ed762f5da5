# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A second stream through the last blocks of a ViT, in which tokens attend to tokens of like value.

Source: "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection" (arXiv 2310.18961), section 3.3
(DPAM, the V-V attention); ``AnomalyCLIP_lib`` of github.com/zqhang/AnomalyCLIP.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def value_streams(blocks: nn.ModuleList, tokens: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Run transformer blocks of open_clip one by one, with a second stream beside the usual one.

    Both begin as the first block's input. To the second each block adds the value-value attention of the *usual*
    stream, and no MLP; it never flows back. So of the usual stream nobody reads more than the class token after the
    last block, and no more is calculated there.

    Args:
        blocks (nn.ModuleList): The last of ``transformer.resblocks`` of an image tower.
        tokens (torch.Tensor): Input of the first of them, (N, T, W).

    Yields:
        tuple[torch.Tensor, torch.Tensor]: After each block the usual stream, (N, T, W), or (N, 1, W) after the last
            one, and the second stream, (N, T, W).
    """
    length = tokens.shape[1]
    stream = values = tokens
    del tokens  # here and below: what is not needed any more would be held while the next block runs
    for number, block in enumerate(blocks, start=1):
        needed = 1 if number == len(blocks) else length
        attended, values_attended = _attend_twice(block, stream, needed)
        values = values + values_attended
        stream = stream[:, :needed] + attended
        del attended, values_attended
        stream = stream + block.ls_2(block.mlp(block.ln_2(stream)))  # type: ignore[operator]
        yield stream, values


def _attend_twice(block: Any, stream: torch.Tensor, needed: int) -> tuple[torch.Tensor, torch.Tensor]:  # ruff: ignore[any-type] - open_clip is untyped
    """What the usual attention adds to the first tokens, and the value-value attention to all; projections are shared.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: (N, needed, W) and (N, T, W).
    """
    attention: nn.MultiheadAttention = block.attn
    projected = functional.linear(block.ln_1(stream), attention.in_proj_weight, attention.in_proj_bias)  # (N, T, 3*W)
    by_head = projected.unflatten(2, (3, attention.num_heads, attention.head_dim))  # (N, T, 3, H, W/H)
    # Attention on CPUs is the faster for it by more than the copy costs.
    query, key, value = by_head.permute(2, 0, 3, 1, 4).contiguous().unbind()  # (N, H, T, W/H) each
    del projected, by_head
    usual = functional.scaled_dot_product_attention(query[:, :, :needed], key, value)
    among_values = functional.scaled_dot_product_attention(value, value, value)

    def put_together(heads: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = block.ls_1(attention.out_proj(heads.transpose(1, 2).flatten(2)))  # (N, ., W)
        return added

    return put_together(usual), put_together(among_values)


def check_value_blocks(number: int, available: int, name: str = "value_blocks") -> int:
    """Return the number of blocks with a second stream if there are as many.

    Raises:
        ValueError: If the number is out of range.
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= available:
        msg = (
            f"{name}={number!r} must be the number of last blocks with value-value attention, 0 to {available} for "
            "this backbone."
        )
        raise ValueError(msg)
    return number


def check_attention(blocks: nn.ModuleList) -> None:
    """Refuse blocks that cannot have a second stream.

    Raises:
        ValueError: If they attend in another way than CLIP's own.
    """
    if others := [block for block in blocks if type(getattr(block, "attn", None)) is not nn.MultiheadAttention]:
        msg = (
            f"Value-value attention needs blocks with torch's MultiheadAttention, this backbone has "
            f"{type(others[0]).__name__}. Choose a plain ViT such as ViT-L-14-336 or ViT-B-16."
        )
        raise ValueError(msg)
