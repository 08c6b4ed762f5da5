# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Variants of one model on the same images, in turns: what each costs in accuracy, and how fast it is."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from anomalib.data import AnomalibDataModule

from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.components.embedded import settings_of
from anomalib_aprilgan.demo import RenderedProducts
from anomalib_aprilgan.detection.blocks import Array

from .metrics import paper_metrics
from .turns import Pair, ratio_of
from .verdicts import masks_like

METRICS = ("AUROC-cls", "AUROC-segm", "PRO-segm")
HEADS = (
    "image AUROC",
    "pixel AUROC",
    "AUPRO",
    "maps differ by up to",
    "scores by up to",
    "time of an image",
    "quartiles",
)

# Images (1, 3, H, W) in [0, 1] -> score (1,) and map (1, S, S).
Predictor = Callable[[torch.Tensor], tuple[Array, Array]]


class Outcome(NamedTuple):
    """How a variant does on one category.

    Attributes:
        metrics (list[float]): Those of ``METRICS``, as fractions.
        map_differences (list[float]): Largest difference of a map's pixel to the first variant's, by image.
        score_difference (float): Largest difference of a score.
        pairs (list[Pair]): Seconds an image, and the first variant's.
    """

    metrics: list[float]
    map_differences: list[float]
    score_difference: float
    pairs: list[Pair]

    @property
    def map_difference(self) -> float:
        """Largest difference of all maps."""
        return max(self.map_differences)


def compare(data: AnomalibDataModule, predictors: Mapping[str, Predictor]) -> dict[str, Outcome]:
    """Judge the test images one by one, each with all variants; differences and times are to the first.

    Args:
        data: A datamodule that is set up, with masks.
        predictors: Variants by name.
    """
    verdicts: dict[str, list[tuple[Array, Array]]] = {name: [] for name in predictors}
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    items: list[Any] = [data.test_data[index] for index in range(len(data.test_data))]
    with torch.inference_mode():
        for item in [items[0], *items]:  # the first once more, to warm up
            for name, predictor in predictors.items():
                start = time.perf_counter()
                verdict = predictor(item.image[None])
                seconds[name].append(time.perf_counter() - start)
                verdicts[name].append(verdict)
    truth = torch.stack([item.gt_mask for item in items]), torch.stack([item.gt_label for item in items]).numpy()
    first = next(iter(predictors))
    return {
        name: _outcome(truth, verdicts[name][1:], verdicts[first][1:], seconds[name][1:], seconds[first][1:])
        for name in predictors
    }


def in_torch(model: AprilGAN) -> Predictor:
    """The model itself."""

    def predict(images: torch.Tensor) -> tuple[Array, Array]:
        verdict = model(images)
        return verdict.pred_score.numpy(), verdict.anomaly_map.numpy()

    return predict


def compare_settings(
    name: str,
    values: Sequence[Any],
    categories: Sequence[str],
    seeds: Sequence[int],
    k_shot: int,
    backbone: str,
    root: Path,
) -> dict[str, list[Outcome]]:
    """Compare AprilGAN with itself under several values of one of its arguments, on rendered products.

    Args:
        name: The argument.
        values: What it is set to; differences and times are to the first.
        categories: What to render.
        seeds: Product lines of each category.
        k_shot: Number of references.
        backbone: Of AprilGAN, with its own settings.
        root: Folder for the pictures.

    Returns:
        By value, an outcome of each product line.
    """
    outcomes: dict[str, list[Outcome]] = {f"{value}": [] for value in values}
    for category, seed in product(categories, seeds):
        data = RenderedProducts(category, root=root, seed=seed, image_size=settings_of(backbone).image_size)
        data.prepare_data()
        data.setup()
        predictors = {}
        for value in values:
            arguments: dict[str, Any] = {"backbone": backbone, name: value, "evaluator": False, "visualizer": False}
            model = AprilGAN(category, k_shot, data.folder / "train" / "good", **arguments)
            model.setup("predict")
            predictors[f"{value}"] = in_torch(model.eval())
        for variant, outcome in compare(data, predictors).items():
            outcomes[variant].append(outcome)
    return outcomes


def _outcome(
    truth: tuple[torch.Tensor, Array],
    own: Sequence[tuple[Array, Array]],
    first: Sequence[tuple[Array, Array]],
    seconds: Sequence[float],
    first_seconds: Sequence[float],
) -> Outcome:
    masks, labels = truth
    (scores, maps), (first_scores, first_maps) = (
        map(np.concatenate, zip(*judged, strict=True)) for judged in (own, first)
    )
    metrics = paper_metrics(masks_like(masks, torch.from_numpy(maps)).numpy(), maps, labels, scores)
    return Outcome(
        [metrics[name] for name in METRICS],
        np.abs(maps - first_maps).max(axis=(1, 2)).tolist(),
        float(np.abs(scores - first_scores).max()),
        [Pair(*pair) for pair in zip(seconds, first_seconds, strict=True)],
    )


def render(title: str, outcomes: Mapping[str, Iterable[Outcome]]) -> str:
    """Markdown table of a row a variant: mean metrics, largest differences and median time over all categories."""
    lines = [f"| {title} | {' | '.join(HEADS)} |", f"| --- |{' --- |' * len(HEADS)}"]
    for name, of_categories in outcomes.items():
        known = list(of_categories)
        metrics = np.mean([outcome.metrics for outcome in known], axis=0)
        ratio = ratio_of([pair for outcome in known for pair in outcome.pairs])
        cells = [
            *(f"{metric:.3f}" for metric in metrics),
            f"{max(outcome.map_difference for outcome in known):.4f}",
            f"{max(outcome.score_difference for outcome in known):.4f}",
            f"{ratio.median:.2f}",
            f"{ratio.low:.2f} to {ratio.high:.2f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
