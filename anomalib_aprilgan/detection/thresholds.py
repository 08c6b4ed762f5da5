# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The score at which images begin to count as anomalous."""

import torch
from anomalib.metrics import AnomalibMetric
from anomalib.metrics.threshold.f1_adaptive_threshold import _F1AdaptiveThreshold
from torchmetrics.utilities.data import dim_zero_cat


class _MiddleF1Threshold(_F1AdaptiveThreshold):
    """The middle of the gap between scores where F1 is largest.

    anomalib's threshold is the gap's upper edge, the lowest score above it. F1 on these scores is the same; but of
    anomalies to come, those that score a little lower would count as normal, however wide the gap.
    """

    def compute(self) -> torch.Tensor:  # type: ignore[override]  # as anomalib's own
        """The threshold, (); anomalib's where all images are normal, or no score is lower."""
        edge: torch.Tensor = super().compute()
        scores = dim_zero_cat(self.preds)
        lower = scores[scores < edge]
        has_anomalies = bool((dim_zero_cat(self.target) == 1).any())
        if not has_anomalies or lower.numel() == 0:
            return edge
        nearest = lower.max()
        middle = nearest + (edge - nearest) / 2
        return middle if middle > nearest else edge  # neighbours in floating point have no middle


class MiddleF1Threshold(AnomalibMetric, _MiddleF1Threshold):  # type: ignore[misc]
    """The middle of the gap between images' scores where F1 is largest."""
