# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Checks of images that come to a model."""

import torch


def check_images(images: torch.Tensor, size: int) -> None:
    """Refuse images that a model cannot judge; under export only their shape is looked at.

    Args:
        images (torch.Tensor): Preprocessed images.
        size (int): Side in pixels S of the model's input.

    Raises:
        ValueError: If they are not (N, 3, S, S), N > 0, or hold NaN or infinite values.

    Example:
        >>> check_images(torch.zeros(2, 3, 56, 56), 56)
    """
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size) or images.shape[0] == 0:
        msg = f"Expected images (N, 3, {size}, {size}), got {tuple(images.shape)}. Use the model's pre_processor."
        raise ValueError(msg)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return  # an exported graph cannot raise
    finite = images.isfinite().flatten(1).all(dim=1)  # (N,)
    if not finite.all():
        broken = (~finite).nonzero().flatten().tolist()
        msg = f"Images {broken} of the batch hold NaN or infinite values. Look at the files and at the transforms."
        raise ValueError(msg)
