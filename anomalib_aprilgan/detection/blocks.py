# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Scores and their truth, looked at a few images at a time: a whole test set of maps is there once, never twice."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Array: TypeAlias = npt.NDArray[Any]

# Values a block, if an image has fewer.
BLOCK_SIZE = 2**22


def as_array(values: Array | torch.Tensor | Sequence[float], name: str, dimensions: str) -> Array:
    """A tensor or array-like as an array with the dimensions that a name such as ``N, H, W`` counts.

    Raises:
        ValueError: If it has others, or holds nothing.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        array = (values.float() if values.dtype is torch.bfloat16 else values).numpy()  # NumPy has no bfloat16
    else:
        array = np.asarray(values)
    if array.ndim != len(dimensions.split(",")) or array.size == 0:
        msg = f"{name} has the shape {array.shape}, expected ({dimensions}) with at least one element."
        raise ValueError(msg)
    return array


def blocks(scores: Array, positives: Array) -> Iterator[tuple[Array, Array]]:
    """Pieces along the first axis: scores, as float32 or float64, and whether they are of anomalies.

    Args:
        scores: (N, ...), any real numbers.
        positives: Of the same shape, boolean or 0 and 1.
    """
    step = max(1, BLOCK_SIZE * len(scores) // scores.size)
    wanted = np.float32 if scores.dtype == np.float16 else np.float64
    dtype = scores.dtype if scores.dtype in {np.dtype(np.float32), np.dtype(np.float64)} else np.dtype(wanted)
    for start in range(0, len(scores), step):
        piece = slice(start, start + step)
        yield np.asarray(scores[piece], dtype=dtype), np.asarray(positives[piece] != 0)


def check_scores(scores: Array, name: str) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: If there are any; it counts them.
    """
    wrong = sum(int(np.count_nonzero(~np.isfinite(block))) for block, _ in blocks(scores, scores))
    if wrong:
        msg = f"{name} hold {wrong} values that are NaN or infinite, expected finite numbers: repair the model first."
        raise ValueError(msg)


def check_truth(batches: Sequence[Array], name: str, rarity: str) -> None:
    """Refuse truth that is not binary, or of one class only.

    Args:
        batches: All of the truth.
        name: What it is called.
        rarity: Of what there must be both kinds.

    Raises:
        ValueError: If it is.
    """
    for piece in (piece for batch in batches for piece in np.array_split(batch, len(batch))):
        if piece.dtype != np.bool_:
            _check_binary(piece, name)
    positives = sum(int(np.count_nonzero(batch)) for batch in batches)
    size = sum(batch.size for batch in batches)
    if positives in {0, size}:
        kind = "anomalous" if positives else "normal"
        msg = f"All {size} values of {name} are {kind}: the metrics need {rarity} of both kinds."
        raise ValueError(msg)


def _check_binary(truth: Array, name: str) -> None:
    others = truth[(truth != 0) & (truth != 1)]
    if not others.size:
        return
    of_files = f"Image files have 255 for 1: give {name} == 255."
    remedy = of_files if (others == 255).all() else "Compare soft masks with 0.5 first, as the authors do."
    msg = f"{name} hold values besides 0 and 1, such as {others[0]:g}. {remedy}"
    raise ValueError(msg)
