# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Default metrics, on scores before they are rescaled, and the line that says where heat maps are."""

import logging
from collections.abc import Sequence
from typing import Any

from anomalib.metrics import AUROC, AnomalibMetric, Evaluator
from anomalib.metrics import F1Max as AnomalibF1Max
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from torch import nn
from torchmetrics.classification import BinaryAveragePrecision

from . import pixel_metrics

logger = logging.getLogger(__name__)


class AveragePrecision(AnomalibMetric, BinaryAveragePrecision):  # type: ignore[misc]
    """Average precision (AP) of anomalib batches."""


class F1Max(AnomalibF1Max):
    """Anomalib's F1-max, which forgets the number of its updates, too, when it is reset.

    Else a second test fails if it has no masks while the first one had.
    """

    def reset(self) -> None:
        """Forget all."""
        super().reset()
        self._update_count = 0


def raw_scores_first(callbacks: Sequence[Callback] | Callback) -> list[Callback]:
    """Let an evaluator come before the post-processor if none of its metrics needs a verdict.

    Rescaled scores have rounding errors and, with other post-processors, ties, which change metrics of scores.

    Args:
        callbacks (Sequence[Callback] | Callback): A model's components, as anomalib orders them.

    Returns:
        list[Callback]: The same, perhaps in another order.
    """
    callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    early = [callback for callback in callbacks if isinstance(callback, Evaluator) and not _needs_verdicts(callback)]
    return sorted(callbacks, key=lambda callback: not isinstance(callback, PreProcessor) and callback not in early)


def _needs_verdicts(evaluator: Evaluator) -> bool:
    metrics: list[Any] = [*evaluator.val_metrics, *evaluator.test_metrics]
    return any({"pred_label", "pred_mask"} & set(metric.fields) for metric in metrics)


def default_metrics() -> list[AnomalibMetric]:
    """AUROC, F1-max and AP of images and pixels, AUPRO of pixels; those of pixels only where there are masks."""
    image: dict[str, Any] = {"fields": ["pred_score", "gt_label"], "prefix": "image_"}
    pixel: dict[str, Any] = {"fields": ["anomaly_map", "gt_mask"], "prefix": "pixel_", "strict": False}
    return [
        *(metric(**image) for metric in (AUROC, F1Max, AveragePrecision)),
        *(metric(**pixel) for metric in pixel_metrics.ALL),
    ]


def tell_of_heat_maps(visualizer: nn.Module | None) -> None:
    """Say in the log where a visualizer has written, if it has."""
    folder = getattr(visualizer, "output_dir", None)  # known after the first batch
    if folder is not None:
        logger.info("Heat maps are in %s", folder)
