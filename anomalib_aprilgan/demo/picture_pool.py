# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Pictures for the small CLIP's training, drawn once and kept on disk, since each is shown many times."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .categories import CLIP_TRAINING, OWN_DEFECTS
from .defects import DEFECTS
from .rendering import RENDERER, render

CHUNK = 256  # pairs a file, at most
OWN_SHARE = 0.75  # of the defects, where a category has some of its own


class Pair(NamedTuple):
    """A good and a defective part of one product line.

    Attributes:
        images (NDArray[np.uint8]): RGB (2, S, S, 3), the good part first.
        mask (NDArray[np.bool_]): Defective pixels (S, S) of the second.
        category (str): What was drawn.
        is_same_part (bool): Whether nothing but the defect tells the pictures apart.
    """

    images: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    category: str
    is_same_part: bool


class Order(NamedTuple):
    """What to draw for a pair: category, product line, the good part, the defective part, and the defect."""

    category: str
    line: int
    good: int
    bad: int
    defect: str


class PicturePool:
    """Pairs of pictures in a folder; each depends on size, shares, seed and number alone.

    Args:
        folder (Path): For the files.
        pairs (int): How many.
        size (int): Side S of the pictures in pixels, a multiple of 8.
        seed (int): Settles the pictures.
        shares (Mapping[str, float]): Share of categories, at most 1 in all; every other category of the CLIP's training
            has an even part of the rest; 0 leaves one out.

    Raises:
        ValueError: If a category is none of the CLIP's training, or the shares are more than 1 in all.
    """

    def __init__(self, folder: Path, pairs: int, size: int, seed: int, shares: Mapping[str, float]) -> None:
        unknown = sorted(set(shares) - set(CLIP_TRAINING))
        if unknown or sum(shares.values()) > 1 + 1e-9:
            msg = f"shares={dict(shares)} must be at most 1 in all, of categories among {', '.join(CLIP_TRAINING)}."
            raise ValueError(msg)
        self.folder = folder
        self.size = size
        self.seed = seed
        self.shares = dict(shares)
        self.chunk = min(CHUNK, pairs)
        self.chunks = -(-pairs // self.chunk)
        self._opened: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        """Number of pairs; whole files, so it may be a few more than asked for."""
        return self.chunks * self.chunk

    def draw(self, processes: int) -> None:
        """Draw what is not there yet, with a progress bar.

        Args:
            processes (int): How many share the work; one alone is this process.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [chunk for chunk in range(self.chunks) if not self._path(chunk).is_file()]
        if not missing:
            return
        progress = partial(tqdm, desc="drawing", total=len(missing), unit_scale=self.chunk)
        if processes == 1:
            for chunk in progress(missing):
                self._draw_chunk(chunk)
            return
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_draw_on_one_thread) as pool:
            list(progress(pool.map(self._draw_chunk, missing)))

    def __getitem__(self, number: int) -> Pair:
        """One pair, read from its file."""
        chunk, place = divmod(number, self.chunk)
        if chunk not in self._opened:
            path = self._path(chunk)
            self._opened[chunk] = np.load(path, mmap_mode="r"), np.load(_masks_of(path), mmap_mode="r")
        images, masks = self._opened[chunk]
        mask = np.unpackbits(masks[place], axis=-1).astype(bool)  # (S, S)
        order = _order(self.seed, number, self.shares)
        return Pair(np.asarray(images[place]), mask, order.category, order.good == order.bad)

    def __iter__(self) -> Iterator[Pair]:
        """All pairs."""
        return (self[number] for number in range(len(self)))

    def _path(self, chunk: int) -> Path:
        shares = hashlib.sha256(repr(self.shares).encode()).hexdigest()[:8]
        kind = f"renderer{RENDERER}-size{self.size}-seed{self.seed}-shares{shares}"
        return self.folder / f"{kind}-pairs{self.chunk}-{chunk:04d}.npy"

    def _draw_chunk(self, chunk: int) -> None:
        numbers = range(chunk * self.chunk, (chunk + 1) * self.chunk)
        pairs = [draw_pair(self.seed, number, self.size, self.shares) for number in numbers]
        path = self._path(chunk)
        np.save(_masks_of(path), np.packbits([pair.mask for pair in pairs], axis=-1))
        unfinished = path.with_suffix(".unfinished.npy")
        np.save(unfinished, np.stack([pair.images for pair in pairs]))
        unfinished.replace(path)


def _draw_on_one_thread() -> None:
    cv2.setNumThreads(1)


def draw_pair(seed: int, number: int, size: int, shares: Mapping[str, float]) -> Pair:
    """Draw a good and a defective part of the same line, in half of the cases the very same part.

    Args:
        seed (int): Seed of the pool.
        number (int): Which pair.
        size (int): Side of the pictures in pixels.
        shares (Mapping[str, float]): Of categories, as for ``PicturePool``.
    """
    category, line, good, bad, defect = _order(seed, number, shares)
    first, second = render(category, line, good, None, size), render(category, line, bad, defect, size)
    return Pair(np.stack([first.image, second.image]), second.mask, category, good == bad)


def _order(seed: int, number: int, shares: Mapping[str, float]) -> Order:
    rng = np.random.default_rng([seed, number])
    category = _category(rng, shares)
    line, part, other = (int(value) for value in rng.integers(1, 2**31, 3))
    bad = part if rng.random() < 0.5 else other
    own = OWN_DEFECTS.get(category, {})
    kinds = own if own and rng.random() < OWN_SHARE else DEFECTS
    return Order(category, line, part, bad, str(rng.choice(list(kinds))))


def _category(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    chance = rng.random()
    for category, share in shares.items():
        if chance < share:
            return category
        chance -= share
    return str(rng.choice([category for category in CLIP_TRAINING if category not in shares]))


def _masks_of(path: Path) -> Path:
    return path.with_suffix(".masks.npy")
