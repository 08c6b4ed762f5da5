# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Seconds and memory of :func:`paper_metrics`, beside the plain computation with scikit-learn and scikit-image.

``python -m anomalib_aprilgan.benchmark.metrics_cost --images 83`` is a category of MVTec AD; ``--images 1725 --plain
false`` is all of it.
"""

import sys
import time

import numpy as np
from skimage.measure import label, regionprops
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from anomalib_aprilgan.detection.blocks import Array

from .metrics import paper_metrics
from .peak_memory import peak_host_memory


def compare(images: int = 20, image_size: int = 518, plain: bool = True) -> str:
    """Time both on generated maps: noise, higher in the one region that two of three images have.

    Args:
        images: How many.
        image_size: Side in pixels.
        plain: Whether to run the plain computation, too.

    Returns:
        One line.
    """
    generator = np.random.default_rng(0)
    maps = generator.random((images, image_size, image_size), dtype=np.float32)
    masks = np.zeros(maps.shape, dtype=np.bool_)
    labels = np.arange(images) % 3 > 0
    masks[labels, image_size // 5 : image_size // 3, image_size // 4 : image_size // 2] = True
    for scores, mask in zip(maps, masks, strict=True):
        scores[mask] += 0.3  # ours, and in place: a copy would count as the metrics' memory
    image_scores = generator.random(images) + labels
    start = time.perf_counter()
    found = paper_metrics(masks, maps, labels, image_scores)
    seconds = time.perf_counter() - start
    line = f"{images} images of {image_size} px: {seconds:.2f} s, process at most {peak_host_memory() / 2**30:.2f} GiB"
    if plain:
        start = time.perf_counter()
        expected = [*_plain_ranking(maps, masks), _plain_overlap(maps, masks), *_plain_ranking(image_scores, labels)]
        plain_seconds = time.perf_counter() - start
        line += f"; plain: {plain_seconds:.2f} s, {plain_seconds / seconds:.1f} times as long"
        difference = np.abs(np.subtract(list(found.values()), expected)).max()
        line += f"; the numbers differ by {difference:.0e} at most"
    return line


def _plain_ranking(scores: Array, positives: Array) -> list[float]:
    scores, positives = scores.ravel(), positives.ravel()
    precision, recall, _ = precision_recall_curve(positives, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return [roc_auc_score(positives, scores), f1.max(), average_precision_score(positives, scores)]


def _plain_overlap(maps: Array, masks: Array) -> float:
    """The definition of the curve, threshold by threshold."""
    regions = [regionprops(label(mask, connectivity=2)) for mask in masks]
    rates, overlaps = [], []
    for threshold in np.arange(maps.min(), maps.max(), (maps.max() - maps.min()) / np.float32(200)):
        exceeds = maps > threshold
        rates.append((exceeds & ~masks).sum() / (~masks).sum())
        parts = [
            exceeds[index][tuple(region.coords.T)].mean() for index, found in enumerate(regions) for region in found
        ]
        overlaps.append(np.mean(parts))
    counts = np.array(rates) < 0.3
    kept = np.array(rates)[counts]
    return float(auc((kept - kept.min()) / np.ptp(kept), np.array(overlaps)[counts]))


if __name__ == "__main__":
    from jsonargparse import auto_cli

    sys.stdout.write(f"{auto_cli(compare, as_positional=False)}\n")
