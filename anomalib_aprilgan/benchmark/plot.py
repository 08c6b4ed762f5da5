# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Latency against accuracy, as a picture."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from .summary import STREAMING, Group

PANELS = ("AUROC-cls", "AUROC-segm")
MARKERS = "os^Dv*Ph"
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:gray")


def plot_latency(groups: Sequence[Group], file: Path) -> bool:
    """Draw one point a dataset, method and setting; one row of panels a dataset.

    Returns:
        Whether there was anything to draw: without latencies or whole seeds there is no file.
    """
    points = pd.DataFrame([_point(group) for group in groups], columns=["dataset", "method", "shots", "ms", *PANELS])
    points = points.dropna(subset=["ms", PANELS[0]])
    if points.empty:
        return False
    styles = dict(zip(dict.fromkeys(points.method), cycle(zip(COLOURS, MARKERS, strict=True)), strict=False))
    datasets = list(dict.fromkeys(points.dataset))
    figure = Figure(figsize=(10, 0.6 + 3.2 * len(datasets)), layout="constrained")
    FigureCanvasAgg(figure)  # a canvas of its own: no window, and pyplot's state is left alone
    all_axes = figure.subplots(len(datasets), len(PANELS), squeeze=False)
    for dataset, axes_of_dataset in zip(datasets, all_axes, strict=True):
        for column, axes in zip(PANELS, axes_of_dataset, strict=True):
            _draw(axes, points[points.dataset == dataset].dropna(subset=[column]), column, styles)
            axes.set_title(dataset)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    title = "Beside each point: number of reference images"
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), title=title)
    figure.savefig(file, dpi=100)
    return True


def _point(group: Group) -> dict[str, object]:
    by_seed = group.by_seed(STREAMING)[list(PANELS)]
    names = {"dataset": group.first.dataset_name, "method": group.first.method_name, "shots": str(group.first.shots)}
    return {**names, "ms": group.rows.ms_median_batch_1.median(), **by_seed.mean()}


def _draw(axes: Axes, points: pd.DataFrame, column: str, styles: dict[str, tuple[str, str]]) -> None:
    axes.set(xlabel="ms an image, batch 1 (median)", ylabel=f"{column} (%)", xscale="log")
    if points.empty:
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"no {column}", transform=axes.transAxes, ha="center")
        return
    axes.margins(0.1)
    axes.grid(visible=True, alpha=0.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    for method, (colour, marker) in styles.items():
        chosen = points[points.method == method]
        if len(chosen):
            axes.scatter(chosen.ms, chosen[column], color=colour, marker=marker, label=method)
        for point in chosen.to_dict("records"):
            place = (point["ms"], point[column])
            axes.annotate(point["shots"], place, (5, -3), textcoords="offset points", fontsize="small")
