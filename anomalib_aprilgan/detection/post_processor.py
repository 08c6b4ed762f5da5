# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Verdicts from scores that are probabilities."""

from typing import Any

import torch
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer
from torch import nn

from .pixel_metrics import F1Threshold
from .thresholds import MiddleF1Threshold

# One float32 step: how far above 0.5 a score at the threshold comes to lie.
STEP = torch.finfo(torch.float32).eps


class ProbabilityPostProcessor(PostProcessor):
    """Anomalib's post-processor for scores in [0, 1].

    Differences to its parent, which suits unbounded distances:

    - Scores are rescaled by two straight lines, 0 -> 0, threshold -> just above 0.5, 1 -> 1. The parent divides by the
      range of the validation scores and clips, which makes ties.
    - What reaches the fitted threshold counts as anomalous; the parent marks only what exceeds it: with saturated
      scores (many ones) no image would be anomalous.
    - The threshold of images lies in the middle of a gap between scores, not at its upper edge.
    - A score or pixel that is no number counts as anomalous: somebody should look.
    - Without validation nothing is rescaled and labels are ``score > 0.5``.
    - An image threshold says nothing about maps (nor the reverse): neither replaces the other.
    """

    def __init__(self, image_sensitivity: float = 0.5, pixel_sensitivity: float = 0.5) -> None:
        super().__init__(
            enable_threshold_matching=False,
            image_sensitivity=image_sensitivity,
            pixel_sensitivity=pixel_sensitivity,
        )
        image_metric: Any = MiddleF1Threshold(fields=["pred_score", "gt_label"], strict=False)
        # The parent's keeps every pixel of every validation image.
        pixel_metric: Any = F1Threshold(fields=["anomaly_map", "gt_mask"], strict=False)
        self._image_threshold_metric, self._pixel_threshold_metric = image_metric, pixel_metric

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget thresholds of earlier data: the next may have no masks to fit one to."""
        del trainer, pl_module
        for fitted in (self._image_threshold, self._pixel_threshold):
            fitted.fill_(float("nan"))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit thresholds; without anomalies a threshold is the largest normal score, which is not anomalous itself."""
        metrics = (self._image_threshold_metric, self._pixel_threshold_metric)
        # Each process has seen a part of the data only; the metrics put the parts together when they compute.
        seen = [trainer.strategy.reduce_boolean_decision(_has_anomalies(metric), all=False) for metric in metrics]
        super().on_validation_epoch_end(trainer, pl_module)
        for has_anomalies, fitted in zip(seen, (self._image_threshold, self._pixel_threshold), strict=True):
            if not has_anomalies:
                fitted.copy_(torch.nextafter(fitted, torch.full_like(fitted, float("inf"))))

    @staticmethod
    def _normalize(
        preds: torch.Tensor | None,
        norm_min: torch.Tensor,
        norm_max: torch.Tensor,
        threshold: torch.Tensor,
    ) -> torch.Tensor | None:
        """Rescale so that what reaches the threshold exceeds 0.5, in the same order as far as float32 can tell.

        Few-shot maps may exceed 1; all that does becomes 1, as anomalib's would.
        """
        del norm_min, norm_max
        if preds is None:
            return preds
        # At a threshold of 0 or 1 one of the lines has no length; nothing lies on it.
        tiny = torch.finfo(torch.float32).tiny
        below = 0.5 * preds / threshold.clamp(min=tiny)
        above = 0.5 + STEP + (0.5 - STEP) * (preds - threshold) / (1 - threshold).clamp(min=tiny)
        rescaled = torch.where(preds >= threshold, above, below).clamp(0, 1)
        return torch.where(torch.isnan(threshold), preds, rescaled)

    @staticmethod
    def _apply_threshold(preds: torch.Tensor | None, threshold: torch.Tensor) -> torch.Tensor | None:
        """Labels; with NaN, a comparison is False, and here that of the good."""
        return None if preds is None else ~(preds <= threshold)


def _has_anomalies(metric: nn.Module) -> bool:
    """Whether this process's part of a threshold metric has an anomalous label."""
    if isinstance(metric, F1Threshold):
        return metric.has_anomalies
    targets: Any = getattr(metric, "target", [])
    return any(bool((target == 1).any()) for target in targets)
