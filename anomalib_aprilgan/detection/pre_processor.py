# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""CLIP's preprocessing as an anomalib pre-processor."""

from typing import Any

from anomalib.pre_processing import PreProcessor
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torchvision.transforms.v2 import Compose, Normalize

from anomalib_aprilgan.data.pillow_resize import PillowResize


class CLIPPreProcessor(PreProcessor):
    """Squash images to S x S and normalise them as CLIP expects.

    Aspect ratio not kept, as in the authors' ``dataset.py`` and open_clip's transform.

    Args:
        image_size (int): Side S in pixels.
    """

    def __init__(self, image_size: int) -> None:
        super().__init__()
        if not isinstance(image_size, int):
            msg = f"image_size={image_size!r} must be an integer: the side of a square in pixels."
            raise ValueError(msg)  # ruff: ignore[type-check-without-type-error] - as for every other size that does not fit
        self._configure(image_size)

    def _configure(self, image_size: int) -> None:
        self.image_size = image_size
        self.transform = Compose([PillowResize(image_size), Normalize(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)])
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


def square_pre_processor(image_size: tuple[int, int] | None, default: int) -> CLIPPreProcessor:
    """Pre-processor for a size as anomalib gives it.

    Args:
        image_size (tuple[int, int] | None): Height and width, equal; None takes the default.
        default (int): Side in pixels.

    Raises:
        ValueError: If height and width differ.
    """
    height, width = image_size or (default, default)
    if height != width:
        msg = f"image_size={image_size} must be square: CLIP's images are."
        raise ValueError(msg)
    return CLIPPreProcessor(height)
