# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The same image in training and test: found by content, whatever the files are called."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

MAX_REPORTED = 3


def check_disjoint(training: Iterable[str | Path], testing: Iterable[str | Path]) -> None:
    """Refuse images that are to be trained on and tested on.

    Args:
        training (Iterable[str | Path]): Files to train on.
        testing (Iterable[str | Path]): Files to test on.

    Raises:
        ValueError: If any file of the one is also one of the other, or holds the same bytes; some are named.
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
    """Pairs of files, one of each side, that hold the same bytes.

    Only files of the same size are read.

    Args:
        training (Iterable[str | Path]): Existing files.
        testing (Iterable[str | Path]): Existing files.

    Returns:
        list[tuple[Path, Path]]: One pair a file of ``testing`` that is also in ``training``.
    """
    by_size: defaultdict[int, list[Path]] = defaultdict(list)
    for path in map(Path, training):
        by_size[path.stat().st_size].append(path)
    digests: dict[int, dict[bytes, Path]] = {}
    shared = []
    for path in map(Path, testing):
        size = path.stat().st_size
        if size in by_size:
            if size not in digests:
                digests[size] = {_digest(other): other for other in by_size[size]}
            if (other := digests[size].get(_digest(path))) is not None:
                shared.append((other, path))
    return shared


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
