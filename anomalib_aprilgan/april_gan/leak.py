# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Tests on data that the adapters were trained on: told loudly, and marked in the results."""

import logging

from lightning.pytorch import Trainer

from anomalib_aprilgan.data import AuxiliaryData

from .published_adapters import trained_on_same

logger = logging.getLogger(__name__)

# Metric that appears, as 1, beside those of adapters that have seen the data under test.
LEAK_MARK = "adapters_trained_on_test_data"


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
    """Those of the data under test that adapters were trained on, as their metadata say."""
    return [name for name in data_under_test(trainer) if trained_on_same(trained_on, name)]


def warn_of_leaks(trained_on: str | None, trainer: Trainer | None) -> None:
    """Tell of :func:`find_leaks`, if there are any."""
    if leaks := find_leaks(trained_on, trainer):
        logger.warning(
            "The adapters were trained on data under test, %s: the results say nothing about new products, and are "
            "marked with %s. Take adapters that were trained on other data.",
            ", ".join(leaks),
            LEAK_MARK,
        )
