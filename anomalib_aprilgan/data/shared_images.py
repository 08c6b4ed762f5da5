# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The same image in training and test: found by its pixels, whatever the files are called and how they hold them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from .image_files import open_image, read_image

MAX_REPORTED = 3


def check_disjoint(training: Iterable[str | Path], testing: Iterable[str | Path]) -> None:
    """Refuse images that are to be trained on and tested on.

    Args:
        training (Iterable[str | Path]): Files to train on.
        testing (Iterable[str | Path]): Files to test on.

    Raises:
        UnreadableImageError: If a file is no image.
        ValueError: If any image of the one is also one of the other, pixel by pixel; some are named.
    """
    shared = shared_images(training, testing)
    if shared:
        named = "; ".join(f"{first} and {second}" for first, second in shared[:MAX_REPORTED])
        count = "1 image is" if len(shared) == 1 else f"{len(shared)} images are"
        msg = (
            f"{count} in training and in test, so that results would say nothing about new ones: "
            f"{named}. Remove them from one of the two."
        )
        raise ValueError(msg)


def shared_images(training: Iterable[str | Path], testing: Iterable[str | Path]) -> list[tuple[Path, Path]]:
    """Pairs of files, one of each side, that hold the same pixels as the model reads them.

    Format, compression and metadata do not matter, nor do modes that hold the same colours. Copies with loss are not
    found. Only files are decoded that have the width and height of some of the other side.

    Args:
        training (Iterable[str | Path]): Images.
        testing (Iterable[str | Path]): Images.

    Returns:
        list[tuple[Path, Path]]: One pair a file of ``testing`` that is also in ``training``.

    Raises:
        UnreadableImageError: If a file is no image.
    """
    by_size: defaultdict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in map(Path, training):
        by_size[_size_of(path)].append(path)
    digests: dict[tuple[int, int], dict[bytes, Path]] = {}
    shared = []
    for path in map(Path, testing):
        size = _size_of(path)
        if size in by_size:
            if size not in digests:
                digests[size] = {_digest(other): other for other in by_size[size]}
            if (other := digests[size].get(_digest(path))) is not None:
                shared.append((other, path))
    return shared


def _size_of(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone."""
    with open_image(path) as image:
        return image.width, image.height


def _digest(path: Path) -> bytes:
    return hashlib.sha256(read_image(path).numpy().tobytes()).digest()
