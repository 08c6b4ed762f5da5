# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""CLIP's preprocessing as an anomalib pre-processor."""

from typing import Any

import torch
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize, Transform
from torchvision.tv_tensors import Mask

# Mean and standard deviation of CLIP's training images (open_clip/constants.py).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClampImage(Transform):
    """Limit images to [0, 1], as 8-bit images are by nature: bicubic interpolation overshoots at edges."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:  # ruff: ignore[any-type] - torchvision's signature
        """Clamp an image; leave masks and anything else alone."""
        del params
        return inpt.clamp(0, 1) if isinstance(inpt, torch.Tensor) and not isinstance(inpt, Mask) else inpt


class CLIPPreProcessor(PreProcessor):
    """Squash images to S x S and normalise them as CLIP expects.

    Bicubic with antialiasing, aspect ratio not kept, as in the authors' ``dataset.py`` and open_clip's transform.

    Args:
        image_size (int): Side S in pixels.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self._configure(image_size)

    def _configure(self, image_size: int) -> None:
        self.image_size = image_size
        self.transform = Compose([
            Resize((image_size, image_size), interpolation=InterpolationMode.BICUBIC, antialias=True),
            ClampImage(),
            Normalize(mean=CLIP_MEAN, std=CLIP_STD),
        ])
        # Anomalib would switch antialiasing off here, and ``model(images)`` differ from ``Engine.predict``.
        self.export_transform = self.transform

    def checkpoint_config(self) -> dict[str, Any]:
        """Plain data for a checkpoint: the size settles the rest."""
        return {"image_size": self.image_size}

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what ``checkpoint_config`` returned, or what a plain ``PreProcessor`` did in its place."""
        if "image_size" in config:
            self._configure(config["image_size"])
        else:
            super().load_checkpoint_config(config)
