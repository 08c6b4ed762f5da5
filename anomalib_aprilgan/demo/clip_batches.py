# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Batches that the small CLIP learns from: pairs of a good and a defective part, and what to call them."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Dataset

from .categories import INVENTED
from .picture_pool import Pair, PicturePool

# Further words for a category; underscores become spaces as well.
SYNONYMS = {
    "washer": ("ring",),
    "battery": ("cell",),
    "solar_cell": ("photovoltaic module", "wafer"),
    "fabric": ("textile", "cloth"),
    "brushed_metal": ("metal", "steel"),
    "label": ("sticker", "print"),
    "screw": ("bolt",),
    "microchip": ("chip", "component"),
    "biscuit": ("cookie", "food"),
    "twill": ("textile",),
    "nonwoven": ("textile", "cloth", "fleece"),
    "paper": ("sheet",),
    "foam": ("sponge",),
    "bottle_cap": ("lid",),
}
GENERAL_NAMES = ("object", "product", "part", "surface", "material", "item", "texture")
PATCH_SIZE = 8  # pixels, of the small CLIP
FADED, FAINTEST = 0.3, 0.35  # share of the defects that are shown fainter, where only they differ; least strength


class Look(NamedTuple):
    """How a step looks at its pictures.

    Attributes:
        size (int): Their side in pixels.
        seen (float): Share of the patches that the image tower is shown.
    """

    size: int
    seen: float


class PairBatch(NamedTuple):
    """P pairs: the first P images are good parts, the others are defective parts of the same product lines.

    Attributes:
        images (torch.Tensor): RGB (2P, 3, S, S), uint8.
        masks (torch.Tensor): Defective pixels (2P, S, S), bool.
        seen (torch.Tensor): Places of the patches that the tower is shown, from 0, row by row, (2P, K), int64.
        names (list[str]): What each pair is called, P of them.
        is_true_name (torch.Tensor): Whether the name tells the category, (P,), bool; else it is any noun.
    """

    images: torch.Tensor
    masks: torch.Tensor
    seen: torch.Tensor
    names: list[str]
    is_true_name: torch.Tensor


class PairBatches(Dataset[PairBatch]):
    """One item is the batch of one training step; it depends on seed and step alone, so training can be resumed.

    Args:
        pool (PicturePool): Pictures that are there; every use shows them another way.
        looks (Sequence[Look]): How each step looks at them.
        pairs (int): Pairs P in a batch.
        nouns (tuple[str, ...]): Words to call products by that are not their names.
        seed (int): Settles everything.
    """

    def __init__(self, pool: PicturePool, looks: Sequence[Look], pairs: int, nouns: tuple[str, ...], seed: int) -> None:
        self.pool = pool
        self.looks = looks
        self.pairs = pairs
        self.nouns = nouns
        self.seed = seed

    def __len__(self) -> int:
        """Number of training steps."""
        return len(self.looks)

    def __getitem__(self, step: int) -> PairBatch:
        """Take the batch of a step from the pool, and vary it."""
        rng = np.random.default_rng([self.seed, step])
        if dist.is_initialized():  # each process has a share of its own
            rng = rng.spawn(dist.get_world_size())[dist.get_rank()]
        pairs = [self.pool[int(number)] for number in rng.integers(len(self.pool), size=self._share())]
        names, is_true_name = zip(*(self._name(pair.category, rng) for pair in pairs), strict=True)
        look = self.looks[step]
        shown = [vary(pair, look.size, rng) for pair in pairs]
        images = np.stack([pair.images[state] for state in (0, 1) for pair in shown])  # (2P, S, S, 3)
        masks = np.stack([pair.mask for pair in shown])  # (P, S, S)
        return PairBatch(
            torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),  # (2P, 3, S, S)
            torch.from_numpy(np.concatenate([np.zeros_like(masks), masks])),  # (2P, S, S)
            torch.from_numpy(np.tile(seen_patches(masks, look.seen, rng), (2, 1))),  # (2P, K)
            list(names),
            torch.tensor(is_true_name),
        )

    def _share(self) -> int:
        return self.pairs // dist.get_world_size() if dist.is_initialized() else self.pairs

    def _name(self, category: str, rng: np.random.Generator) -> tuple[str, bool]:
        true_names = (category, category.replace("_", " "), *SYNONYMS.get(category, ()))
        chance = rng.random()
        if chance < 0.6 and category not in INVENTED:
            return str(rng.choice(true_names)), True
        return str(rng.choice(GENERAL_NAMES if rng.random() < 0.4 else self.nouns)), False


def seen_patches(masks: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose patches to show: those with a defect first, so that it is to be seen, and others at random.

    In the same time a tower that sees half of the patches learned more (after FLIP, arXiv 2212.00794; model card).

    Args:
        masks (NDArray[np.bool_]): Defective pixels, (P, S, S).
        share (float): Of the patches, above 0 and at most 1.
        rng (np.random.Generator): Draws them.

    Returns:
        NDArray[np.int64]: Places in ascending order, row by row from 0, (P, K).
    """
    side = masks.shape[1] // PATCH_SIZE
    whole = masks[:, : side * PATCH_SIZE, : side * PATCH_SIZE]
    patches = whole.reshape(-1, side, PATCH_SIZE, side, PATCH_SIZE)  # (P, g, 8, g, 8)
    touched = patches.any(axis=(2, 4)).reshape(len(masks), -1)  # (P, T)
    order = np.argsort(rng.random(touched.shape) - touched, axis=1)  # (P, T)
    return np.sort(order[:, : max(1, round(share * side * side))], axis=1)  # (P, K)


def vary(pair: Pair, size: int, rng: np.random.Generator) -> Pair:
    """Show a pair another way: a part of the picture, turned, mirrored, in other colours, a fainter defect.

    Args:
        pair (Pair): As it was drawn.
        size (int): Side of the result in pixels.
        rng (np.random.Generator): Draws the changes, the same for both pictures.

    Returns:
        Pair: New pictures; the defect may be cut, but most of it stays.
    """
    images, mask = _cut(pair, rng)
    if pair.is_same_part and rng.random() < FADED:
        images = _fade(images, rng.uniform(FAINTEST, 1))
    shots = [cv2.resize(image, (size, size), interpolation=_shrinking(image, size)) for image in images]
    small = cv2.resize(mask.astype(np.float32), (size, size), interpolation=_shrinking(mask, size)) > 0.3
    turns, is_flipped, channels = int(rng.integers(4)), bool(rng.integers(2)), rng.permutation(3)
    shown, defect = np.rot90(np.stack(shots)[..., channels], turns, (1, 2)), np.rot90(small, turns)
    if is_flipped:
        shown, defect = shown[:, :, ::-1], defect[:, ::-1]
    return pair._replace(images=_develop(shown, rng), mask=np.ascontiguousarray(defect))


def _cut(pair: Pair, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """In half of the cases a part of the pictures, if it holds most of the defect."""
    whole = len(pair.mask)
    side = int(whole * rng.uniform(0.7, 1)) if rng.random() < 0.5 else whole
    top, left = rng.integers(whole - side + 1, size=2)
    window = (slice(top, top + side), slice(left, left + side))
    if pair.mask[window].sum() < 0.6 * pair.mask.sum():
        return pair.images, pair.mask
    return pair.images[:, window[0], window[1]], pair.mask[window]


def _fade(images: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """The same part twice, with a defect that shows less."""
    return np.stack([images[0], cv2.addWeighted(images[1], strength, images[0], 1 - strength, 0)])


def _develop(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Other brightness and contrast, at times as a negative, without colour, or with more noise."""
    values = images.astype(np.float32)
    if rng.random() < 0.15:
        values = np.repeat(values.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.1:
        values = 255 - values
    values = values * np.float32(rng.uniform(0.75, 1.2)) + np.float32(rng.uniform(-20, 20))
    if rng.random() < 0.2:
        values = values + np.float32(rng.uniform(1, 8)) * rng.standard_normal(values.shape, np.float32)
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def _shrinking(image: NDArray[np.generic], size: int) -> int:
    return cv2.INTER_AREA if len(image) > size else cv2.INTER_LINEAR
