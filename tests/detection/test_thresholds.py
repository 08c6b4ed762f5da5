# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import logging

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import F1AdaptiveThreshold
from hypothesis import given
from sklearn.metrics import f1_score

from anomalib_aprilgan.detection.thresholds import MiddleF1Threshold, report

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


def test_good_parts_that_the_threshold_calls_defective_are_warned_of(caplog):
    # F1 is 6/7 where all count as anomalous, and 4/5 where the lower two do not.
    threshold = threshold_of(MiddleF1Threshold, [0.1, 0.2, 0.3, 0.4], [1, 0, 1, 1])
    assert threshold == pytest.approx(0.1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "1 of 1 normal images count as anomalous, 0 of 3 anomalous ones as normal" in record.message
    assert "Validate with more normal images" in record.message


@pytest.mark.parametrize(
    ("flagged", "anomalous", "level", "counts"),
    [
        ([0] * 6 + [1] * 5 + [0], [0] * 10 + [1] * 2, logging.INFO, "4 of 10 normal images count as anomalous, 1 of"),
        ([0] * 5 + [1] * 6 + [0], [0] * 10 + [1] * 2, logging.WARNING, "5 of 10 normal images count as anomalous, 1"),
        ([0] * 9 + [1] * 2, [0] * 9 + [1] * 2, logging.WARNING, "0 of 9 normal images count as anomalous, 0 of 2"),
        ([1, 1], [1, 1], logging.WARNING, "0 of 0 normal images count as anomalous, 0 of 2"),
    ],
)
def test_report_of_a_threshold(caplog, flagged, anomalous, level, counts):
    with caplog.at_level(logging.INFO):
        report(torch.tensor(flagged) == 1, torch.tensor(anomalous) == 1)
    (record,) = caplog.records
    assert record.levelno == level
    assert counts in record.message


def test_nothing_to_report_where_all_are_normal(caplog):
    with caplog.at_level(logging.INFO):
        report(torch.tensor([False, True]), torch.tensor([False, False]))
    assert not caplog.records
