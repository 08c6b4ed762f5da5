# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Batches as anomalib read them, mended where that is not what is in the image files."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer

from .auxiliary_batch import AuxiliaryBatch
from .image_files import (
    UNDECODABLE,
    UnreadableImageError,
    find_unreadable,
    has_alpha,
    needs_own_reader,
    read_header,
    read_image,
    read_squashed,
)
from .pillow_resize import resize_image

HALF_A_LEVEL = 0.5 / 255


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
    return len(paths) == len(images) and len({header and header.size for header in map(read_header, paths)}) > 1


def _image_paths(trainer: Trainer) -> Iterator[str | Path]:
    """All image files of the data loaders in use."""
    loaders: list[Any] = []
    for active in (trainer.val_dataloaders, trainer.test_dataloaders, trainer.predict_dataloaders):
        loaders += active if isinstance(active, list) else [active]
    for loader in loaders:
        yield from files_of(getattr(loader, "dataset", None))


def files_of(dataset: Any) -> Iterable[str | Path]:  # ruff: ignore[any-type] - any dataset
    """Image files of a dataset of anomalib's; none of any other."""
    samples = getattr(dataset, "samples", None)
    files: Iterable[str | Path] = getattr(dataset, "image_filenames", []) if samples is None else samples.image_path
    return files
