# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import F1AdaptiveThreshold
from hypothesis import given
from sklearn.metrics import f1_score

from anomalib_aprilgan.detection.thresholds import MiddleF1Threshold

FIELDS = ["pred_score", "gt_label"]


def threshold_of(metric_class, scores, labels) -> float:
    metric = metric_class(fields=FIELDS)
    for score, label in zip(scores, labels, strict=True):
        image = torch.zeros(1, 3, 2, 2)
        metric.update(ImageBatch(image=image, pred_score=torch.tensor([score]), gt_label=torch.tensor([label])))
    return metric.compute().item()


@pytest.mark.parametrize(
    ("scores", "labels", "threshold"),
    [
        ([0.25, 0.75], [0, 1], 0.5),
        ([0.0, 0.25, 0.5, 1.0], [0, 0, 1, 1], 0.375),  # the gap next to the edge, not the widest
        ([0.25, 0.5, 0.5, 0.75], [0, 1, 0, 1], 0.375),  # both of the equal scores count as anomalous
        ([0.25, 0.5, 1.0], [1, 0, 1], 0.25),  # nothing is lower
        ([0.25, 0.75], [0, 0], 0.75),  # anomalib's: nothing seen is anomalous
        ([0.25, 0.75], [1, 1], 0.25),
    ],
)
def test_middle_of_the_gap(scores, labels, threshold):
    assert threshold_of(MiddleF1Threshold, scores, labels) == threshold


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_middle_of_what_several_processes_have_seen():
    metric = MiddleF1Threshold(fields=FIELDS)
    # torchmetrics leaves tensors instead of lists after it has gathered them.
    metric.preds, metric.target = torch.tensor([0.0, 0.25, 0.5, 1.0]), torch.tensor([0, 0, 1, 1])
    assert torch.equal(metric.compute(), torch.tensor(0.375))


def test_neighbouring_numbers_have_no_middle():
    lower = np.float32(0.3)
    upper = np.nextafter(lower, np.float32(1))
    assert threshold_of(MiddleF1Threshold, [float(lower), float(upper)], [0, 1]).hex() == float(upper).hex()


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=12))
def test_verdicts_on_these_images_are_those_of_anomalibs_threshold(images):
    scores, labels = np.array([score for score, _ in images]), [label for _, label in images]
    middle, edge = (threshold_of(metric, scores, labels) for metric in (MiddleF1Threshold, F1AdaptiveThreshold))
    assert middle <= edge
    assert ((scores >= middle) == (scores >= edge)).all()
    if any(labels):
        cuts = [f1_score(labels, scores >= cut) for cut in scores]
        assert f1_score(labels, scores >= middle) == pytest.approx(max(cuts))
