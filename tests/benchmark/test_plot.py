# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Latency against accuracy: nothing above 100 %, labels that can be read."""

from itertools import combinations

import pandas as pd
import pytest
from matplotlib.transforms import Bbox

from anomalib_aprilgan.benchmark.plot import draw_latency


def points_of(*points):
    """Of one dataset: method, shots, ms, AUROC in percent, the same of images and pixels."""
    columns = ["dataset", "method", "shots", "ms", "AUROC-cls", "AUROC-segm"]
    return pd.DataFrame([("Photos", *point, point[-1]) for point in points], columns=columns)


@pytest.mark.parametrize(("value", "limits"), [(100.0, (90, 100)), (0.0, (0, 10))])
def test_axes_end_where_percentages_do(value, limits):
    for axes in draw_latency(points_of(("a", "0", 10.0, value), ("b", "1", 30.0, value))).axes:
        low, high = axes.get_ylim()
        assert limits[0] <= low < high <= limits[1]


def test_labels_of_points_close_together_do_not_overlap():
    near = [("a", "1", 10.0, 90.0), ("a", "2", 10.1, 90.1), ("a", "4", 10.2, 90.0), ("b", "full", 10.3, 90.2)]
    figure = draw_latency(points_of(*near, ("b", "0", 100.0, 50.0)))
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert sorted(text.get_text() for text in axes.texts) == ["0", "1", "2", "4", "full"]
        boxes = [text.get_window_extent() for text in axes.texts]
        assert not any(Bbox.intersection(*pair) for pair in combinations(boxes, 2))


def test_a_label_has_the_colour_of_its_point():
    axes = draw_latency(points_of(("a", "0", 10.0, 90.0), ("b", "1", 30.0, 95.0))).axes[0]
    assert [text.get_color() for text in axes.texts] == ["tab:blue", "tab:orange"]
