# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Scores of any number of pixels in bounded memory, for metrics that depend on their order only.

The sketch holds different scores in ascending order, and what lies at each: normal pixels, anomalous pixels and the
overlap with regions. When there are too many scores, neighbours are merged into cells of at most 1/CELLS of all normal
plus 1/CELLS of all anomalous pixels; a score that holds more keeps a cell of its own. So no point of a curve is off by
more than that, and few pixels are kept exactly.
"""

from typing import NamedTuple

import torch

CELLS = 2**17


class ScoreSketch(NamedTuple):
    """What lies at K scores.

    Attributes:
        scores (torch.Tensor): Different scores, ascending, float32, (K,); of a cell it is the highest.
        weights (torch.Tensor): Normal pixels, anomalous pixels, and overlap with regions, float64, (K, 3).
    """

    scores: torch.Tensor
    weights: torch.Tensor


def sketch(scores: torch.Tensor, positives: torch.Tensor, overlaps: torch.Tensor | None = None) -> ScoreSketch:
    """Sketch of some pixels.

    Args:
        scores (torch.Tensor): Of any shape.
        positives (torch.Tensor): Of the same shape; true for anomalous pixels.
        overlaps (torch.Tensor | None): The part of its region that each pixel is, of the same shape; 0 outside.

    Raises:
        ValueError: If a score is NaN.
    """
    scores, positives = scores.flatten().float(), positives.flatten().bool()
    if unordered := int(scores.isnan().sum()):
        msg = f"{unordered} of {scores.numel()} scores are NaN, which have no order. Look for the image that gave them."
        raise ValueError(msg)
    extra = torch.zeros_like(scores) if overlaps is None else overlaps.flatten()
    weights = torch.stack([(~positives).double(), positives.double(), extra.double()], dim=1)  # (P, 3)
    return merge([ScoreSketch(scores, weights)])


def merge(parts: list[ScoreSketch]) -> ScoreSketch:
    """One sketch of several; their scores need not be in order."""
    scores, order = torch.cat([part.scores for part in parts]).sort()
    weights = torch.cat([part.weights for part in parts])[order]
    is_last = torch.ones_like(scores, dtype=torch.bool)
    is_last[:-1] = scores[1:] != scores[:-1]
    merged = _join(scores, weights, is_last)
    return _compress(merged) if len(merged.scores) > 2 * CELLS else merged


def _compress(full: ScoreSketch) -> ScoreSketch:
    pixels = full.weights[:, :2]
    shares = (pixels / pixels.sum(dim=0).clamp(min=1)).sum(dim=1)  # of each kind of pixels
    ends = shares.cumsum(dim=0) * CELLS
    first, last = (ends - shares * CELLS).floor(), ends.floor()  # the cells that a score begins and ends in
    is_alone = first != last
    is_last = torch.ones_like(is_alone)
    is_last[:-1] = is_alone[:-1] | is_alone[1:] | (first[1:] != first[:-1])
    return _join(full.scores, full.weights, is_last)


def _join(scores: torch.Tensor, weights: torch.Tensor, is_last: torch.Tensor) -> ScoreSketch:
    """Put neighbours together, up to each that is the last of its cell."""
    cell = is_last.cumsum(dim=0) - is_last.long()
    sums = weights.new_zeros(int(is_last.sum()), weights.shape[1]).index_add(0, cell, weights)
    return ScoreSketch(scores[is_last], sums)
