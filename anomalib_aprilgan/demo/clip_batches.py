# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Batches that the small CLIP learns from: pairs of a good and a defective part, and what to call them."""

from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from .categories import CLIP_TRAINING
from .defects import DEFECTS
from .rendering import Rendered, render

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
    "paper": ("sheet",),
    "foam": ("sponge",),
    "bottle_cap": ("lid",),
}
GENERAL_NAMES = ("object", "product", "part", "surface", "material", "item", "texture")


class PairBatch(NamedTuple):
    """P pairs: the first P images are good parts, the others are defective parts of the same product lines.

    Attributes:
        images (torch.Tensor): RGB (2P, 3, S, S), uint8.
        masks (torch.Tensor): Defective pixels (2P, S, S), bool.
        names (list[str]): What each pair is called, P of them.
        is_true_name (torch.Tensor): Whether the name tells the category, (P,), bool; else it is any noun.
    """

    images: torch.Tensor
    masks: torch.Tensor
    names: list[str]
    is_true_name: torch.Tensor


class RenderedPairs(Dataset[PairBatch]):
    """One item is the batch of one training step; it depends on seed and step alone, so training can be resumed.

    Args:
        sizes (list[int]): Side of the pictures at each step, in pixels.
        pairs (int): Pairs P in a batch.
        nouns (tuple[str, ...]): Words to call products by that are not their names.
        seed (int): Settles everything.
    """

    def __init__(self, sizes: list[int], pairs: int, nouns: tuple[str, ...], seed: int) -> None:
        self.sizes = sizes
        self.pairs = pairs
        self.nouns = nouns
        self.seed = seed

    def __len__(self) -> int:
        """Number of training steps."""
        return len(self.sizes)

    def __getitem__(self, step: int) -> PairBatch:
        """Render the batch of a step."""
        rng = np.random.default_rng([self.seed, step])
        categories = [str(rng.choice(CLIP_TRAINING)) for _ in range(self.pairs)]
        pairs = [_pair(category, self.sizes[step], rng) for category in categories]
        names, is_true_name = zip(*(self._name(category, rng) for category in categories), strict=True)
        shots = [good for good, _ in pairs] + [bad for _, bad in pairs]
        images = torch.from_numpy(np.stack([shot.image for shot in shots])).permute(0, 3, 1, 2)  # (2P, 3, S, S)
        masks = torch.from_numpy(np.stack([shot.mask for shot in shots]))
        return PairBatch(images.contiguous(), masks, list(names), torch.tensor(is_true_name))

    def _name(self, category: str, rng: np.random.Generator) -> tuple[str, bool]:
        true_names = (category, category.replace("_", " "), *SYNONYMS.get(category, ()))
        chance = rng.random()
        if chance < 0.6:
            return str(rng.choice(true_names)), True
        return str(rng.choice(GENERAL_NAMES if chance < 0.75 else self.nouns)), False


def _pair(category: str, size: int, rng: np.random.Generator) -> tuple[Rendered, Rendered]:
    """A good part and a defective one of the same line, in half of the cases the very same part."""
    line, part, other = (int(number) for number in rng.integers(1, 2**31, 3))
    good = render(category, line, part, None, size)
    part = part if rng.random() < 0.5 else other
    bad = render(category, line, part, str(rng.choice(list(DEFECTS))), size)
    turns, is_flipped, channels = int(rng.integers(4)), bool(rng.integers(2)), rng.permutation(3)
    return _turn(good, turns, is_flipped, channels), _turn(bad, turns, is_flipped, channels)


def _turn(
    shot: Rendered, turns: int, is_flipped: bool, channels: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> Rendered:
    image, mask = np.rot90(shot.image[..., channels], turns), np.rot90(shot.mask, turns)
    return Rendered(np.fliplr(image), np.fliplr(mask)) if is_flipped else Rendered(image, mask)
