# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Verdicts from scores that are probabilities."""

from typing import Any

import torch
from anomalib.post_processing import PostProcessor
from lightning import LightningModule, Trainer
from torch import nn

# Distance by which a fitted threshold is lowered: one float32 step at 1.
STEP = torch.finfo(torch.float32).eps


class ProbabilityPostProcessor(PostProcessor):
    """Anomalib's post-processor for scores in [0, 1].

    Differences to its parent, which suits unbounded distances:

    - Scores are rescaled by two straight lines, 0 -> 0, threshold -> 0.5, 1 -> 1. The parent divides by the range of
      the validation scores and clips, which makes ties and so changes AUROC.
    - The fitted threshold is the lowest score that counts as anomalous, but the parent marks only what exceeds it:
      with saturated scores (many ones) no image would be anomalous. It is lowered by one step.
    - Without validation nothing is rescaled and labels are ``score > 0.5``.
    - An image threshold says nothing about maps (nor the reverse): neither replaces the other.
    """

    def __init__(self, image_sensitivity: float = 0.5, pixel_sensitivity: float = 0.5) -> None:
        super().__init__(
            enable_threshold_matching=False,
            image_sensitivity=image_sensitivity,
            pixel_sensitivity=pixel_sensitivity,
        )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit thresholds; where anomalies were seen, those at the threshold count as anomalous."""
        image_has_anomalies = _has_anomalies(self._image_threshold_metric)
        pixel_has_anomalies = _has_anomalies(self._pixel_threshold_metric)
        super().on_validation_epoch_end(trainer, pl_module)
        if image_has_anomalies:
            self._image_threshold.copy_(self._image_threshold - STEP)
        if pixel_has_anomalies:
            self._pixel_threshold.copy_(self._pixel_threshold - STEP)

    @staticmethod
    def _normalize(
        preds: torch.Tensor | None,
        norm_min: torch.Tensor,
        norm_max: torch.Tensor,
        threshold: torch.Tensor,
    ) -> torch.Tensor | None:
        """Rescale so that the threshold becomes 0.5, without changing the order."""
        del norm_min, norm_max
        if preds is None:
            return preds
        # At a threshold of 0 or 1 one of the lines has no length; nothing lies on it.
        below = 0.5 * preds / threshold.clamp(min=STEP)
        above = 0.5 + 0.5 * (preds - threshold) / (1 - threshold).clamp(min=STEP)
        rescaled = torch.where(preds > threshold, above, below).clamp(0, 1)
        return torch.where(torch.isnan(threshold), preds, rescaled)


def _has_anomalies(metric: nn.Module) -> bool:
    """Whether a threshold metric has seen an anomalous label; else it returns the largest score as threshold."""
    targets: Any = getattr(metric, "target", [])
    return any(bool((target == 1).any()) for target in targets)
