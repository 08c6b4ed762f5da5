# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Metrics of pixels in bounded memory; anomalib's own keep every pixel, some 5 MB for each image of the paper's size.

They agree with anomalib's exactly for up to some hundred thousand different scores, and to about 1e-5 beyond.
"""

import logging

import torch
from anomalib.metrics import AnomalibMetric
from anomalib.utils.cv import connected_components_cpu, connected_components_gpu
from torchmetrics import Metric

from anomalib_aprilgan.components.score_sketch import ScoreSketch, merge, sketch

logger = logging.getLogger(__name__)

MAX_FALSE_POSITIVE_RATE = 0.3


class _SketchMetric(Metric):
    """A metric of the order of scores, from a sketch of them.

    Each process has its own sketch; when they compute, the sketches of all are merged.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    scores: list[torch.Tensor] | torch.Tensor
    weights: list[torch.Tensor] | torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("weights", default=[], dist_reduce_fx="cat")

    def update(self, preds: torch.Tensor, target: torch.Tensor) -> None:
        """Take a batch: scores (N, H, W), and masks of the same shape."""
        if preds.device.type == "mps":  # it has no float64
            preds, target = preds.cpu(), target.cpu()
        new = self._sketch(preds, target)
        known = self._known()
        if known is not None:
            new = merge([ScoreSketch(*(part.to(new.scores.device) for part in known)), new])
        self.scores, self.weights = [new.scores], [new.weights]

    def _sketch(self, preds: torch.Tensor, target: torch.Tensor) -> ScoreSketch:
        return sketch(preds, target)

    def _known(self) -> ScoreSketch | None:
        if len(self.scores) == 0:
            return None
        # One tensor after processes have exchanged theirs, else a list of one.
        return ScoreSketch(
            *(part if isinstance(part, torch.Tensor) else part[0] for part in (self.scores, self.weights))
        )

    def compute(self) -> torch.Tensor:
        """The metric; NaN, with a warning, if all pixels are normal or all anomalous."""
        known = self._known()
        pixels = torch.zeros(2) if known is None else known.weights[:, :2].sum(dim=0)
        if known is None or (pixels == 0).any():
            counts = "{:.0f} normal and {:.0f} anomalous pixels".format(*pixels.tolist())
            logger.warning("%s is undefined: there are %s.", getattr(self, "name", type(self).__name__), counts)
            return torch.tensor(float("nan"))
        whole = merge([known])
        return self._compute(whole.weights.flip(0)).float()

    def _compute(self, weights: torch.Tensor) -> torch.Tensor:
        """The metric from the weights (K, 3) of falling scores."""
        raise NotImplementedError


class _AUROC(_SketchMetric):
    def _compute(self, weights: torch.Tensor) -> torch.Tensor:
        rates = _from_zero(weights[:, :2].cumsum(dim=0) / weights[:, :2].sum(dim=0))
        return torch.trapezoid(rates[:, 1], rates[:, 0])


class _F1Max(_SketchMetric):
    def _compute(self, weights: torch.Tensor) -> torch.Tensor:
        false, true = weights[:, :2].cumsum(dim=0).unbind(dim=1)
        return (2 * true / (true + false + true[-1])).max()


class _AveragePrecision(_SketchMetric):
    def _compute(self, weights: torch.Tensor) -> torch.Tensor:
        false, true = weights[:, :2].cumsum(dim=0).unbind(dim=1)
        return (weights[:, 1] * true / (true + false)).sum() / true[-1]


class _AUPRO(_SketchMetric):
    """Area under the per-region overlap up to a false positive rate of 0.3, as anomalib has it."""

    def _sketch(self, preds: torch.Tensor, target: torch.Tensor) -> ScoreSketch:
        masks = target.reshape(-1, 1, *target.shape[-2:]).float()  # (N, 1, H, W)
        regions = connected_components_gpu(masks) if masks.is_cuda else connected_components_cpu(masks)
        labels = regions.flatten().long()
        sizes = labels.bincount()
        overlaps = torch.where(labels > 0, 1 / sizes[labels].double(), 0.0)
        return sketch(preds, target, overlaps)

    def _compute(self, weights: torch.Tensor) -> torch.Tensor:
        sums = weights.cumsum(dim=0)
        curve = _from_zero(sums[:, [0, 2]] / sums[-1, [0, 2]])
        rates, overlaps = curve.unbind(dim=1)
        inside = int((rates <= MAX_FALSE_POSITIVE_RATE).sum())  # the rates begin with 0 and end with 1
        before, after = curve[inside - 1], curve[inside]
        part = (MAX_FALSE_POSITIVE_RATE - before[0]) / (after[0] - before[0])
        end = before + part * (after - before)
        rates, overlaps = torch.cat([curve[:inside], end[None]]).unbind(dim=1)
        return torch.trapezoid(overlaps, rates) / MAX_FALSE_POSITIVE_RATE


def _from_zero(curve: torch.Tensor) -> torch.Tensor:
    """A curve (K, C) with the point before its first."""
    return torch.cat([torch.zeros_like(curve[:1]), curve])


class _F1Threshold(_SketchMetric):
    """The lowest score that counts as anomalous where F1 is largest, exact to a cell of the sketch.

    As anomalib's ``F1AdaptiveThreshold``: without anomalies the largest score, without normal pixels the smallest.
    """

    @property
    def has_anomalies(self) -> bool:
        """Whether this process has seen any."""
        known = self._known()
        return known is not None and bool(known.weights[:, 1].any())

    def compute(self) -> torch.Tensor:
        """The threshold, ()."""
        known = self._known()
        if known is None:
            return torch.tensor(float("nan"))
        scores, weights = merge([known])
        normal, anomalous, _ = weights.sum(dim=0)
        if anomalous == 0:
            logger.warning("No anomalous pixel to fit a threshold to: taking the largest score of the normal ones.")
            return scores[-1]
        if normal == 0:
            logger.warning("No normal pixel to fit a threshold to: taking the smallest score of the anomalous ones.")
            return scores[0]
        false, true = weights[:, :2].flip(0).cumsum(dim=0).flip(0).unbind(dim=1)  # at or above each score
        return scores[(2 * true / (true + false + true[0])).argmax()]


class AUROC(AnomalibMetric, _AUROC):  # type: ignore[misc]
    """Area under the receiver operating characteristic."""


class F1Max(AnomalibMetric, _F1Max):  # type: ignore[misc]
    """Largest F1 over all thresholds."""


class AveragePrecision(AnomalibMetric, _AveragePrecision):  # type: ignore[misc]
    """Average precision (AP)."""


class AUPRO(AnomalibMetric, _AUPRO):  # type: ignore[misc]
    """Area under the per-region overlap."""


class F1Threshold(AnomalibMetric, _F1Threshold):  # type: ignore[misc]
    """The threshold of the largest F1, in bounded memory."""


ALL: tuple[type[AnomalibMetric], ...] = (AUROC, F1Max, AveragePrecision, AUPRO)
