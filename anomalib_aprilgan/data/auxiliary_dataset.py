# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Images of many categories with masks as the paper has them: resized, in mosaics, or with synthetic anomalies.

Source: paper section 3.1; ``dataset.py`` and ``train.py`` of github.com/ByChelsea/VAND-APRIL-GAN.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataset
from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
from anomalib.data.utils.label import LabelName
from numpy.typing import NDArray
from pandas import DataFrame

from .auxiliary_batch import AuxiliaryBatch, AuxiliaryItem
from .image_files import DEEP_MODES, open_image, read_header, read_squashed
from .pillow_resize import resize_mask

SYNTHETIC_PROBABILITY = 0.5
LARGEST_SEED = 2**63 - 1


class _Annotated(NamedTuple):
    image: torch.Tensor  # (3, h, w), float32, in [0, 1]
    mask: torch.Tensor  # (h, w), bool
    is_anomalous: bool


class AuxiliaryDataset(AnomalibDataset):
    """Images of many categories with mask, label and class name, all of one size.

    Images and masks are resized here, each in its own way, so the transforms that anomalib hands to datasets are not
    used.

    Args:
        samples (DataFrame): One row an image: ``image_path``; ``mask_path``, a tuple of files whose union is the mask,
            empty for normal images; ``label_index``; ``class_name``; ``split``.
        image_size (int): Side S in pixels of image and mask.
        mosaic (float): Probability that an item is a mosaic of four images of its category.
        synthetic (bool): Whether to put synthetic anomalies on half of the images, which must be normal.
        labels_only (bool): Whether to read no masks and hand out none.
        seed (int): Settles mosaics and synthetic anomalies, together with the number of the item.

    Example:
        >>> dataset = AuxiliaryDataset(samples, image_size=518, mosaic=0.2)  # doctest: +SKIP
        >>> dataset[0].gt_mask.shape, dataset[0].class_name  # doctest: +SKIP
        (torch.Size([518, 518]), 'bottle')
    """

    def __init__(
        self,
        samples: DataFrame,
        image_size: int,
        mosaic: float = 0.0,
        synthetic: bool = False,
        labels_only: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.samples = samples  # the parent sorts them by path
        self.samples.attrs["task"] = "classification" if labels_only else "segmentation"
        self.image_size = image_size
        self.mosaic = mosaic
        self.synthetic = synthetic
        self.labels_only = labels_only
        self.seed = seed
        self._members = self.samples.groupby("class_name").indices

    @property
    def collate_fn(self) -> Callable[..., Any]:
        """What makes a batch of items."""
        return AuxiliaryBatch.collate

    def __getitem__(self, index: int) -> AuxiliaryItem:
        """One image or mosaic.

        Args:
            index (int): Number of the item; numbers run on from epoch to epoch, so that each has its own mosaics and
                anomalies whatever process reads it. Modulo the length it is a row of ``samples``.

        Returns:
            AuxiliaryItem: Image (3, S, S) in [0, 1] and, unless only labels count, mask (S, S); ``image_path`` of a
            mosaic is that of its upper left image.

        Raises:
            UnreadableImageError: If a file cannot be read.
            ValueError: If a mask is not as large as its image.
        """
        generator = self._item_generator(index)
        row = index % len(self)
        class_name = self.samples.class_name.iloc[row]
        if torch.rand((), generator=generator).item() < self.mosaic:
            members = self._members[class_name]
            indices = members[torch.randint(len(members), (4,), generator=generator).numpy()]
            annotated = self._load_mosaic(indices, generator)
        else:
            indices = [row]
            annotated = self._load(row, (self.image_size, self.image_size), generator)
        return AuxiliaryItem(
            image=annotated.image,
            gt_mask=None if self.labels_only else annotated.mask,
            gt_label=torch.tensor(annotated.is_anomalous),
            image_path=self.samples.image_path.iloc[indices[0]],
            class_name=class_name,
        )

    def _item_generator(self, index: int) -> torch.Generator:
        digest = hashlib.sha256(f"{self.seed}/{index}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def _load_mosaic(self, indices: Sequence[int], generator: torch.Generator) -> _Annotated:
        """Four images in a square; the authors' order, paste and then resize, differs at the seams only."""
        first, second = self.image_size // 2, self.image_size - self.image_size // 2
        sizes = [(first, first), (first, second), (second, first), (second, second)]
        tiles = [self._load(index, size, generator) for index, size in zip(indices, sizes, strict=True)]
        return _Annotated(
            image=_square([tile.image for tile in tiles]),
            mask=_square([tile.mask for tile in tiles]),
            is_anomalous=any(tile.is_anomalous for tile in tiles),
        )

    def _load(self, index: int, size: tuple[int, int], generator: torch.Generator) -> _Annotated:
        sample = self.samples.iloc[index]
        image = read_squashed(sample.image_path, size)
        if self.synthetic:
            image, mask = add_anomaly(image, generator)
            return _Annotated(image, mask, is_anomalous=bool(mask.any()))
        if sample.label_index == LabelName.NORMAL or self.labels_only:
            is_anomalous = sample.label_index != LabelName.NORMAL
            return _Annotated(image, torch.zeros(size, dtype=torch.bool), is_anomalous=is_anomalous)
        marked = read_mask(sample.mask_path)
        check_same_size(sample.image_path, marked)
        return _Annotated(image, resize_mask(torch.from_numpy(marked), size) > 0.5, is_anomalous=True)


def _square(tiles: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([torch.cat([*tiles[:2]], dim=-1), torch.cat([*tiles[2:]], dim=-1)], dim=-2)


def read_mask(paths: Sequence[str | Path]) -> NDArray[np.bool_]:
    """Union of one or more mask files of the same size.

    Args:
        paths (Sequence[str | Path]): At least one; any value above 0 is anomalous.

    Returns:
        NDArray[np.bool_]: (H, W).

    Raises:
        UnreadableImageError: If a file is missing, empty, truncated or no image.
        ValueError: If their sizes differ.
    """
    masks = {str(path): _read_mask_file(path) for path in paths}
    if len({mask.shape for mask in masks.values()}) > 1:
        sizes = ", ".join(f"{path} {mask.shape[1]} x {mask.shape[0]}" for path, mask in masks.items())
        msg = f"Masks of one image must be of the same size, in pixels: {sizes}. Give each the size of the image."
        raise ValueError(msg)
    union: NDArray[np.bool_] = np.logical_or.reduce(list(masks.values()))
    return union


def check_same_size(image_path: str | Path, mask: NDArray[np.bool_]) -> None:
    """Refuse a mask that does not lie on its image pixel by pixel: squashed to a square, it would mark other places.

    Args:
        image_path (str | Path): The image; one that is no file passes.
        mask (NDArray[np.bool_]): Its mask, (H, W).

    Raises:
        ValueError: If their sizes differ.
    """
    header = read_header(image_path)
    if header is not None and header.size != mask.shape:
        (height, width), (mask_height, mask_width) = header.size, mask.shape
        msg = (
            f"{image_path} has {width} x {height} pixels, its mask {mask_width} x {mask_height}. Give a mask of "
            "the same size, which lies on the image pixel by pixel."
        )
        raise ValueError(msg)


def _read_mask_file(path: str | Path) -> NDArray[np.bool_]:
    with open_image(path, "a mask") as image:
        # Other modes may hold colours or an opaque alpha channel; these would lose small values when converted.
        is_plain = image.mode in DEEP_MODES
        return np.array(image if is_plain else image.convert("L")) > 0


def add_anomaly(image: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Put a synthetic anomaly on an image, or leave it as it is, with even odds.

    Args:
        image (torch.Tensor): (3, H, W), in [0, 1]; sides above 16, which anomalib's generator needs.
        generator (torch.Generator): What to draw from.

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Image (3, H, W), in [0, 1], and mask (H, W), bool.
    """
    # Anomalib's generator knows only torch's default one, and draws once more when it is made.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(LARGEST_SEED, (), generator=generator)))
        changed, mask = PerlinAnomalyGenerator(probability=SYNTHETIC_PROBABILITY)(image)
    return changed.clamp(0, 1), mask[0] > 0.5
