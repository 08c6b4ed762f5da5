# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Anomalib datamodules as sources of auxiliary data: built from plain data, and searched for usable images."""

import importlib
import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard

import anomalib.data
from anomalib.data import AnomalibDataModule, MVTecAD, Visa
from anomalib.data.datamodules.base.video import AnomalibVideoDataModule
from anomalib.data.datasets.image.mvtecad import CATEGORIES as MVTEC_CATEGORIES
from anomalib.data.datasets.image.visa import CATEGORIES as VISA_CATEGORIES
from anomalib.data.utils import TestSplitMode, ValSplitMode
from anomalib.data.utils.label import LabelName

logger = logging.getLogger(__name__)

DatasetName: TypeAlias = Literal["mvtec", "visa"]
DATASETS: dict[str, tuple[type[MVTecAD | Visa], tuple[str, ...]]] = {
    "mvtec": (MVTecAD, MVTEC_CATEGORIES),
    "visa": (Visa, VISA_CATEGORIES),
}


def build_sources(sources: Sequence[dict[str, Any]]) -> list[AnomalibDataModule]:
    """Build datamodules from plain data.

    Args:
        sources (Sequence[dict[str, Any]]): ``class_path``, a name in ``anomalib.data`` or the full path of a class,
            and ``init_args``, its arguments.

    Returns:
        list[AnomalibDataModule]: One a source, nothing read yet.

    Raises:
        ValueError: If a source is no such dictionary, its class is not found or unfit, or an argument is unknown.
    """
    if not sources:
        msg = "sources is empty. Name at least one datamodule, such as {class_path: Folder, init_args: {...}}."
        raise ValueError(msg)
    return [_build(f"sources[{index}]", source) for index, source in enumerate(sources)]


def _build(place: str, source: dict[str, Any]) -> AnomalibDataModule:
    if not isinstance(source, dict) or "class_path" not in source or not source.keys() <= {"class_path", "init_args"}:
        msg = f"{place}={source!r} must be a dictionary with the key class_path and, if need be, init_args."
        raise ValueError(msg)
    datamodule = _find_class(place, str(source["class_path"]))
    init_args = source.get("init_args") or {}
    try:
        inspect.signature(datamodule).bind(**init_args)
    except TypeError as error:
        msg = f"{place}: init_args of {datamodule.__name__} do not fit: {error}."
        raise ValueError(msg) from error
    return datamodule(**init_args)


def _find_class(place: str, class_path: str) -> type[AnomalibDataModule]:
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module) if module else anomalib.data, name)
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"{place}: no class {class_path!r}. Give a name in anomalib.data, such as Folder, or a full path."
        raise ValueError(msg) from error
    if not _is_image_datamodule(found):
        msg = f"{place}: {class_path} is no datamodule of images, such as Folder."
        raise ValueError(msg)
    return found


def _is_image_datamodule(found: Any) -> TypeGuard[type[AnomalibDataModule]]:  # ruff: ignore[any-type] - of any module
    is_datamodule = isinstance(found, type) and issubclass(found, AnomalibDataModule)
    return is_datamodule and not issubclass(found, AnomalibVideoDataModule) and not inspect.isabstract(found)


def build_dataset(
    dataset: str, root: str | Path | None = None, categories: Sequence[str] | None = None
) -> list[AnomalibDataModule]:
    """Build one datamodule per category of a known dataset.

    Args:
        dataset (str): ``mvtec`` or ``visa``.
        root (str | Path | None): Its folder; None leaves anomalib's default.
        categories (Sequence[str] | None): Some of its categories; None takes all.

    Returns:
        list[AnomalibDataModule]: In the order of ``categories``.

    Raises:
        ValueError: If the dataset or a category is unknown, or there is no category.
    """
    if dataset not in DATASETS:
        msg = f"dataset={dataset!r} is unknown. Choose {' or '.join(DATASETS)}, or name datamodules in sources."
        raise ValueError(msg)
    datamodule, known = DATASETS[dataset]
    chosen = list(known if categories is None else categories)
    if not chosen or not set(chosen) <= set(known):
        msg = f"categories={chosen} must be some of {dataset}'s: {', '.join(known)}."
        raise ValueError(msg)
    if root is None:
        return [datamodule(category=category) for category in chosen]
    return [datamodule(root=root, category=category) for category in chosen]


def class_name_of(source: AnomalibDataModule) -> str:
    """Category of a datamodule, or its name where it has none, as a ``Folder``."""
    return source.category or source.name


def list_annotated(source: AnomalibDataModule, seed: int) -> list[dict[str, Any]]:
    """All normal test images of a datamodule, and its anomalous ones that have a mask; others are counted.

    Args:
        source (AnomalibDataModule): Not set up yet.
        seed (int): Chooses normal training images for a test set that has none, as anomalib does.

    Returns:
        list[dict[str, Any]]: Rows for ``AuxiliaryDataset``.
    """
    rows = list_all(source, seed)
    usable = [row for row in rows if row["label_index"] == LabelName.NORMAL or row["mask_path"]]
    if skipped := len(rows) - len(usable):
        anomalous = sum(row["label_index"] != LabelName.NORMAL for row in rows)
        name = class_name_of(source)
        logger.warning("%s: %d of %d anomalous images have no mask and are left out.", name, skipped, anomalous)
    return usable


def list_all(source: AnomalibDataModule, seed: int) -> list[dict[str, Any]]:
    """All test images of a datamodule, with masks and without, as ``list_annotated`` returns them."""
    # Else part of the test set may go to validation, and MVTecAD2 loses its normal test images.
    _set_up(source, TestSplitMode.FROM_DIR, seed)
    return _rows(source, source.test_data.samples)


def list_normal(source: AnomalibDataModule, seed: int) -> list[dict[str, Any]]:
    """All normal training images of a datamodule, as ``list_annotated`` returns them."""
    # Else part of the training images may go to a test set that has no normal ones.
    _set_up(source, TestSplitMode.NONE, seed)
    rows = _rows(source, source.train_data.samples)
    return [row for row in rows if row["label_index"] == LabelName.NORMAL]


def _set_up(source: AnomalibDataModule, test_split_mode: TestSplitMode, seed: int) -> None:
    """Set a source up; attributes serve also those datamodules that have no arguments for these modes."""
    source.test_split_mode = test_split_mode
    source.val_split_mode = ValSplitMode.NONE
    source.seed = seed if source.seed is None else source.seed
    source.setup()


def _rows(source: AnomalibDataModule, samples: Any) -> list[dict[str, Any]]:  # ruff: ignore[any-type] - pandas is untyped
    return [
        {
            "image_path": str(sample.image_path),
            "mask_path": _mask_files(sample.mask_path),
            "label_index": int(sample.label_index),
            "class_name": class_name_of(source),
            "split": str(sample.split),
        }
        for sample in samples.itertuples()
    ]


def _mask_files(mask_path: Any) -> tuple[str, ...]:  # ruff: ignore[any-type] - datamodules have their ways to say none
    """Mask files that exist; none if ``mask_path`` is None, NaN or empty. MVTecLOCO has lists."""
    files = mask_path if isinstance(mask_path, list) else [mask_path]
    named = [str(file) for file in files if isinstance(file, (str, Path)) and str(file)]
    return tuple(named) if all(Path(file).is_file() for file in named) else ()
