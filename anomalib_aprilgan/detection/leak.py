# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Tests on data that the model knows, by training or as references: logged as a warning, and marked in the results."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from anomalib_aprilgan.components.dataset_names import trained_on_same
from anomalib_aprilgan.data import AuxiliaryData
from anomalib_aprilgan.data.image_guard import files_of

logger = logging.getLogger(__name__)

# Metric that appears, as 1, where images under test are references.
REFERENCES_MARK = "references_under_test"


def data_under_test(trainer: Trainer | None) -> list[str]:
    """Datamodules and categories that a trainer would test on, such as ``MVTecAD/bottle``; none without datamodule."""
    datamodule = getattr(trainer, "datamodule", None)
    if datamodule is None:
        return []
    if isinstance(datamodule, AuxiliaryData):
        return datamodule.testing_data
    category = getattr(datamodule, "category", "") or getattr(datamodule, "name", "")
    return [f"{type(datamodule).__name__}/{category}"]


def find_leaks(trained_on: str | None, trainer: Trainer | None) -> list[str]:
    """Those of the data under test that a part was trained on, as its metadata say."""
    return [name for name in data_under_test(trainer) if trained_on_same(trained_on, name)]


def leak_mark(part: str) -> str:
    """Metric that appears, as 1, beside those of parts, such as ``adapters``, that have seen the data under test."""
    return f"{part}_trained_on_test_data"


def warn_of_leaks(part: str, trained_on: str | None, trainer: Trainer | None) -> None:
    """Tell of :func:`find_leaks`, if there are any; ``part`` is a word such as ``adapters``."""
    if leaks := find_leaks(trained_on, trainer):
        logger.warning(
            "The %s were trained on data under test, %s: the results say nothing about new products, and are marked "
            "with %s. Take %s that were trained on other data.",
            part,
            ", ".join(leaks),
            leak_mark(part),
            part,
        )


def references_under_test(paths: Sequence[str], trainer: Trainer | None) -> list[str]:
    """Those of the references that are images to test or to predict, too; none where nobody lists these."""
    if not paths or trainer is None:
        return []
    known = {Path(path).resolve(): path for path in paths}
    judged = {Path(path).resolve() for path in _images_to_judge(trainer)}
    return [path for place, path in known.items() if place in judged]


def _images_to_judge(trainer: Trainer) -> list[str | Path]:
    """Images of a prediction, also those of bulk prediction, else of a test."""
    if not trainer.predicting:
        return list(files_of(getattr(getattr(trainer, "datamodule", None), "test_data", None)))
    loaders: Any = trainer.predict_dataloaders
    loaders = loaders if isinstance(loaders, (list, tuple)) else [loaders]
    datasets = [loader.dataset for loader in loaders if isinstance(loader, DataLoader)]
    return [path for data in datasets for path in getattr(data, "photos", None) or files_of(data)]


def warn_of_references(paths: Sequence[str], trainer: Trainer | None) -> None:
    """Tell of :func:`references_under_test`, if there are any."""
    if known := references_under_test(paths, trainer):
        logger.warning(
            "%d of %d references are images under test, %s: they look normal to the model, whatever they show. Judge "
            "other images, or take other references: without few_shot_source they are drawn from training images.",
            len(known),
            len(paths),
            ", ".join(known[:5]) + (" and others" if known[5:] else ""),
        )
