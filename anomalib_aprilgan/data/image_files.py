# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Image files as they come from cameras: 16-bit and float images, transparent ones, and files that cannot be read."""

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from .auxiliary_batch import AuxiliaryBatch
from .pillow_resize import resize_image

logger = logging.getLogger(__name__)

# Formats that hold 8 bits a channel at most: their headers need not be looked at.
EIGHT_BIT_SUFFIXES = frozenset({".jpg", ".jpeg", ".bmp", ".webp", ".gif"})
OPAQUE_SUFFIXES = frozenset({".jpg", ".jpeg"})
ALPHA_MODES = frozenset({"RGBA", "LA"})
SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
HALF_A_LEVEL = 0.5 / 255
MAX_16_BIT = 65535
MAX_12_BIT = 4095
MAX_REPORTED = 10
# What Pillow raises on files that it cannot decode, or refuses for their size.
UNDECODABLE = (OSError, SyntaxError, Image.DecompressionBombError)


class UnreadableImageError(OSError):
    """Some image files cannot be decoded; the message names them."""


@contextmanager
def open_image(path: str | Path, kind: str = "an image") -> Generator[Image.Image, None, None]:
    """An image file, open; what cannot be decoded while it is open is told with its name.

    Args:
        path (str | Path): Image of any mode and size.
        kind (str): What it is to be, for the error.

    Raises:
        UnreadableImageError: If the file is missing, empty, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            yield image
    except UNDECODABLE as error:
        msg = f"{path} cannot be read as {kind}: {error}. Replace or remove it."
        raise UnreadableImageError(msg) from error


def read_image(path: str | Path) -> torch.Tensor:
    """Read an image file as RGB.

    Anomalib's own reader clips 16-bit images at 255, which turns them white; here they are scaled by 65535.

    Args:
        path (str | Path): Image of any mode and size.

    Returns:
        torch.Tensor: (3, H, W), float32, in [0, 1].

    Raises:
        UnreadableImageError: If the file is missing, empty, truncated or no image.
        ValueError: If its values have no known range: floats, or integers beyond 0 to 65535.
    """
    with open_image(path) as image:
        return _decode(image, path)


def read_squashed(path: str | Path, size: tuple[int, int]) -> torch.Tensor:
    """Read an image file as RGB, resized as the authors do it: with its alpha channel, which is dropped then.

    Pillow weighs colours by alpha while it resizes, so transparent pixels give nothing to their neighbours
    (``dataset.py`` of github.com/ByChelsea/VAND-APRIL-GAN opens files without converting them first).

    Args:
        path (str | Path): Image of any mode and size.
        size (tuple[int, int]): Height h and width w wanted.

    Returns:
        torch.Tensor: (3, h, w), float32, in [0, 1].

    Raises:
        UnreadableImageError: As ``read_image``.
        ValueError: As ``read_image``.
    """
    with open_image(path) as image:
        if _may_have_alpha(path) and image.mode in ALPHA_MODES:
            return _in_unit_range(image.resize(size[::-1], Image.Resampling.BICUBIC))
        values = _decode(image, path)
    return resize_image(values, size)


def _in_unit_range(image: Image.Image) -> torch.Tensor:
    values = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)  # (3, H, W)
    return values.float() / 255


def _decode(image: Image.Image, path: str | Path) -> torch.Tensor:
    if image.mode == "F":
        msg = f"{path} holds floating point numbers of unknown range. Save it with 8 or 16 bits a channel."
        raise ValueError(msg)
    if image.mode not in SIXTEEN_BIT_MODES:
        return _in_unit_range(image)
    values = torch.from_numpy(np.array(image.convert("I")))[None].float()  # (1, H, W)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > MAX_16_BIT:
        msg = (
            f"{path} holds values from {lowest} to {highest}, outside of 16 bits. Save it with 8 or 16 bits a channel."
        )
        raise ValueError(msg)
    if values.max() <= MAX_12_BIT:
        _warn_of_dark_images(str(Path(path).parent))
    return (values / MAX_16_BIT).expand(3, -1, -1)


@cache  # once a folder
def _warn_of_dark_images(folder: str) -> None:
    logger.warning(
        "16-bit images in %s use %d levels at most, as those of 12-bit cameras do: they are taken as they are, nearly "
        "black. If they are 12-bit, multiply their values by 16 and save them anew.",
        folder,
        MAX_12_BIT + 1,
    )


def needs_own_reader(path: str | Path) -> bool:
    """Whether anomalib's reader would clip the values of a file (16-bit or float)."""
    return Path(path).suffix.lower() not in EIGHT_BIT_SUFFIXES and _mode_of(path) in SIXTEEN_BIT_MODES | {"F"}


def has_alpha(path: str | Path) -> bool:
    """Whether a file has an alpha channel beside grey or colours."""
    return _may_have_alpha(path) and _mode_of(path) in ALPHA_MODES


def _may_have_alpha(path: str | Path) -> bool:
    return Path(path).suffix.lower() not in OPAQUE_SUFFIXES


def _mode_of(path: str | Path) -> str | None:
    try:
        with Image.open(path) as image:
            mode: str | None = image.mode
    except UNDECODABLE:
        mode = None  # in memory only, or gone since
    return mode


def find_unreadable(paths: Iterable[str | Path]) -> list[str]:
    """Those of some files that cannot be decoded, ten at most."""
    unreadable: list[str] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
        except UNDECODABLE:
            unreadable.append(str(path))
        if len(unreadable) == MAX_REPORTED:
            break
    return unreadable


class ImageFileGuard(Callback):
    """Keeps bad image files from passing silently or failing namelessly.

    Before each batch, images that anomalib has clipped, scaled to the size of others in the batch, or stripped of their
    alpha channel, are read anew; it must come before the pre-processor. When a run fails on a file, the error names
    the files that cannot be read.

    Args:
        image_size (int): Side S in pixels of the model's input.
        squashes (bool): Whether the pre-processor squashes images to S x S; then they may come to it like that.
    """

    def __init__(self, image_size: int, *, squashes: bool) -> None:
        super().__init__()
        self.size = (image_size, image_size)
        self.squashes = squashes

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Read those images of a batch anew that are not what is in their files."""
        del trainer, batch_idx, dataloader_idx
        # Auxiliary images have been read rightly, and perhaps changed since.
        if batch.image is not None and not isinstance(batch, AuxiliaryBatch):
            paths = batch.image_path or []
            if self.squashes and were_scaled(batch.image, paths, self.size):
                batch.image = torch.stack([read_squashed(path, self.size) for path in paths])
                batch.image = batch.image.to(pl_module.device)
            else:
                batch.image = unclipped_images(batch.image, paths)
                if self.squashes:
                    batch.image = squash_transparent(batch.image, paths, self.size)

    on_validation_batch_start = on_predict_batch_start
    on_test_batch_start = on_predict_batch_start

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Name the files that a failed run could not read.

        Raises:
            UnreadableImageError: If there are any.
        """
        del pl_module
        if not isinstance(exception, UNDECODABLE) or isinstance(exception, UnreadableImageError):
            return
        if unreadable := find_unreadable(_image_paths(trainer)):
            msg = f"These image files cannot be read; replace or remove them: {', '.join(unreadable)}."
            raise UnreadableImageError(msg) from exception


def unclipped_images(images: torch.Tensor, paths: Sequence[str]) -> torch.Tensor:
    """Replace images of a batch that anomalib's reader has clipped.

    Args:
        images (torch.Tensor): Images before normalisation, (N, 3, H, W), in [0, 1].
        paths (Sequence[str]): Their files, or nothing.

    Returns:
        torch.Tensor: The same tensor if all is well; else a new one with these images read anew, at the batch's size.
    """
    clipped = {index: path for index, path in enumerate(paths) if needs_own_reader(path)}
    if not clipped:
        return images
    replaced = images.clone()
    for index, path in clipped.items():
        replaced[index] = resize_image(read_image(path), (images.shape[-2], images.shape[-1])).to(images.device)
    return replaced


def squash_transparent(images: torch.Tensor, paths: Sequence[str], size: tuple[int, int]) -> torch.Tensor:
    """Squash a batch with transparent images as ``read_squashed`` does, unless they were changed since they were read.

    Args:
        images (torch.Tensor): Images before normalisation, (N, 3, H, W), in [0, 1].
        paths (Sequence[str]): Their files, or nothing.
        size (tuple[int, int]): The model's input, h and w.

    Returns:
        torch.Tensor: The same tensor if there are none; else all images squashed, (N, 3, h, w).
    """
    transparent = {
        index: read_squashed(path, size)
        for index, path in enumerate(paths)
        if has_alpha(path) and _is_as_read(images[index], path, size)
    }
    if not transparent:
        return images
    squashed = resize_image(images, size)
    for index, image in transparent.items():
        squashed[index] = image.to(images.device)
    return squashed


def _is_as_read(image: torch.Tensor, path: str, size: tuple[int, int]) -> bool:
    """Whether an image is what its file holds without alpha; a datamodule may have squashed it, or cropped it."""
    plain = read_image(path)
    if tuple(image.shape[-2:]) == size:
        plain = resize_image(plain, size)
    return image.shape == plain.shape and bool((image.cpu() - plain).abs().max() < HALF_A_LEVEL)


def were_scaled(images: torch.Tensor, paths: Sequence[str], size: tuple[int, int]) -> bool:
    """Whether anomalib's collate function has scaled images of several sizes to that of the largest.

    Args:
        images (torch.Tensor): Images before normalisation, (N, 3, H, W).
        paths (Sequence[str]): Their files, or nothing.
        size (tuple[int, int]): The model's input; datamodules bring their images to it one by one, before they collate.
    """
    if len(images) == 1 or images.shape[-2:] == size:
        return False  # the usual cases: no header need be read
    return len(paths) == len(images) and len({_size_of(path) for path in paths}) > 1


def _size_of(path: str) -> tuple[int, int] | None:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except UNDECODABLE:
        return None  # in memory only, or gone since


def _image_paths(trainer: Trainer) -> Iterator[str | Path]:
    """All image files of the data loaders in use."""
    loaders: list[Any] = []
    for active in (trainer.val_dataloaders, trainer.test_dataloaders, trainer.predict_dataloaders):
        loaders += active if isinstance(active, list) else [active]
    for loader in loaders:
        dataset = getattr(loader, "dataset", None)
        if (samples := getattr(dataset, "samples", None)) is not None:
            yield from samples.image_path
        else:
            yield from getattr(dataset, "image_filenames", [])
