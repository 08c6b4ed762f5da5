# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Detectors with the embedded small CLIP on rendered products.

``python -m anomalib_aprilgan.benchmark.rendered_products`` prints a table. Every number is the mean over product lines,
seeds 0, 1, ... of the data; a line's references, where there are any, are drawn with seed 0. The categories are by
default those that neither the CLIP nor its trained parts have seen.

The 95 % intervals answer how far a mean would move with other product lines of these categories: 10,000 times, as many
lines are drawn with replacement within each category, the same for all methods, and the percentiles 2.5 and 97.5 are
taken. Images of one line have much in common, so lines are drawn, and not images.
"""

import logging
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule

from anomalib_aprilgan.anomaly_clip import AnomalyCLIP
from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.components.embedded import AUTO, BACKBONE
from anomalib_aprilgan.demo import RenderedProducts
from anomalib_aprilgan.demo.categories import HELD_OUT, check_category

from .console import print_report

logger = logging.getLogger(__name__)

Figures: TypeAlias = npt.NDArray[np.float64]
MethodName: TypeAlias = Literal["AprilGAN", "AnomalyCLIP"]

METRICS = {"image AUROC": "image_AUROC", "pixel AUROC": "pixel_AUROC", "AUPRO": "pixel_AUPRO"}
DRAWS = 10_000


def report_rendered_products(
    backbone: str = BACKBONE,
    adapters: str | None = AUTO,
    prompt_weights: str | None = AUTO,
    methods: Sequence[MethodName] = ("AprilGAN",),
    categories: Sequence[str] = HELD_OUT,
    shots: Sequence[int] = (0, 4),
    seeds: int = 5,
    root: Path = Path("datasets/RenderedProducts"),
) -> str:
    """Markdown table, a row a category, then their mean with its interval.

    Args:
        backbone: Of the methods, with its own settings.
        adapters: AprilGAN's trained adapters; null for none.
        prompt_weights: AnomalyCLIP's learned prompts.
        methods: What to compare; below the table stand the differences to the first one at the same k.
        categories: What to render.
        shots: Numbers of references; 0 is zero-shot. AnomalyCLIP is zero-shot always.
        seeds: Product lines of each category.
        root: Folder for the pictures.

    Raises:
        ValueError: If a category is unknown, or there is nothing to measure; before anything is measured.
    """
    builders: dict[str, Callable[[int], AnomalibModule]] = {
        "AprilGAN": lambda k: AprilGAN(k_shot=k, backbone=backbone, adapters=adapters, visualizer=False),
        "AnomalyCLIP": lambda _: AnomalyCLIP(backbone, prompt_weights=prompt_weights, visualizer=False),
    }
    columns = [(name, k) for name, k in product(methods, shots) if k == 0 or name != "AnomalyCLIP"]
    if seeds < 1 or not categories or not columns:
        msg = (
            f"seeds={seeds}, categories={list(categories)}, methods={list(methods)} and shots={list(shots)} leave "
            "nothing to measure. Give at least one of each, and AnomalyCLIP the shot 0."
        )
        raise ValueError(msg)
    for category in categories:
        check_category(category)
    heads = [f"{name}, {metric}, k={k}" for name, k in columns for metric in METRICS]
    lines = [f"| category | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    found: list[list[list[float]]] = []  # by category, line and column
    for category in categories:
        found.append([])
        for seed in range(seeds):
            models = [builders[name](k) for name, k in columns]
            found[-1].append([figure for model in models for figure in measure(category, seed, model, root)])
        lines.append(_row(category, np.mean(found[-1], axis=0)))
        logger.info(lines[-1])
    figures = np.array(found)  # (C, L, K)
    low, high = line_interval(figures)
    lines.append(_row("**mean**", figures.mean(axis=(0, 1))))
    lines.append(f"| 95 % interval | {' | '.join(_interval(*ends) for ends in zip(low, high, strict=True))} |")
    return "\n".join([*lines, *_differences(figures, columns)]) + "\n"


def measure(category: str, seed: int, model: AnomalibModule, root: Path) -> list[float]:
    """Metrics of one model on one product line, in the order of ``METRICS``, as fractions."""
    data = RenderedProducts(category, root=root, seed=seed)
    with TemporaryDirectory() as results:
        engine = Engine(
            default_root_dir=results,
            limit_val_batches=0,  # no threshold is needed
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        (figures,) = engine.test(model, datamodule=data, verbose=False)
    return [figures[name] for name in METRICS.values()]


def line_interval(figures: Figures) -> tuple[Figures, Figures]:
    """95 % percentile interval of means over categories and lines, under redrawing of the lines of each category.

    Args:
        figures: By category, line and column, (C, L, K).

    Returns:
        Lower and upper ends, (K,) each.
    """
    categories, lines, _ = figures.shape
    drawn = np.random.default_rng(0).integers(lines, size=(DRAWS, categories, lines))
    # Each draw weighs the lines by how often it has them.
    weights = (drawn[..., None] == np.arange(lines)).mean(axis=2)  # (DRAWS, C, L)
    means = np.einsum("dcl,clk->dk", weights, figures) / categories
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def _differences(figures: Figures, columns: Sequence[tuple[str, int]]) -> list[str]:
    """A line for each method but the first that has a column of the same k: how far it is ahead, with intervals."""
    lines = []
    size = len(METRICS)
    for place, (name, k) in enumerate(columns):
        first = columns.index((columns[0][0], k)) if (columns[0][0], k) in columns else place
        if first != place:
            ahead = figures[..., place * size : (place + 1) * size] - figures[..., first * size : (first + 1) * size]
            ends = zip(METRICS, ahead.mean(axis=(0, 1)), *line_interval(ahead), strict=True)
            said = [f"{metric} {mean:+.3f} ({low:+.3f} to {high:+.3f})" for metric, mean, low, high in ends]
            lines.append(f"\n{name} less {columns[first][0]}, k={k}: {', '.join(said)}.")
    return lines


def _interval(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"


def _row(name: str, figures: Figures) -> str:
    return f"| {name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def main(args: list[str] | None = None) -> None:
    """Run :func:`report_rendered_products` from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    own = ("anomalib_aprilgan.april_gan", "anomalib_aprilgan.detection")
    quiet = ("anomalib", "lightning.pytorch", "lightning_fabric", *own)
    print_report(report_rendered_products, args, quiet=quiet, level=logging.WARNING)


if __name__ == "__main__":
    main()
