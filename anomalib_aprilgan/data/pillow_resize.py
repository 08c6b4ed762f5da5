# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Resizing as Pillow does it, which CLIP's training images and the authors' images and masks have passed.

Source: ``dataset.py`` and the transforms of github.com/ByChelsea/VAND-APRIL-GAN. Pillow resizes rows, then columns, and
rounds to 8 bits and clips after each. Clipping once, at the end, is up to 20 grey levels away at hard edges.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode, Resize
from torchvision.transforms.v2.functional import resize
from torchvision.tv_tensors import Mask, TVTensor

LEVELS = 255


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
        if isinstance(inpt, Mask):
            resized = inpt if inpt.shape[-2:] == size else (resize_mask(inpt, size) > 0.5).to(inpt.dtype)
        elif inpt.shape[-2:] == size:
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
    """What Pillow does, in torch; at most one grey level away where Pillow takes rows first, too."""
    for step in ((images.shape[-2], size[1]), size):
        resized = resize(images, list(step), interpolation=InterpolationMode.BICUBIC, antialias=True)
        images = (resized.clamp(0, 1) * LEVELS).round() / LEVELS
    return images


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
    planes = (images.detach().clamp(0, 1) * LEVELS).round().to(torch.uint8).cpu().numpy()
    planes = planes.reshape(-1, *images.shape[-2:])  # (P, H, W)
    resized = [np.asarray(Image.fromarray(plane).resize(size[::-1], method)) for plane in planes]
    return (torch.from_numpy(np.stack(resized)).float() / LEVELS).reshape(*images.shape[:-2], *size)
