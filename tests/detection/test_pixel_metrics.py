# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Metrics of pixels: those of anomalib and scikit-learn, in bounded memory."""

import numpy as np
import pytest
import torch
from anomalib import metrics as anomalib_metrics
from anomalib.data import ImageBatch
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_aprilgan.components import score_sketch
from anomalib_aprilgan.components.score_sketch import ScoreSketch, merge, sketch
from anomalib_aprilgan.detection import evaluation, pixel_metrics

FIELDS = {"fields": ["anomaly_map", "gt_mask"], "prefix": "pixel_", "strict": False}


def batches(number=6, size=40):
    """Maps in [0, 1] with ties and a wide range, and masks with some regions; the first images are normal."""
    generator = torch.Generator().manual_seed(0)
    for index in range(number):
        masks = torch.zeros(2, size, size, dtype=torch.bool)
        if index > 1:
            masks[0, 2:9, 3 : 5 + index] = masks[0, 20:22, 20:22] = masks[1, index, index] = True
        maps = 0.7 * torch.rand(2, size, size, generator=generator) ** 4 + 0.3 * masks
        yield ImageBatch(image=torch.zeros(2, 3, size, size), anomaly_map=(maps * 5000).round() / 5000, gt_mask=masks)


def measure(metric, given):
    for batch in given:
        metric.update(batch)
    return float(metric.compute())


@pytest.mark.parametrize("cells", [2**17, 2**12])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pixel_metrics.AUROC, anomalib_metrics.AUROC),
        (pixel_metrics.F1Max, evaluation.F1Max),
        (pixel_metrics.AveragePrecision, evaluation.AveragePrecision),
        (pixel_metrics.AUPRO, anomalib_metrics.AUPRO),
    ],
)
def test_values_and_names_are_anomalibs(ours, theirs, cells, monkeypatch):
    monkeypatch.setattr(score_sketch, "CELLS", cells)
    metric, expected = ours(**FIELDS), theirs(**FIELDS)
    assert metric.name == expected.name
    assert measure(metric, batches()) == pytest.approx(
        measure(expected, batches()), abs=2e-6 if cells > 2**12 else 5e-4
    )
    metric.reset()
    assert measure(metric, batches(3)) == pytest.approx(measure(theirs(**FIELDS), batches(3)), abs=5e-4)


@pytest.mark.parametrize("metric", pixel_metrics.ALL)
def test_without_masks_there_is_nothing_to_log(metric):
    without = ImageBatch(image=torch.zeros(1, 3, 4, 4), anomaly_map=torch.rand(1, 4, 4))
    measured = metric(**FIELDS)
    measured.update(without)
    assert measured.compute() is None


@pytest.mark.parametrize("metric", pixel_metrics.ALL)
def test_one_kind_of_pixels_is_told(metric, caplog):
    assert np.isnan(measure(metric(**FIELDS), batches(2)))
    assert f"pixel_{metric.__name__} is undefined: there are 6400 normal and 0 anomalous pixels." in caplog.text


def test_other_processes_sketches_count():
    """After processes have exchanged their states there is one tensor, not in order."""
    whole, *parts = (pixel_metrics.AUROC(**FIELDS) for _ in range(3))
    expected = measure(whole, batches())
    given = list(batches())
    measure(parts[0], given[:3]), measure(parts[1], given[3:])
    parts[0].scores = torch.cat([part.scores[0] for part in parts])
    parts[0].weights = torch.cat([part.weights[0] for part in parts])
    parts[0]._computed = None
    assert float(parts[0].compute()) == pytest.approx(expected, abs=1e-6)


class TestSketch:
    def test_equal_scores_are_one(self):
        found = sketch(torch.tensor([0.5, 0.1, 0.5, 0.5]), torch.tensor([True, False, False, True]))
        assert found.scores.tolist() == pytest.approx([0.1, 0.5])
        assert found.weights.tolist() == [[1, 0, 0], [1, 2, 0]]

    def test_nothing_is_lost_and_no_cell_is_large(self, monkeypatch):
        monkeypatch.setattr(score_sketch, "CELLS", 50)
        generator = torch.Generator().manual_seed(0)
        whole = None
        for _ in range(40):
            scores = torch.rand(1000, generator=generator)
            new = sketch(scores.where(scores < 0.9, 1.0), scores > 0.95, scores)
            whole = new if whole is None else merge([whole, new])
        assert len(whole.scores) <= 101
        assert torch.equal(whole.scores, whole.scores.sort().values)
        assert whole.weights[:, :2].sum() == 40_000
        shares = whole.weights[:-1, :2] / whole.weights[:, :2].sum(dim=0)
        assert shares.sum(dim=1).max() <= 1 / 50 + 1e-9  # all but the frequent score, which is the last
        assert whole.scores[-1] == 1
        assert 3800 < whole.weights[-1, :2].sum() < 4400

    def test_rare_anomalies_are_told_apart(self, monkeypatch):
        """One in a thousand pixels is anomalous, and all maps lie within a thousandth of each other."""
        monkeypatch.setattr(score_sketch, "CELLS", 2**12)
        generator = torch.Generator().manual_seed(0)
        positives = torch.rand(300_000, generator=generator) < 0.001
        scores = 0.5 + 1e-3 * (torch.rand(300_000, generator=generator) + 0.9 * positives)
        whole = None
        for part, truth in zip(scores.split(20_000), positives.split(20_000), strict=True):
            new = sketch(part, truth)
            whole = new if whole is None else merge([whole, new])
        weights = whole.weights.flip(0)
        assert float(pixel_metrics.AUROC(**FIELDS)._compute(weights)) == pytest.approx(
            roc_auc_score(positives, scores), abs=1e-5
        )
        assert float(pixel_metrics.AveragePrecision(**FIELDS)._compute(weights)) == pytest.approx(
            average_precision_score(positives, scores), abs=1e-3
        )
        assert len(whole.scores) <= 2**13 + 1

    def test_nan_is_refused(self):
        with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
            sketch(torch.tensor([0.1, float("nan")]), torch.tensor([True, False]))

    def test_parts_need_not_be_in_order(self):
        parts = [ScoreSketch(torch.tensor([0.9, 0.1]), torch.eye(3)[:2].double())] * 2
        assert merge(parts).weights.tolist() == [[0, 2, 0], [2, 0, 0]]


def test_threshold_is_anomalibs():
    ours, theirs = pixel_metrics.F1Threshold(**FIELDS), anomalib_metrics.F1AdaptiveThreshold(**FIELDS)
    assert not ours.has_anomalies
    assert measure(ours, batches()) == measure(theirs, batches())
    assert ours.has_anomalies


@pytest.mark.parametrize(("label", "expected", "message"), [(0, 0.75, "No anomalous pixel"), (1, 0.25, "No normal")])
def test_threshold_of_one_class_is_at_its_edge(label, expected, message, caplog):
    maps = torch.tensor([[[0.25, 0.5], [0.5, 0.75]]])
    batch = ImageBatch(
        image=torch.zeros(1, 3, 2, 2), anomaly_map=maps, gt_mask=torch.full((1, 2, 2), label, dtype=torch.bool)
    )
    assert measure(pixel_metrics.F1Threshold(**FIELDS), [batch]) == expected
    assert message in caplog.text


def test_threshold_needs_the_same_memory_for_any_number_of_images(monkeypatch):
    monkeypatch.setattr(score_sketch, "CELLS", 64)
    metric = pixel_metrics.F1Threshold(**FIELDS)
    measure(metric, batches(40))
    assert metric.scores[0].numel() <= 4 * 64
