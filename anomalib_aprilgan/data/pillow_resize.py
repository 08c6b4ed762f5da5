# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Resizing as Pillow does it, which CLIP's training images and the authors' images and masks have passed.

Source: ``dataset.py`` and the transforms of github.com/ByChelsea/VAND-APRIL-GAN. Pillow resizes rows, then columns, and
rounds to 8 bits and clips after each. Clipping once, at the end, is up to 20 grey levels away at hard edges.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode, Resize
from torchvision.tv_tensors import Mask, TVTensor

from .float_pair import FloatPair

LEVELS = 255
ROWS = 64
# Pillow's weights are whole numbers of 22 bits (``PRECISION_BITS`` in its ``Resample.c``). Here they go in two halves:
# sums of their products with grey levels are then whole numbers that float32 holds, up to 16-fold shrinking.
HALF_STEPS = 1 << 11
# Keys's cubic with a = -1/2: of its powers from the third down, factors at distances below 1 and below 2.
CUBIC = ((1.5, -0.5), (-2.5, 2.5), (0.0, -4.0), (1.0, 2.0))


class PillowResize(Resize):
    """Squash images, and masks with them, to a square.

    Args:
        side (int): Side S in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__((side, side), interpolation=InterpolationMode.BICUBIC, antialias=True)
        self.side = side

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # ruff: ignore[any-type] - torchvision's signature
        """Resize images (..., H, W) in [0, 1] to (..., S, S) in [0, 1]; masks stay of two values."""
        if not isinstance(inpt, torch.Tensor):
            return super().transform(inpt, params)
        size = (self.side, self.side)
        # In exported graphs the size may be open; then it is compared when the graph runs.
        is_same = all(isinstance(old, int) and old == self.side for old in inpt.shape[-2:])
        if isinstance(inpt, Mask):
            resized = inpt if is_same else (resize_mask(inpt, size) > 0.5).to(inpt.dtype)
        elif is_same:
            resized = inpt.clamp(0, 1)
        else:
            resized = resize_image(inpt, size)
        resized = resized.to(inpt.device)
        # A plain tensor needs no wrapping, which torch.export cannot follow.
        return tv_tensors.wrap(resized, like=inpt) if isinstance(inpt, TVTensor) else resized


def resize_image(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize images, bicubic with antialiasing: by Pillow on the CPU, elsewhere and in exported graphs by its steps.

    Args:
        images (torch.Tensor): (..., H, W), in [0, 1].
        size (tuple[int, int]): Height h and width w wanted.

    Returns:
        torch.Tensor: (..., h, w), in [0, 1], whole grey levels.
    """
    in_graph = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if images.device.type == "cpu" and not in_graph:
        return _by_pillow(images, size, Image.Resampling.BICUBIC)
    return by_pillows_steps(images, size)


def by_pillows_steps(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What Pillow does, to the same grey levels, in matrix products of float32, which every device and runtime has.

    Args:
        images (torch.Tensor): (..., H, W), in [0, 1]; left as they are where they have the size wanted.
        size (tuple[int, int]): Height h and width w wanted.

    Returns:
        torch.Tensor: (..., h, w), in [0, 1].
    """
    height, width = (torch.full((), length, device=images.device) for length in images.shape[-2:])
    is_same = (height == size[0]) & (width == size[1])
    levels = images.clamp(0, 1) * LEVELS
    levels = torch.where(is_same, levels, (levels + 0.5).floor())
    for new in (size[1], size[0]):
        old = levels.shape[-1]
        # Of open size a graph calculates weights when it runs, maybe without float64; else they become constants.
        number = torch.Tensor.double if isinstance(old, int) else FloatPair.of
        coarse, fine = (part.to(images.device) for part in _cubic_weights(old, new, number))  # each (new, old)
        sums = levels @ coarse.T + (levels @ fine.T / HALF_STEPS).floor()
        resized = (sums / HALF_STEPS).clamp(0, LEVELS)
        rounded = torch.where(is_same, resized, (resized + 0.5).floor())
        levels = rounded.transpose(-1, -2)  # (..., w, H), then (..., h, w)
    return levels / LEVELS


def _cubic_weights(old: int, new: int, number: Callable[[torch.Tensor], Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """What each of the old pixels of a row gives to each of the new ones, in units of 2^-11 and the rest of 2^-22.

    The cubic is stretched where the row shrinks; what falls outside of the row is left out (``precompute_coeffs`` in
    Pillow's ``Resample.c``).
    """
    ours, theirs = torch.arange(new)[:, None], torch.arange(old)  # (new, 1), (old,)
    # Distance of the pixels' centres in units of half a pixel over the new length, whole so far.
    apart = ((2 * theirs + 1) * new - (2 * ours + 1) * old).abs()  # (new, old)
    distance = number(apart) / number(2 * torch.full((), old).clamp(min=new))
    near, far = distance < 1, distance < 2
    factors = [torch.where(near, one, torch.where(far, two, 0.0)) for one, two in CUBIC]
    weights = number(factors[0])
    for factor in factors[1:]:
        weights = weights * distance + factor
    steps = (weights / weights.sum(1, keepdim=True) * HALF_STEPS**2).round().float()
    coarse = (steps / HALF_STEPS).round()
    return coarse, steps - coarse * HALF_STEPS


def resize_mask(mask: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize a mask as the authors do: bilinear, cut at one half by the caller.

    Args:
        mask (torch.Tensor): (..., H, W), anomalous above 0.
        size (tuple[int, int]): Height h and width w wanted.

    Returns:
        torch.Tensor: (..., h, w), float32, in [0, 1], soft at edges, on the CPU.

    Example:
        >>> resize_mask(torch.tensor([[True, True, False, False]]), (1, 2))
        tensor([[0.8588, 0.1412]])
    """
    return _by_pillow((mask > 0).float(), size, Image.Resampling.BILINEAR)


def _by_pillow(images: torch.Tensor, size: tuple[int, int], method: Image.Resampling) -> torch.Tensor:
    planes = _grey_levels(images.detach().cpu()).reshape(-1, *images.shape[-2:]).numpy()  # (P, H, W)
    resized = [np.asarray(Image.fromarray(plane).resize(size[::-1], method)) for plane in planes]
    return (torch.from_numpy(np.stack(resized)).float() / LEVELS).reshape(*images.shape[:-2], *size)


def _grey_levels(images: torch.Tensor) -> torch.Tensor:
    """Images (..., H, W) in [0, 1] as 8 bits.

    By some rows at a time: fresh memory for a whole photograph takes longer than Pillow does for resizing it.
    """
    return torch.cat([(rows.clamp(0, 1) * LEVELS).round().to(torch.uint8) for rows in images.split(ROWS, dim=-2)], -2)
