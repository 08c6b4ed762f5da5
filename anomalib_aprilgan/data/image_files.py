# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Image files as they come from cameras: 16-bit and float images, transparent ones, and files that cannot be read."""

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from .pillow_resize import resize_image

logger = logging.getLogger(__name__)

# Formats that hold 8 bits a channel at most: their headers need not be looked at.
EIGHT_BIT_SUFFIXES = frozenset({".jpg", ".jpeg", ".bmp", ".webp", ".gif"})
OPAQUE_SUFFIXES = frozenset({".jpg", ".jpeg"})
ALPHA_MODES = frozenset({"RGBA", "LA"})
SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
DEEP_MODES = SIXTEEN_BIT_MODES | {"F"}
MAX_16_BIT = 65535
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
        if image.mode not in DEEP_MODES:
            is_kept = image.mode == "L" or (image.mode in ALPHA_MODES and _may_have_alpha(path))
            # In 8 bits: in float32 a large photograph takes four times the memory, and longer.
            levels = image if is_kept else image.convert("RGB")
            return _in_unit_range(levels.resize(size[::-1], Image.Resampling.BICUBIC))
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
    if highest <= MAX_16_BIT // 2:
        _warn_of_dark_images(str(Path(path).parent), Path(path).name, highest.bit_length())
    return (values / MAX_16_BIT).expand(3, -1, -1)


_FOLDERS_TOLD: set[str] = set()


def _warn_of_dark_images(folder: str, name: str, bits: int) -> None:
    """Tell of it once a folder."""
    if folder not in _FOLDERS_TOLD:
        _FOLDERS_TOLD.add(folder)
        logger.warning(
            "16-bit images in %s are dark: the values of %s, the first, need %d bits only. They are taken as they are. "
            "If the camera has %d bits, multiply its values by %d and save them anew.",
            folder,
            name,
            bits,
            max(bits, 10),
            2 ** (16 - max(bits, 10)),
        )


def needs_own_reader(path: str | Path) -> bool:
    """Whether anomalib's reader would clip the values of a file (16-bit or float)."""
    return Path(path).suffix.lower() not in EIGHT_BIT_SUFFIXES and _has_mode(path, DEEP_MODES)


def has_alpha(path: str | Path) -> bool:
    """Whether a file has an alpha channel beside grey or colours."""
    return _may_have_alpha(path) and _has_mode(path, ALPHA_MODES)


def _may_have_alpha(path: str | Path) -> bool:
    return Path(path).suffix.lower() not in OPAQUE_SUFFIXES


class Header(NamedTuple):
    """What a file says of its image before any pixel: Pillow's mode, and height and width."""

    mode: str
    size: tuple[int, int]


def read_header(path: str | Path) -> Header | None:
    """The header of an image file; None where there is none to read: in memory only, or gone since."""
    try:
        with Image.open(path) as image:
            header = Header(image.mode, (image.height, image.width))
    except UNDECODABLE:
        return None
    return header


def _has_mode(path: str | Path, modes: frozenset[str]) -> bool:
    header = read_header(path)
    return header is not None and header.mode in modes


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
