# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AprilGAN with the embedded small CLIP on rendered products.

``python -m anomalib_aprilgan.benchmark.rendered_products`` prints a table. Every number is the mean over product lines,
seeds 0, 1, ... of the data; a line's references, where there are any, are drawn with seed 0. The categories are by
default those that neither the CLIP nor its adapters have seen.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from anomalib.engine import Engine

from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.components.embedded import AUTO, BACKBONE
from anomalib_aprilgan.demo import RenderedProducts
from anomalib_aprilgan.demo.categories import HELD_OUT

logger = logging.getLogger(__name__)

METRICS = {"image AUROC": "image_AUROC", "pixel AUROC": "pixel_AUROC", "AUPRO": "pixel_AUPRO"}


def report_rendered_products(
    backbone: str = BACKBONE,
    adapters: str | None = AUTO,
    categories: Sequence[str] = HELD_OUT,
    shots: Sequence[int] = (0, 4),
    seeds: int = 5,
    root: Path = Path("datasets/RenderedProducts"),
) -> str:
    """Markdown table of AprilGAN's figures, a row a category and their mean.

    Args:
        backbone: Of AprilGAN, with its own settings.
        adapters: Trained adapters; null for none.
        categories: What to render.
        shots: Numbers of references; 0 is zero-shot.
        seeds: Product lines of each category.
        root: Folder for the pictures.
    """
    heads = [f"{metric}, k={k_shot}" for k_shot in shots for metric in METRICS]
    lines = [f"| category | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    rows = []
    for category in categories:
        runs = []
        for seed in range(seeds):
            models = [AprilGAN(k_shot=k, backbone=backbone, adapters=adapters, visualizer=False) for k in shots]
            runs.append([figure for model in models for figure in measure(category, seed, model, root)])
        rows.append(np.mean(runs, axis=0))
        lines.append(_row(category, rows[-1]))
        logger.info(lines[-1])
    return "\n".join([*lines, _row("**mean**", np.mean(rows, axis=0))]) + "\n"


def measure(category: str, seed: int, model: AprilGAN, root: Path) -> list[float]:
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


def _row(name: str, figures: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    return f"| {name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def main(args: list[str] | None = None) -> None:
    """Run :func:`report_rendered_products` from the command line."""
    from jsonargparse import auto_cli

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("anomalib", "anomalib_aprilgan.april_gan", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    sys.stdout.write(auto_cli(report_rendered_products, args=args))


if __name__ == "__main__":
    main()
