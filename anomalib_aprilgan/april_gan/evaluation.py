# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Metrics of anomalib batches, none of which needs a threshold."""

from typing import Any

from anomalib.metrics import AUPRO, AUROC, AnomalibMetric, F1Max
from torchmetrics.classification import BinaryAveragePrecision


class AveragePrecision(AnomalibMetric, BinaryAveragePrecision):  # type: ignore[misc]
    """Average precision (AP) of anomalib batches."""


def default_metrics() -> list[AnomalibMetric]:
    """AUROC, F1-max and AP of images and pixels, AUPRO of pixels; those of pixels only where there are masks."""
    image: dict[str, Any] = {"fields": ["pred_score", "gt_label"], "prefix": "image_"}
    pixel: dict[str, Any] = {"fields": ["anomaly_map", "gt_mask"], "prefix": "pixel_", "strict": False}
    return [
        *(metric(**image) for metric in (AUROC, F1Max, AveragePrecision)),
        *(metric(**pixel) for metric in (AUROC, F1Max, AveragePrecision, AUPRO)),
    ]
