# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Which numbers an image tower calculates with."""

from pathlib import Path

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = "auto"
# Linux lists here what the processor can do.
PROCESSOR = Path("/proc/cpuinfo")
NATIVE_BF16 = frozenset({"amx_bf16", "avx512_bf16"})


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
