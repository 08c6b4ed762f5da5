# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A folder of images and one of masks, as medical datasets come: no folder says which images are normal."""

import logging
from pathlib import Path

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.utils import Split, ValSplitMode
from anomalib.data.utils.label import LabelName
from pandas import DataFrame

from .auxiliary_dataset import check_same_size, read_mask

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# Compression changes values beside edges, and any value above 0 is anomalous.
LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp"})
MASK_ENDING = "_mask"
MAX_REPORTED = 3


class MaskedImages(AnomalibDataModule):
    """Images to test on, each with a mask of the same name; those whose mask is empty are normal.

    Anomalib's ``Folder`` wants a folder of normal images, which such data do not have; some have no normal image at
    all. Serves as a source of :class:`AuxiliaryData`, and for ``anomalib test``.

    Args:
        name (str): Name of the data.
        image_dir (str | Path): Folder of images.
        mask_dir (str | Path): Folder of masks, named as the images (``7.png``, or ``7_mask.png``); any value above 0 is
            anomalous.
        root (str | Path | None): Where both folders are. Defaults to the working directory.
        eval_batch_size (int): Images a batch.
        num_workers (int): Worker processes of the data loader.

    Raises:
        ValueError: When it is set up, if folders or pairs are incomplete, or an image and its mask differ in size.

    Example:
        >>> data = MaskedImages("thyroid", "test-image", "test-mask", root="datasets/TN3K")
        >>> data.name
        'thyroid'
    """

    def __init__(
        self,
        name: str,
        image_dir: str | Path,
        mask_dir: str | Path,
        root: str | Path | None = None,
        eval_batch_size: int = 8,
        num_workers: int = 4,
    ) -> None:
        super().__init__(
            train_batch_size=eval_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            val_split_mode=ValSplitMode.SAME_AS_TEST,
        )
        self._name = name
        self.image_dir = Path(root or "") / image_dir
        self.mask_dir = Path(root or "") / mask_dir

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the data."""
        return self._name

    def _setup(self, _stage: str | None = None) -> None:
        images, masks = _by_stem(self.image_dir, "image_dir"), _by_stem(self.mask_dir, "mask_dir")
        marked = [stem for stem in masks if stem not in images and stem.endswith(MASK_ENDING)]
        if doubled := [stem for stem in marked if stem.removesuffix(MASK_ENDING) in masks]:
            msg = f"{self.mask_dir} holds two masks of one image, with {MASK_ENDING} and without it: {doubled[0]}."
            raise ValueError(msg)
        masks = {stem if stem in images else stem.removesuffix(MASK_ENDING): path for stem, path in masks.items()}
        if unpaired := sorted(images.keys() ^ masks.keys()):
            more = ", ..." if len(unpaired) > MAX_REPORTED else ""
            msg = (
                f"Files of {self.image_dir} and {self.mask_dir} without a partner, {len(unpaired)} in all: "
                f"{', '.join(unpaired[:MAX_REPORTED])}{more}. Name each mask as its image; that of an image without "
                "defects is needed, too, black all over."
            )
            raise ValueError(msg)
        if any(path.suffix.lower() in LOSSY_SUFFIXES for path in masks.values()):
            logger.warning(
                "Masks in %s are compressed with loss: what is not exactly 0 beside an edge counts as anomalous.",
                self.mask_dir,
            )
        rows = [
            {
                "image_path": str(images[stem]),
                "mask_path": str(masks[stem]),
                "label_index": int(LabelName.ABNORMAL if _is_marked(images[stem], masks[stem]) else LabelName.NORMAL),
                "split": Split.TEST.value,
            }
            for stem in sorted(images)
        ]
        self.test_data = AnomalibDataset()
        self.test_data.samples = DataFrame(rows)
        self.test_data.samples.attrs["task"] = "segmentation"

    def _create_test_split(self) -> None:
        """Leave the images as they are: the parent would put normal training images, of which there are none."""


def _is_marked(image: Path, mask: Path) -> bool:
    """Whether anything of an image is anomalous."""
    marked = read_mask([mask])
    check_same_size(image, marked)
    return bool(marked.any())


def _by_stem(folder: Path, argument: str) -> dict[str, Path]:
    """Image files of a folder by their names without suffix."""
    if not folder.is_dir():
        msg = f"{argument}={str(folder)!r} is not a folder. Give one that holds image files."
        raise ValueError(msg)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    found = {path.stem: path for path in files}
    if not found or len(found) != len(files):
        msg = f"{argument}={str(folder)!r} holds {len(files)} image files with {len(found)} names; each needs its own."
        raise ValueError(msg)
    return found
