# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Latency against accuracy, as a picture."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox, BboxBase

from .summary import STREAMING, Group

PANELS = ("AUROC-cls", "AUROC-segm")
MARKERS = "os^Dv*Ph"
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:gray")
# Where a label may stand beside its point, the best place first: directions, near by and farther away.
ALIGNMENTS = {-1: ("right", "top"), 0: ("center", "center"), 1: ("left", "bottom")}
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
PLACES = [(points, *direction) for points in (5, 12) for direction in DIRECTIONS]
MARKER_PIXELS = 8


def plot_latency(groups: Sequence[Group], file: Path) -> bool:
    """Draw one point a dataset, method and setting; one row of panels a dataset.

    Returns:
        Whether there was anything to draw: without latencies or whole seeds there is no file.
    """
    points = pd.DataFrame([_point(group) for group in groups], columns=["dataset", "method", "shots", "ms", *PANELS])
    points = points.dropna(subset=["ms", PANELS[0]])
    if points.empty:
        return False
    draw_latency(points).savefig(file)
    return True


def draw_latency(points: pd.DataFrame) -> Figure:
    """The picture of at least one point.

    Args:
        points: ``dataset``, ``method``, ``shots`` as text, ``ms`` an image, and the columns of the panels in percent.
    """
    styles = dict(zip(dict.fromkeys(points.method), cycle(zip(COLOURS, MARKERS, strict=True)), strict=False))
    datasets = list(dict.fromkeys(points.dataset))
    figure = Figure(figsize=(10, 0.6 + 3.2 * len(datasets)), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)  # a canvas of its own: no window, and pyplot's state is left alone
    all_axes = figure.subplots(len(datasets), len(PANELS), squeeze=False)
    for dataset, axes_of_dataset in zip(datasets, all_axes, strict=True):
        for column, axes in zip(PANELS, axes_of_dataset, strict=True):
            _draw(axes, points[points.dataset == dataset].dropna(subset=[column]), column, styles)
            axes.set_title(dataset)
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    title = "Beside each point: number of reference images"
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), title=title)
    figure.draw_without_rendering()  # sizes are settled then, which tell where there is room for labels
    for dataset, axes_of_dataset in zip(datasets, all_axes, strict=True):
        for column, axes in zip(PANELS, axes_of_dataset, strict=True):
            _label(axes, points[points.dataset == dataset].dropna(subset=[column]), column, styles)
    return figure


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
            axes.scatter(chosen.ms, chosen[column], color=colour, marker=marker, label=method, clip_on=False, zorder=3)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), min(high, 100))


def _label(axes: Axes, points: pd.DataFrame, column: str, styles: dict[str, tuple[str, str]]) -> None:
    """Write the numbers of references beside the points, in their colours, where they cover least."""
    centres = axes.transData.transform(points[["ms", column]].to_numpy())
    taken: list[BboxBase] = [
        Bbox.from_bounds(*(centre - MARKER_PIXELS / 2), *[MARKER_PIXELS] * 2) for centre in centres
    ]
    for point in points.to_dict("records"):
        candidates = [
            axes.annotate(
                point["shots"],
                (point["ms"], point[column]),
                (distance * x, distance * y),
                textcoords="offset points",
                fontsize="small",
                color=styles[point["method"]][0],
                horizontalalignment=ALIGNMENTS[x][0],
                verticalalignment=ALIGNMENTS[y][1],
                in_layout=False,
            )
            for distance, x, y in PLACES
        ]
        boxes = [candidate.get_window_extent() for candidate in candidates]
        best = int(np.argmin([_hidden(box, taken, axes.bbox.padded(MARKER_PIXELS / 2)) for box in boxes]))
        taken.append(boxes[best])
        for candidate in (*candidates[:best], *candidates[best + 1 :]):
            candidate.remove()


def _hidden(box: BboxBase, taken: Sequence[BboxBase], room: BboxBase) -> float:
    """Pixels of a box that are taken or out of the room."""
    inside, *covered = (Bbox.intersection(box, other) for other in (room, *taken))
    return _area(box) - _area(inside) + sum(_area(each) for each in covered)


def _area(box: BboxBase | None) -> float:
    return 0.0 if box is None else float(box.width * box.height)
