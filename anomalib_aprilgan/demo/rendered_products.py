# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Rendered products as a datamodule of anomalib, in the layout of MVTec AD."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from anomalib.data import AnomalibDataModule
from anomalib.data.datasets.image.mvtecad import MVTecADDataset
from anomalib.data.utils import Split, TestSplitMode, ValSplitMode

from .categories import check_category, defects_of
from .rendering import RENDERER, render

logger = logging.getLogger(__name__)


class RenderedProducts(AnomalibDataModule):
    """Good and defective parts of one rendered product line, with exact masks (deformations': a pixel wider).

    Pictures are written once, before their first use, about ten milliseconds each; the folder has the layout of MVTec
    AD, so that ``MVTecAD(root=datamodule.folder.parent, category=...)`` reads it, too.

    Args:
        category (str): What is rendered, see ``demo.categories``; those in ``HELD_OUT`` were never seen by the embedded
            CLIP and its adapters.
        root (str | Path): Folder for the pictures.
        image_size (int): Side of the pictures in pixels.
        train_images (int): Good parts for training and references.
        good_images (int): Good parts to test.
        defective_images (int): Defective parts to test; the kinds of defects take turns.
        train_batch_size (int): Images a training batch.
        eval_batch_size (int): Images a validation or test batch.
        num_workers (int): Worker processes of each data loader.
        val_split_mode (ValSplitMode | str): Where validation images come from, as in anomalib's ``MVTecAD``.
        val_split_ratio (float): Share of the images that goes to validation, if the mode splits.
        seed (int): The product line: its colours, pattern, geometry and camera.

    Raises:
        ValueError: If the category is unknown, a number too small, or the seed negative.

    Example:
        >>> RenderedProducts(category="coin", root="datasets").category
        'coin'
    """

    def __init__(
        self,
        category: str = "coin",
        root: str | Path = "./datasets/RenderedProducts",
        image_size: int = 224,
        train_images: int = 24,
        good_images: int = 24,
        defective_images: int = 48,
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        val_split_mode: ValSplitMode | str = ValSplitMode.SAME_AS_TEST,
        val_split_ratio: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            test_split_mode=TestSplitMode.FROM_DIR,
            val_split_mode=val_split_mode,
            val_split_ratio=val_split_ratio,
            seed=seed,
        )
        check_category(category)
        counts = {"train_images": train_images, "good_images": good_images, "defective_images": defective_images}
        if wrong := [f"{name}={count}" for name, count in counts.items() if count < 1]:
            msg = f"{', '.join(wrong)} must be at least 1."
            raise ValueError(msg)
        if not isinstance(image_size, int) or image_size < 16:
            msg = f"image_size={image_size!r} must be the side of a square in pixels, at least 16."
            raise ValueError(msg)
        if seed < 0:
            msg = f"seed={seed} must be 0 or more: it is the number of the product line."
            raise ValueError(msg)
        self.category = category
        self.image_size = image_size
        self.line = seed
        self.counts = (train_images, good_images, defective_images)
        settings = "-".join(map(str, (RENDERER, image_size, *self.counts)))
        self.folder = Path(root) / f"line{seed}-{settings}" / category

    def prepare_data(self) -> None:
        """Write the pictures, unless they are there; all or none."""
        if self.folder.is_dir():
            return
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{self.category}-", dir=self.folder.parent) as temporary:
            drafts = Path(temporary) / self.category  # open to whom the umask lets in, unlike its parent
            drafts.mkdir()
            try:
                self._write(drafts)
                drafts.replace(self.folder)
            except OSError:
                if not self.folder.is_dir():  # else another process was quicker
                    raise
        logger.info("Rendered %d pictures of %s into %s.", sum(self.counts), self.category, self.folder)

    def _setup(self, _stage: str | None = None) -> None:
        self.prepare_data()
        root, category = self.folder.parent, self.category
        self.train_data = MVTecADDataset(root=root, category=category, split=Split.TRAIN)
        self.test_data = MVTecADDataset(root=root, category=category, split=Split.TEST)

    def _write(self, folder: Path) -> None:
        train, good, defective = self.counts
        kinds = list(defects_of(self.category))
        for part in range(train):
            self._write_part(folder / "train" / "good", part, None)
        for part in range(train, train + good):
            self._write_part(folder / "test" / "good", part, None)
        for number in range(defective):
            kind = kinds[number % len(kinds)]
            mask = self._write_part(folder / "test" / kind, train + good + number, kind)
            _write_picture(folder / "ground_truth" / kind / f"{train + good + number:03d}_mask.png", mask)

    def _write_part(self, folder: Path, part: int, kind: str | None) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        shot = render(self.category, self.line, part, kind, self.image_size)
        _write_picture(folder / f"{part:03d}.png", shot.image[..., ::-1])
        return shot.mask.astype(np.uint8) * 255


def _write_picture(path: Path, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        msg = f"{path} cannot be written. Is there room, and may you write there?"
        raise OSError(msg)
