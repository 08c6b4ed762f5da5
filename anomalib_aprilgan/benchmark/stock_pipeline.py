# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Models for anomalib's own ``anomalib benchmark``, which keeps its results only if all jobs have the same keys."""

from collections.abc import Sequence
from typing import Any

import yaml
from anomalib import models
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule

from anomalib_aprilgan.detection.evaluation import default_metrics

from .classes import find_class


class BenchmarkModel:
    """Any model, by arguments and with metrics that have the same names for all models.

    Calling the class gives the model itself. Scores are measured raw: the post-processor would clip them to [0, 1],
    by the extremes of a validation split that is the test split.

    Args:
        method (str): Name of a model of anomalib; ``WinClip``, ``Padim`` and ``Patchcore`` are those made
            fit for comparisons.
        k_shot (int): References of AprilGAN and WinClip; other models see all training images.
        options (Sequence[str]): Further arguments of the model, each ``name=value`` with the value in YAML.

    Raises:
        ValueError: If the model is unknown, or an option has no ``=``.

    Example:
        >>> options = ["backbone=resnet18", "layers=[layer2]", "pre_trained=false"]
        >>> type(BenchmarkModel("Patchcore", options=options)).__name__
        'BenchmarkPatchcore'
    """

    def __new__(cls, method: str, k_shot: int = 0, options: Sequence[str] = ()) -> AnomalibModule:  # type: ignore[misc]
        """Build the model."""
        arguments: dict[str, Any] = {}
        for option in options:
            name, equals, value = option.partition("=")
            if not equals:
                msg = f"option {option!r} of {method} must be name=value, such as image_size=240."
                raise ValueError(msg)
            arguments[name] = yaml.safe_load(value)
        if method in {"AprilGAN", "WinClip"}:
            arguments["k_shot"] = k_shot
        build = find_class(method, models)
        evaluator = Evaluator(test_metrics=default_metrics())
        model: AnomalibModule = build(**arguments, post_processor=False, evaluator=evaluator, visualizer=False)
        return model
