# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Latency against accuracy, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .summary import STREAMING, Group

PANELS = ("AUROC-cls", "AUROC-segm")
MARKERS = "os^Dv*Ph"


def plot_latency(groups: Sequence[Group], file: Path) -> bool:
    """Draw one point a dataset, method and setting; one row of panels a dataset.

    Returns:
        Whether there was anything to draw: without latencies or whole seeds there is no file.
    """
    found = [
        {
            "dataset": group.first.dataset_name,
            "method": group.first.method_name,
            "setting": group.setting,
            "ms": group.rows.ms_median_batch_1.median(),
            **group.by_seed(STREAMING)[list(PANELS)].mean(),
        }
        for group in groups
    ]
    points = pd.DataFrame(found, columns=["dataset", "method", "setting", "ms", *PANELS])
    points = points.dropna(subset=["ms", PANELS[0]])
    if points.empty:
        return False
    datasets = list(dict.fromkeys(points.dataset))
    figure = Figure(figsize=(10, 4 * len(datasets)), layout="constrained")
    FigureCanvasAgg(figure)  # a canvas of its own: no window, and pyplot's state is left alone
    all_axes = figure.subplots(len(datasets), len(PANELS), squeeze=False)
    for dataset, axes_of_dataset in zip(datasets, all_axes, strict=True):
        for column, axes in zip(PANELS, axes_of_dataset, strict=True):
            chosen = points[points.dataset == dataset]
            for marker, (method, rows) in zip(
                MARKERS * len(chosen), chosen.groupby("method", sort=False), strict=False
            ):
                axes.scatter(rows.ms, rows[column], marker=marker, label=str(method))
                for row in rows.to_dict("records"):
                    axes.annotate(row["setting"], (row["ms"], row[column]), fontsize="x-small")
            axes.set(title=dataset, xlabel="ms an image, batch 1 (median)", ylabel=f"{column} (%)", xscale="log")
            axes.grid(visible=True, alpha=0.3)
        axes_of_dataset[0].legend()
    figure.savefig(file, dpi=120)
    return True
