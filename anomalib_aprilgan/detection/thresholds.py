# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The score at which images begin to count as anomalous."""

import logging

import torch
from anomalib.metrics import AnomalibMetric
from anomalib.metrics.threshold.f1_adaptive_threshold import _F1AdaptiveThreshold
from torchmetrics.utilities.data import dim_zero_cat

logger = logging.getLogger(__name__)

# Fewer normal images than that say little of the share of false alarms to come.
FEW = 10


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

    def compute(self) -> torch.Tensor:  # type: ignore[override]  # as anomalib's own
        """The threshold, (); the log says what it does to the images that it was fitted to."""
        threshold = super().compute()
        report(dim_zero_cat(self.preds) >= threshold, dim_zero_cat(self.target) == 1)
        return threshold


def report(flagged: torch.Tensor, anomalous: torch.Tensor) -> None:
    """Log how many images a threshold fitted to them judges wrongly; warn if the normal ones are few, or half of them.

    F1 counts no true negatives: with few normal images it may be largest where all count as anomalous. Without any
    anomalous image the threshold is the largest normal score, and there is nothing to report.

    Args:
        flagged (torch.Tensor): Which images reach the threshold, bool, (N,).
        anomalous (torch.Tensor): Which are anomalous, bool, (N,).
    """
    normal, defective = int((~anomalous).sum()), int(anomalous.sum())
    if defective == 0:
        return
    alarms, missed = int((flagged & ~anomalous).sum()), int((~flagged & anomalous).sum())
    counts = f"{alarms} of {normal} normal images count as anomalous, {missed} of {defective} anomalous ones as normal"
    if normal < FEW or 2 * alarms >= normal:
        logger.warning(
            "The threshold of images may call good parts defective: of those that it was fitted to, %s. With few "
            "normal images, or far fewer than anomalous ones, F1 tells little of false alarms. Validate with more "
            "normal images.",
            counts,
        )
    else:
        logger.info("Threshold of images: of those that it was fitted to, %s.", counts)
