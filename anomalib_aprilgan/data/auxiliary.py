# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Annotated images of many categories, to train adapters on that serve other categories.

Example:
    >>> from anomalib_aprilgan.data.auxiliary import AuxiliaryData
    >>> data = AuxiliaryData(dataset="mvtec", validation=["bottle"], mosaic=0.2)
    >>> len(data.training_categories), data.held_out_categories
    (14, ['bottle'])
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.data.transforms.utils import extract_transforms_by_type
from anomalib.data.utils.label import LabelName
from anomalib.utils.attrs import get_nested_attr
from pandas import DataFrame
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.transforms.v2 import Resize

from .auxiliary_batch import AuxiliaryBatch
from .auxiliary_dataset import AuxiliaryDataset
from .auxiliary_sources import (
    DatasetName,
    build_dataset,
    build_sources,
    class_name_of,
    list_all,
    list_annotated,
    list_normal,
)
from .shared_images import check_disjoint

logger = logging.getLogger(__name__)


class EpochSampler(DistributedSampler[int]):
    """Shuffled numbers of items that run on from epoch to epoch; Lightning tells it the epoch.

    Args:
        dataset (AnomalibDataset): What to draw from.
        world_size (int): Number of processes that share an epoch.
        rank (int): Number of this process.
        seed (int): Same seed and epoch, same order.
    """

    def __init__(self, dataset: AnomalibDataset, world_size: int, rank: int, seed: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, seed=seed)
        self.number = len(dataset)

    def __iter__(self) -> Iterator[int]:
        """Item numbers of this process for the current epoch."""
        indices = super().__iter__()
        return (self.epoch * self.number + index for index in indices)


class EpochLoader(DataLoader[AuxiliaryBatch]):
    """Its worker processes start with the first batch: Lightning asks for an iterator before it tells the epoch."""

    def __iter__(self) -> Iterator[AuxiliaryBatch]:  # type: ignore[override]  # callers need no more than an iterator
        """Batches of the epoch that the sampler has when the first is asked for."""
        yield from super().__iter__()


class AuxiliaryData(AnomalibDataModule):
    """Test images, normal and anomalous with masks, of many categories, to train on.

    Either ``sources`` or ``dataset`` says where they are. All test images are used, whatever a source's own split
    modes say; a source's category, else its name, is the class name of its images.

    Args:
        sources (list[dict[str, Any]] | None): Datamodules, each with ``class_path``, a name in ``anomalib.data`` or
            the full path of a class, and ``init_args``.
        dataset (Literal["mvtec", "visa"] | None): In place of sources, one datamodule per category of MVTec AD or VisA.
        root (str | Path | None): Folder of ``dataset``. Defaults to anomalib's.
        categories (list[str] | None): Categories of ``dataset``. Defaults to all.
        validation (list[str] | None): Class names held out of training, for validation and test.
        mosaic (float): Probability that a training item is a mosaic of four images of its category; the paper's is 0.2
            for MVTec AD and 0 for VisA.
        synthetic (bool): Take normal training images, and put synthetic anomalies on half of them. No mask is needed.
        labels_only (bool): Take also anomalous images without masks, and hand out no masks at all; for models that
            learn from labels alone, such as ``AnomalyCLIPPrompts`` with ``image_loss_only``.
        image_size (int): Side S in pixels of images and masks: the model's.
        train_batch_size (int): Images a training batch.
        eval_batch_size (int): Images a validation or test batch.
        num_workers (int): Worker processes of each data loader.
        seed (int): Settles order, mosaics and synthetic anomalies.

    Raises:
        ValueError: If an argument is unknown, out of range or contradicts another; the message says which.

    Example:
        >>> bolts = {"class_path": "Folder", "init_args": {"name": "bolt", "normal_dir": "bolts/good"}}
        >>> AuxiliaryData(sources=[bolts], synthetic=True).training_categories
        ['bolt']
    """

    def __init__(
        self,
        sources: list[dict[str, Any]] | None = None,
        dataset: DatasetName | None = None,
        root: str | Path | None = None,
        categories: list[str] | None = None,
        validation: list[str] | None = None,
        mosaic: float = 0.0,
        synthetic: bool = False,
        labels_only: bool = False,
        image_size: int = 518,
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        num_workers: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed
        )
        if not 0 <= mosaic <= 1 or image_size < 1:
            msg = f"mosaic={mosaic} must be a probability, and image_size={image_size} positive."
            raise ValueError(msg)
        self.sources = _sources(sources, dataset, root, categories)
        self.held_out_categories = self._check_validation(validation or [])
        self.seed: int = seed
        self.mosaic = mosaic
        self.synthetic = synthetic
        self.labels_only = labels_only
        self.image_size = image_size

    @property
    def training_categories(self) -> list[str]:
        """Class names of the images to train on, in the order of the sources."""
        names = dict.fromkeys(class_name_of(source) for source in self.sources)
        return [name for name in names if name not in self.held_out_categories]

    @property
    def training_data(self) -> list[str]:
        """The training categories with their datamodules, such as ``MVTecAD/bottle``: what must not be tested on."""
        return self._with_datamodules(self.training_categories)

    @property
    def testing_data(self) -> list[str]:
        """The held-out categories with their datamodules."""
        return self._with_datamodules(self.held_out_categories)

    def _with_datamodules(self, categories: list[str]) -> list[str]:
        sources = [source for source in self.sources if class_name_of(source) in categories]
        return list(dict.fromkeys(f"{type(source).__name__}/{class_name_of(source)}" for source in sources))

    def _check_validation(self, validation: list[str]) -> list[str]:
        names = list(dict.fromkeys(class_name_of(source) for source in self.sources))
        if unknown := [name for name in validation if name not in names]:
            msg = f"validation names {', '.join(unknown)}, but there are only {', '.join(names)}."
            raise ValueError(msg)
        if set(validation) == set(names):
            msg = f"validation={validation} holds all categories out. Leave at least one to train on."
            raise ValueError(msg)
        return list(dict.fromkeys(validation))

    def prepare_data(self) -> None:
        """Let each source download what it lacks, if it can."""
        for source in self.sources:
            source.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """List all images, once.

        The parent's splits and its transforms for datasets do not apply: those resize masks by nearest neighbour.

        Raises:
            ValueError: If there are no annotated images, one is in training and in test, or the model takes another
                size.
        """
        if not self._is_setup:
            self._setup(stage)
            self._is_setup = True
        self._check_model()

    def _setup(self, _stage: str | None = None) -> None:
        self.train_data = self._build_dataset(self.training_categories, mosaic=self.mosaic)
        if self.held_out_categories:
            self.val_data = self.test_data = self._build_dataset(self.held_out_categories)
            check_disjoint(self.train_data.samples.image_path, self.test_data.samples.image_path)
        else:
            logger.info("No category is held out: there is nothing to validate or test on. Name some in validation.")

    def _build_dataset(self, categories: list[str], mosaic: float = 0.0) -> AuxiliaryDataset:
        list_labelled = list_all if self.labels_only else list_annotated
        list_images = list_normal if self.synthetic else list_labelled
        sources = [source for source in self.sources if class_name_of(source) in categories]
        rows = [row for source in sources for row in list_images(source, self.seed)]
        anomalous = sum(row["label_index"] == LabelName.ABNORMAL for row in rows)
        logger.info("%d images, %d of them anomalous, of %s.", len(rows), anomalous, ", ".join(categories))
        if self.synthetic and not rows:
            msg = f"There is no normal training image of {', '.join(categories)}."
            raise ValueError(msg)
        if not self.synthetic and not anomalous:
            msg = (
                f"There is no anomalous image with a mask of {', '.join(categories)}. Give masks (mask_dir of a "
                "Folder), set synthetic=True to make anomalies on normal images, or labels_only=True."
            )
            raise ValueError(msg)
        table = DataFrame(rows)
        return AuxiliaryDataset(table, self.image_size, mosaic, self.synthetic, self.labels_only, self.seed)

    def _check_model(self) -> None:
        transform = get_nested_attr(self, "trainer.model.pre_processor.transform", None)
        for resize in extract_transforms_by_type(transform, Resize):
            if set(resize.size) != {self.image_size}:
                msg = (
                    f"image_size={self.image_size}, but the model's pre-processor resizes to {tuple(resize.size)}, "
                    "which would spoil the masks. Give both the same size, a square."
                )
                raise ValueError(msg)

    def train_dataloader(self) -> DataLoader[AuxiliaryBatch]:
        """Shuffled batches of ``AuxiliaryBatch``: images (N, 3, S, S) in [0, 1], masks (N, S, S).

        Order and items depend on seed and epoch alone: a resumed run goes on with the same, and processes that share
        the work make up the same batches as one alone.
        """
        trainer = self.trainer
        world_size, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        return EpochLoader(
            self.train_data,
            batch_size=self.train_batch_size,
            sampler=EpochSampler(self.train_data, world_size, rank, self.seed),
            num_workers=self.num_workers,
            collate_fn=self.external_collate_fn or self.train_data.collate_fn,
        )

    def val_dataloader(self) -> Any:  # ruff: ignore[any-type] - a loader, or for Lightning none
        """Batches of the held-out categories, as those for training but always the same; empty if there are none."""
        return super().val_dataloader() if self.held_out_categories else []

    def test_dataloader(self) -> Any:  # ruff: ignore[any-type] - as above
        """The same images as for validation."""
        return super().test_dataloader() if self.held_out_categories else []


def _sources(
    sources: list[dict[str, Any]] | None,
    dataset: DatasetName | None,
    root: str | Path | None,
    categories: list[str] | None,
) -> list[AnomalibDataModule]:
    if (sources is None) == (dataset is None):
        given = "neither is" if sources is None else "both are"
        msg = (
            f"Give either sources or dataset; {given} given. Take dataset='mvtec' or 'visa' with root, or in sources"
            " the class_path and init_args of any datamodules."
        )
        raise ValueError(msg)
    if sources is None:
        return build_dataset(str(dataset), root, categories)
    if root is not None or categories is not None:
        msg = "root and categories belong to dataset. Give each of the sources its own in init_args."
        raise ValueError(msg)
    built = build_sources(sources)
    if any(isinstance(source, AuxiliaryData) for source in built):
        msg = "AuxiliaryData cannot be one of its own sources. Name the datamodules of both in one list."
        raise ValueError(msg)
    return built
