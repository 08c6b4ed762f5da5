# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Photos of a folder, at the model's size; bad files are told and not fatal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem
from torch.utils.data import DataLoader, Dataset

from anomalib_aprilgan.data.image_files import read_image
from anomalib_aprilgan.data.pillow_resize import resize_image


class Photos(Dataset[ImageItem]):
    """Image files, squashed to the model's size one by one, as its pre-processor would do.

    Their paths stand in ``explanation``, on the first line; if a file cannot be read, the second line says why, and the
    image is black. Without ``image_path`` the model's guard of image files does not open them again.

    Args:
        paths (Sequence[Path]): The files.
        image_size (int): Side S in pixels.
    """

    def __init__(self, paths: Sequence[Path], image_size: int) -> None:
        self.paths = paths
        self.size = (image_size, image_size)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> ImageItem:
        """Read one file: ``image`` (3, S, S) in [0, 1]."""
        path = self.paths[index]
        try:
            image, error = resize_image(read_image(path), self.size), ""
        except (OSError, ValueError) as problem:
            image, error = torch.zeros(3, *self.size), " ".join(str(problem).split())
        return ImageItem(image=image, explanation=f"{path}\n{error}")


def load_photos(paths: Sequence[Path], image_size: int, batch_size: int, num_workers: int) -> DataLoader[ImageItem]:
    """Loader of photos, which reads them in other processes while the model works."""
    collate: Any = ImageBatch.collate
    return DataLoader(Photos(paths, image_size), batch_size, num_workers=num_workers, collate_fn=collate)
