# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What must hold before a run, so that no row says something else than it seems to."""

import logging

from anomalib import LearningType
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import ValSplitMode
from anomalib.models import EfficientAd
from anomalib.models.components import AnomalibModule

from .plan import Run

logger = logging.getLogger(__name__)


def check_test_images(run: Run, datamodule: AnomalibDataModule) -> None:
    """Tell of missing test images before a model is prepared, and of some that a split has taken away.

    Raises:
        ValueError: If there are not both kinds.
    """
    if datamodule.val_split_mode == ValSplitMode.FROM_TEST:
        logger.warning(
            "%s: a part of the test images is put aside for validation, which a benchmark has no use for. Set "
            "val_split_mode: none in its init_args to test with all.",
            run.dataset_name,
        )
    anomalous = datamodule.test_data.samples.label_index.to_numpy(dtype=bool)
    if anomalous.all() or not anomalous.any():
        msg = (
            f"{run.images_name} has {(~anomalous).sum()} normal and {anomalous.sum()} anomalous test "
            "images, but metrics need both. Look at its folders and splits: Folder takes normal_test_dir, and "
            "val_split_mode: none leaves all images to the test."
        )
        raise ValueError(msg)


def check_shots(run: Run, model: AnomalibModule) -> None:
    """Refuse settings that a model would ignore, so that no result has a wrong name."""
    if run.shots == 0 and model.learning_type is LearningType.ONE_CLASS:
        msg = f"{run.method_name} learns from normal images, so 0 is not among its shots. Give it shots of its own."
        raise ValueError(msg)
    if run.shots != 0 and model.learning_type is LearningType.ZERO_SHOT:
        msg = f"{run.method_name} looks at no reference, so {run.shots} is not among its shots. Give it shots: [0]."
        raise ValueError(msg)


def check_validation(run: Run, model: AnomalibModule, datamodule: AnomalibDataModule) -> None:
    """Refuse validation on the images under test, and no validation where a model's maps need it.

    Raises:
        ValueError: If it is so.
    """
    validates = bool(run.method.trainer.get("limit_val_batches", 0))
    if validates and datamodule.val_split_mode == ValSplitMode.SAME_AS_TEST:
        msg = (
            f"{run.method_name} would be validated on the test images of {run.dataset_name}. Leave limit_val_batches "
            "out of its trainer, or set val_split_mode: from_train in the dataset's init_args."
        )
        raise ValueError(msg)
    if not validates and isinstance(model, EfficientAd):
        msg = (
            f"{run.method_name} rescales its maps by normal validation images. Give its trainer limit_val_batches: "
            "1.0, and the dataset val_split_mode: from_train."
        )
        raise ValueError(msg)
