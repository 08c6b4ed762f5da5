# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Area under the per-region overlap curve (AUPRO, PRO) as the paper reports it.

Differences to anomalib's AUPRO, after ``cal_pro_score`` in ``test.py`` of github.com/ByChelsea/VAND-APRIL-GAN: 200
thresholds instead of every score, and the curve ends at the last of them whose false positive rate is below 0.3, which
becomes 1 on an axis that is stretched, without interpolation.
"""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from sklearn.metrics import auc
from torchmetrics import Metric

from .blocks import Array, as_array, blocks, check_scores, check_truth

logger = logging.getLogger(__name__)

THRESHOLDS = 200
MAX_FALSE_POSITIVE_RATE = 0.3
EIGHT_NEIGHBOURS = np.ones((3, 3))


def region_overlap(batches: Sequence[tuple[Array, Array]]) -> float:
    """AUPRO as published.

    Args:
        batches: Maps (N, H, W), finite, and masks of the same shape, boolean or 0 and 1; both kinds of pixels occur.

    Returns:
        In [0, 1]; NaN, with a warning, if no two thresholds have different false positive rates below 0.3.
    """
    thresholds = _thresholds([maps for maps, _ in batches])
    overlaps = np.zeros(len(thresholds))
    false_positives = np.zeros(len(thresholds))
    regions = negatives = 0
    for scores, mask in _images(batches):
        normal = np.sort(scores[~mask])
        false_positives += len(normal) - np.searchsorted(normal, thresholds, side="right")
        negatives += len(normal)
        labels, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
        overlaps += _overlaps(scores[mask], labels[mask], thresholds)
        regions += count
    return _area(false_positives / negatives, overlaps / regions)


def _images(batches: Sequence[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    for maps, masks in batches:
        for block, truth in blocks(maps, masks):
            yield from zip(block, truth, strict=True)


def _thresholds(batches: Sequence[Array]) -> Array:
    """Those that ``numpy.arange`` gives for extremes and a step in float32.

    It rounds the second threshold to float32, too, and goes on in float64 with the distance of the first two.
    """
    extremes = [(block.min(), block.max()) for maps in batches for block, _ in blocks(maps, maps)]
    lowest = np.float32(min(low for low, _ in extremes))
    highest = np.float32(max(high for _, high in extremes))
    step = (highest - lowest) / np.float32(THRESHOLDS)
    if step == 0:
        return np.array([float(lowest)])
    distance = float(lowest + step) - float(lowest)
    return float(lowest) + distance * np.arange(np.ceil((highest - lowest) / step))


def _overlaps(scores: Array, labels: Array, thresholds: Array) -> Array:
    """Sum over the regions of an image of the part that exceeds each threshold, from (P,) anomalous pixels."""
    exceeded = np.searchsorted(thresholds, scores, side="left")  # by each pixel: that many of the lowest thresholds
    sizes = np.bincount(labels)
    parts = np.bincount(exceeded, weights=1 / sizes[labels], minlength=len(thresholds) + 1)
    return parts[::-1].cumsum()[::-1][1:]


def _area(false_positive_rates: Array, overlaps: Array) -> float:
    """Area below the curve's part that counts, from rates that fall with the thresholds."""
    counts = false_positive_rates < MAX_FALSE_POSITIVE_RATE
    rates = false_positive_rates[counts]
    if len(np.unique(rates)) < 2:
        logger.warning(
            "AUPRO as published is undefined: its %d thresholds have no two false positive rates below %s.",
            len(false_positive_rates),
            MAX_FALSE_POSITIVE_RATE,
        )
        return float("nan")
    return float(auc((rates - rates.min()) / np.ptp(rates), overlaps[counts]))


class PublishedAUPRO(Metric):
    """AUPRO as published, of a test set that comes in batches.

    The thresholds depend on all scores, so maps and masks are kept: 5 bytes a pixel.

    Example:
        >>> metric = PublishedAUPRO()
        >>> metric.update(torch.arange(16.0).reshape(1, 4, 4), torch.arange(16).reshape(1, 4, 4) > 12)
        >>> metric.compute()
        tensor(1.)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    maps: list[torch.Tensor] | torch.Tensor
    masks: list[torch.Tensor] | torch.Tensor

    def __init__(self) -> None:
        super().__init__(compute_on_cpu=True)
        self.add_state("maps", default=[], dist_reduce_fx="cat")
        self.add_state("masks", default=[], dist_reduce_fx="cat")

    def update(self, maps: torch.Tensor, masks: torch.Tensor) -> None:
        """Take a batch: maps (N, H, W), and masks of the same shape, boolean or 0 and 1.

        Raises:
            ValueError: If the shapes are others.
        """
        if maps.ndim != 3 or maps.shape != masks.shape:
            shapes = f"maps {tuple(maps.shape)}, masks {tuple(masks.shape)}"
            msg = f"Shapes do not fit: {shapes}. Expected (N, H, W) twice, masks resized to the maps."
            raise ValueError(msg)
        self.maps = [*self.maps, maps]
        self.masks = [*self.masks, masks]

    def compute(self) -> torch.Tensor:
        """AUPRO of all batches.

        Raises:
            ValueError: If maps hold NaN, masks are not binary, or there is one kind of pixels only.
        """
        batches = list(zip(_arrays(self.maps, "maps"), _arrays(self.masks, "masks"), strict=True))
        for maps, _ in batches:
            check_scores(maps, "maps")
        check_truth([masks for _, masks in batches], "masks", "pixels")
        return torch.tensor(region_overlap(batches), dtype=torch.float32)


def _arrays(batches: Sequence[torch.Tensor] | torch.Tensor, name: str) -> list[Array]:
    """Batches as arrays; after processes have exchanged theirs there is one tensor."""
    batches = [batches] if isinstance(batches, torch.Tensor) else batches
    return [as_array(batch, name, "N, H, W") for batch in batches]
