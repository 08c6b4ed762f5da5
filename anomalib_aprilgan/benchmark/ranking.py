# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AUROC, F1-max and average precision of any number of scores, exact, in bounded memory.

All three depend on the order of the scores only, and change at the scores of positives only. So the scores are taken
range by range, from the highest down; each range is sorted by itself, and carries over two numbers: how many positives
and negatives lie above it.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from anomalib_aprilgan.detection.blocks import Array, blocks

Score: TypeAlias = np.floating[Any]
# Scores a range, about: what is copied and sorted at a time.
RANGE_SIZE = 2**24
# Scores a range from which its bounds are estimated.
SAMPLE_SIZE = 2**10


class Ranking(NamedTuple):
    """How well scores separate positives from negatives, all in [0, 1].

    Attributes:
        auroc (float): Area under the receiver operating characteristic; ties count half.
        f1_max (float): Largest F1 over all thresholds.
        average_precision (float): Sum of precision times gain of recall, without interpolation, as in scikit-learn.
    """

    auroc: float
    f1_max: float
    average_precision: float


class _Range(NamedTuple):
    """What lies in a range of scores: for its different positive scores, ascending, counts of scores in the range."""

    positives_at: Array
    negatives_below: Array
    negatives_up_to: Array
    positives: int
    negatives: int


def rank(scores: Array, positives: Array) -> Ranking:
    """Judge scores.

    Args:
        scores: (N, ...), finite.
        positives: Of the same shape, boolean or 0 and 1, with at least one of each.

    Example:
        >>> rank(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
        Ranking(auroc=0.75, f1_max=0.8, average_precision=0.8333333333333333)
    """
    total = int(np.count_nonzero(positives))
    rest = scores.size - total
    true_above = false_above = doubled_pairs = 0
    f1_max = precision_sum = 0.0
    for low, high in _ranges(scores):
        found = _look_into(scores, positives, low, high)
        if found.positives:
            true = true_above + found.positives_at[::-1].cumsum()[::-1]  # positives that reach a score
            false = false_above + found.negatives - found.negatives_below
            below = rest - false_above - found.negatives  # negatives below the whole range
            ties_twice = found.negatives_below + found.negatives_up_to
            doubled_pairs += int((found.positives_at * (2 * below + ties_twice)).sum())
            f1_max = max(f1_max, float((2 * true / (true + false + total)).max()))
            precision_sum += float((found.positives_at * (true / (true + false))).sum())
        true_above += found.positives
        false_above += found.negatives
    return Ranking(doubled_pairs / (2 * total * rest), f1_max, precision_sum / total)


def _ranges(scores: Array) -> list[tuple[Score, Score]]:
    """Half-open ranges from the highest down that hold about as many scores each; a frequent score has its own."""
    count = -(-scores.size // RANGE_SIZE)
    stride = max(1, RANGE_SIZE // SAMPLE_SIZE)
    sample = np.concatenate([block.reshape(-1)[::stride] for block, _ in blocks(scores, scores)])
    sample.sort()
    cuts, repeats = np.unique(sample[np.arange(1, count) * len(sample) // count], return_counts=True)
    bounds = [cuts, _next(cuts[repeats > 1]), np.array([-np.inf, np.inf], dtype=sample.dtype)]
    edges = np.unique(np.concatenate(bounds))
    return list(pairwise(edges))[::-1]


def _next(scores: Array | Score) -> Array:
    return np.asarray(np.nextafter(scores, np.asarray(np.inf, dtype=scores.dtype)))


def _look_into(scores: Array, positives: Array, low: Score, high: Score) -> _Range:
    """Count, in the range from ``low`` to ``high``, which it does not include."""
    if _next(low) == high:  # a single score, perhaps of most of the pixels
        true = false = 0
        for block, truth in blocks(scores, positives):
            both = int(np.count_nonzero(block == low))
            true += int(np.count_nonzero((block == low) & truth))
            false += both
        false -= true
        return _Range(np.array([true]), np.array([0]), np.array([false]), true, false)
    kinds = _select(scores, positives, low, high)
    for kind in kinds:
        kind.sort()
    true_scores, false_scores = kinds
    starts = np.flatnonzero(np.diff(true_scores, prepend=-np.inf))  # of runs of equal scores
    return _Range(
        positives_at=np.diff(starts, append=len(true_scores)),
        negatives_below=np.searchsorted(false_scores, true_scores[starts], side="left"),
        negatives_up_to=np.searchsorted(false_scores, true_scores[starts], side="right"),
        positives=len(true_scores),
        negatives=len(false_scores),
    )


def _select(scores: Array, positives: Array, low: Score, high: Score) -> tuple[Array, Array]:
    """Copies of the scores in a range: of positives, of negatives."""
    true, false = zip(*_select_by_block(scores, positives, low, high), strict=True)
    return np.concatenate(true), np.concatenate(false)


def _select_by_block(scores: Array, positives: Array, low: Score, high: Score) -> Iterator[tuple[Array, Array]]:
    for block, truth in blocks(scores, positives):
        inside = (block >= low) & (block < high)
        yield block[inside & truth], block[inside & ~truth]
