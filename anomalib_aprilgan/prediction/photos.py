# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Photos of a folder, at the model's size; bad files are told and not fatal."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import ImageBatch, ImageItem
from anomalib.data.utils.image import is_image_file
from torch import distributed
from torch.utils.data import DataLoader, Dataset, Sampler

from anomalib_aprilgan.data.image_files import UnreadableImageError, read_squashed

# Photos that anomalib passes over. Pillow reads most of them; one that it cannot read, such as .heic, must be told.
MORE_SUFFIXES = frozenset({".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".pnm"})


def list_photos(folder: Path) -> list[Path]:
    """All images of a folder and its subfolders, sorted: anomalib's suffixes and :data:`MORE_SUFFIXES`.

    A subfolder that nobody may look into is among them, as a photo that cannot be read.

    Raises:
        FileNotFoundError: If there is no such folder.
        PermissionError: If nobody may look into it.
        ValueError: If it holds no image.
    """
    if not folder.is_dir():
        msg = f"data={str(folder)!r} is no folder. Give a folder of photos."
        raise FileNotFoundError(msg)
    closed: list[OSError] = []
    files = [Path(where) / name for where, _, names in os.walk(folder, onerror=closed.append) for name in names]
    hidden = [Path(error.filename) for error in closed]
    if folder in hidden:
        msg = f"data={str(folder)!r} cannot be looked into: {closed[0].strerror}. Give a folder that you may read."
        raise PermissionError(msg)
    # Whoever opens a pipe waits for ever; a link to nothing is a photo that cannot be read.
    paths = sorted([*hidden, *(path for path in files if _is_photo(path) and (path.is_file() or _is_broken(path)))])
    if not paths:
        msg = f"data={str(folder)!r} holds no images. Give a folder with photos in it, such as .jpg, .png or .tif."
        raise ValueError(msg)
    return paths


def _is_photo(path: Path) -> bool:
    return is_image_file(path) or path.suffix.lower() in MORE_SUFFIXES


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def name_of(path: Path, folder: Path) -> str:
    """Name of a photo in the table: its path in the folder, on one line and in UTF-8, whatever the file system holds.

    Example:
        >>> name_of(Path("photos/deep/a.png"), Path("photos"))
        'deep/a.png'
    """
    name = os.fsencode(path.relative_to(folder).as_posix()).decode(errors="backslashreplace")
    return name.replace("\r", "\\r").replace("\n", "\\n")


class Photos(Dataset[ImageItem]):
    """Image files, squashed to the model's size one by one, as its pre-processor would do.

    Their names stand in ``explanation``, on the first line; if a file cannot be read, the second line says why, and the
    image is black. Without ``image_path`` and ``image_filenames`` the model's guard of image files does not open them
    again.

    Args:
        paths (Sequence[Path]): The files.
        folder (Path): What their names begin after.
        image_size (int): Side S in pixels.
    """

    def __init__(self, paths: Sequence[Path], folder: Path, image_size: int) -> None:
        self.photos, self.folder = paths, folder  # by another name than anomalib's, see above
        self.size = (image_size, image_size)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.photos)

    def __getitem__(self, index: int) -> ImageItem:
        """Read one file: ``image`` (3, S, S) in [0, 1]."""
        path = self.photos[index]
        try:
            image, error = read_squashed(path, self.size), ""
        except Exception as problem:  # ruff: ignore[blind-except] - decoders stumble over broken files in many ways
            image, error = torch.zeros(3, *self.size), _describe(problem)
        return ImageItem(image=image, explanation=f"{name_of(path, self.folder)}\n{error}")


def _describe(problem: Exception) -> str:
    """One line; problems that were not foreseen say their kind."""
    kind = "" if isinstance(problem, (UnreadableImageError, ValueError)) else f"{type(problem).__name__}: "
    text = os.fsencode(str(problem)).decode(errors="backslashreplace")
    return " ".join(f"{kind}{text}".split())


class Share(Sampler[int]):
    """This process's share of all photos: every one in exactly one share, in the same order.

    Lightning's own sampler fails if there are fewer photos than processes, as there often are when a run goes on.

    Args:
        number (int): Of all photos.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __iter__(self) -> Iterator[int]:
        """Indices of the photos."""
        return iter(self._indices())

    def __len__(self) -> int:
        """Number of photos; there may be none."""
        return len(self._indices())

    def _indices(self) -> range:
        # Asked for late: processes may be started after the loader is built.
        is_alone = not (distributed.is_available() and distributed.is_initialized())
        rank, processes = (0, 1) if is_alone else (distributed.get_rank(), distributed.get_world_size())
        return range(rank, self.number, processes)


def load_photos(
    paths: Sequence[Path], folder: Path, image_size: int, batch_size: int, num_workers: int
) -> DataLoader[ImageItem]:
    """Loader of this process's share of photos, which other processes read while the model works."""
    collate: Any = ImageBatch.collate
    photos, share = Photos(paths, folder, image_size), Share(len(paths))
    return DataLoader(photos, batch_size, sampler=share, num_workers=num_workers, collate_fn=collate)
