# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Which numbers an image tower calculates with."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = "auto"
# Linux lists here what the processor can do.
PROCESSOR = Path("/proc/cpuinfo")
NATIVE_BF16 = frozenset({"amx_bf16", "avx512_bf16"})
# Norms of open_clip's blocks that read the residual stream.
STREAM_NORMS = frozenset({"ln_1", "ln_2"})


def dtype_of(precision: str) -> torch.dtype:
    """The data type of a precision.

    Args:
        precision (str): ``fp32``, ``bf16``, ``fp16``, or ``auto`` for :func:`native_precision`.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> dtype_of("bf16")
        torch.bfloat16
    """
    chosen = native_precision() if precision == AUTO else precision
    if chosen not in DTYPES:
        msg = f"precision={precision!r} is unknown, expected one of {', '.join(DTYPES)} or {AUTO}."
        raise ValueError(msg)
    return DTYPES[chosen]


def native_precision() -> str:
    """The fastest precision that this machine calculates in natively.

    Returns:
        str: ``fp16`` with a CUDA GPU, three bits more exact than bf16 there; else ``bf16`` if the processor has AMX or
        AVX-512 instructions for it; else ``fp32``.
    """
    if torch.cuda.is_available():
        return "fp16"
    try:
        words = PROCESSOR.read_text(encoding="utf-8").split()
    except OSError:
        words = []
    return "bf16" if NATIVE_BF16 & set(words) else "fp32"


class NarrowingLayerNorm(nn.LayerNorm):
    """A layer norm that reads float32 and hands out what matrices of lower precision take.

    Args:
        norm (nn.LayerNorm): Norm to take the place of; its weights are shared.
        dtype (torch.dtype): Of the output.
    """

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        super().__init__(norm.normalized_shape, norm.eps, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.dtype = dtype

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """Normalise in float32."""
        return functional.layer_norm(stream, self.normalized_shape, self.weight, self.bias, self.eps).to(self.dtype)


def narrow(visual: nn.Module, dtype: torch.dtype) -> None:
    """Let an image tower of open_clip calculate with a lower precision, in place.

    In a ViT only what the blocks multiply and attend with is narrowed. Embedding, residual stream and norms stay in
    float32: they cost nothing that matters and make most of the error, since each block's rounding of the stream stays
    in it. A ResNet is narrowed as a whole.

    Args:
        visual (nn.Module): Image tower in float32.
        dtype (torch.dtype): Of its matrices.
    """
    if dtype == torch.float32:
        return
    if not hasattr(visual, "transformer"):
        visual.to(dtype)
        return
    transformer: Any = visual.transformer
    for block in transformer.resblocks:
        for name, part in block.named_children():
            if name in STREAM_NORMS:
                setattr(block, name, NarrowingLayerNorm(part, dtype))
            else:
                part.to(dtype)
        if isinstance(block.attn, nn.MultiheadAttention):
            # Blocks of open_clip 3 put images first. For that layout torch has another attention, which moves maps
            # more than twice as far; whoever runs the blocks looks here which layout they want.
            block.attn.batch_first = False
