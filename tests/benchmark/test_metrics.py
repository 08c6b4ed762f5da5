# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The paper's metrics against the authors' numbers, scikit-learn, and sums done by hand."""

import re
import tracemalloc

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO, create_anomalib_metric
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from anomalib_aprilgan.benchmark import COLUMNS, PublishedAUPRO, paper_metrics, ranking
from anomalib_aprilgan.benchmark.metrics_cost import compare
from anomalib_aprilgan.benchmark.ranking import rank
from anomalib_aprilgan.detection import blocks
from anomalib_aprilgan.detection.region_overlap import region_overlap

VARIANTS = ("separated", "noisy", "ties", "offset")
# The order of the authors' ``metric_names`` is that of the paper's columns.
NAMES = ["auroc_px", "f1_px", "ap_px", "aupro", "auroc_sp", "f1_sp", "ap_sp"]


@pytest.fixture
def arrays():
    """Two images of 4 x 4 pixels: a normal one, and one with two regions of different size."""
    maps = torch.arange(32.0).reshape(2, 4, 4) / 32
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[1, 3, 1:] = True
    masks[1, 0, 0] = True
    return {"masks": masks, "maps": maps, "labels": torch.tensor([0, 1]), "scores": torch.tensor([0.2, 0.7])}


class TestParity:
    """With the numbers that the authors' code printed."""

    @pytest.mark.parametrize("variant", VARIANTS)
    @pytest.mark.parametrize("mode", ["zero_shot", "few_shot"])
    @pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
    def test_every_variant(self, variant, mode, convert, golden_arrays):
        arrays = golden_arrays("metrics")
        scores = arrays[f"{variant}.image_prob" if mode == "zero_shot" else f"{variant}.few_shot_image_score"]
        given = (arrays["masks"], arrays[f"{variant}.maps"], arrays["labels"], scores)
        found = paper_metrics(*map(convert, given))
        assert list(arrays["metric_names"]) == NAMES
        assert list(found) == list(COLUMNS)
        assert list(found.values()) == pytest.approx(arrays[f"{variant}.{mode}"], abs=1e-6)
        printed = [f"{100 * value:.1f}" for value in found.values()]
        assert printed == list(arrays[f"{variant}.{mode}_table"])

    @pytest.mark.parametrize("mode", ["zero_shot", "few_shot"])
    def test_end_to_end(self, mode, golden_arrays):
        arrays = golden_arrays("endtoend")
        rows = []
        for position, name in enumerate(arrays["classes"]):
            chosen = arrays["cls_names"] == name
            given = ("gt_binary", f"{mode}.maps", "labels", f"{mode}.image_score")
            rows.append(list(paper_metrics(*(arrays[key][chosen] for key in given)).values()))
            assert rows[-1] == pytest.approx(arrays[f"{mode}.metrics"][position], abs=1e-6)
        table = [[f"{100 * value:.1f}" for value in row] for row in (*rows, np.mean(rows, axis=0))]
        assert table == arrays[f"{mode}.table"][:, 1:].tolist()


class TestRank:
    def assert_equals_scikit_learn(self, scores, positives):
        precision, recall, _ = precision_recall_curve(positives, scores)
        with np.errstate(invalid="ignore"):
            f1 = np.nanmax(2 * precision * recall / (precision + recall))
        expected = (roc_auc_score(positives, scores), f1, average_precision_score(positives, scores))
        assert rank(np.asarray(scores), np.asarray(positives)) == pytest.approx(expected, abs=1e-9)

    @given(
        st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40).filter(
            lambda pairs: len({truth for _, truth in pairs}) == 2
        ),
        st.integers(1, 8),
    )
    def test_any_scores_in_any_number_of_ranges(self, pairs, size):
        scores, positives = (np.array(values) for values in zip(*pairs, strict=True))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranking, "RANGE_SIZE", size)
            patch.setattr(ranking, "SAMPLE_SIZE", size)
            self.assert_equals_scikit_learn(scores.astype(np.float32) / 3, positives)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_many_scores_of_images(self, dtype, monkeypatch):
        monkeypatch.setattr(ranking, "RANGE_SIZE", 2**12)
        monkeypatch.setattr(ranking, "SAMPLE_SIZE", 2**8)
        generator = np.random.default_rng(0)
        positives = generator.random(30_000) < 0.1
        scores = generator.normal(positives).clip(-1, 2).astype(dtype)  # the ends are frequent
        found = rank(scores.reshape(3, 100, 100), positives.reshape(3, 100, 100))
        assert found == rank(scores, positives)
        self.assert_equals_scikit_learn(scores, positives)

    def test_neighbouring_floats_are_told_apart(self):
        scores = np.array([1, np.nextafter(1, 2)])
        assert rank(scores, np.array([False, True])).auroc == 1
        assert rank(scores.astype(np.float32), np.array([False, True])).auroc == pytest.approx(0.5)

    def test_frequent_score_is_counted_and_not_copied(self, monkeypatch):
        monkeypatch.setattr(ranking, "RANGE_SIZE", 100)
        monkeypatch.setattr(ranking, "SAMPLE_SIZE", 100)
        scores, positives = np.zeros(1000), np.arange(1000) % 4 == 0
        scores[:8] = np.arange(8)
        copied = []
        select = ranking._select
        monkeypatch.setattr(ranking, "_select", lambda *given: copied.append(select(*given)) or copied[-1])
        self.assert_equals_scikit_learn(scores, positives)
        assert sum(part.size for parts in copied for part in parts) == 7


class TestRegionOverlap:
    def test_by_hand(self):
        """Thresholds 0, 0.5, ..., 99.5; five normal pixels, one anomalous region of two pixels."""
        maps = np.array([[[0, 0, 0, 60, 50], [100, 40, 0, 0, 0]]], dtype=np.float32)
        masks = np.array([[[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]]])
        # False positive rates: 3/8 up to 39.5, 2/8 up to 59.5, 1/8 up to 99.5. Overlap is 1/2 below 50, else 0.
        # On the stretched axis, from (0, 0): at FPR 2/8 the overlap rises from 0 to 1/2, so the area has no width.
        assert region_overlap([(maps, masks)]) == 0
        maps[0, 0, 3] = 45  # now the region's pixel exceeds it, and a line goes from (0, 1/2) to (1, 1/2)
        # FPR 2/8 below 45 with 1/2; 1/8 from 45 to 99.5 with 1/2, at its far end 0, where the curve begins.
        assert region_overlap([(maps, masks)]) == pytest.approx(0.5)

    def test_regions_count_alike_and_touch_at_corners(self):
        maps = np.zeros((1, 6, 6), dtype=np.float32)
        masks = np.zeros((1, 6, 6), dtype=bool)
        masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 5, 5] = True  # the first two are one region
        maps[0, 1, 1] = maps[0, 5, 5] = 0.9
        maps[0, 3, 3], maps[0, 3, 0] = 1, 0.5  # two of 33 normal pixels
        # From 1/33 to 2/33 normal pixels: half of the one region and all of the other.
        assert region_overlap([(maps, masks)]) == pytest.approx(0.75)

    @pytest.mark.parametrize("maps", [np.ones((1, 2, 2)), np.array([[[0.0, 0], [0, 1]]])])
    def test_no_curve_is_told(self, maps, caplog):
        masks = np.array([[[False, False], [False, True]]])
        assert np.isnan(region_overlap([(maps, masks)]))
        assert "AUPRO as published is undefined" in caplog.text


class TestPublishedAUPRO:
    def test_batches_do_not_matter(self, golden_arrays):
        arrays = golden_arrays("metrics")
        metric = PublishedAUPRO()
        for part in (slice(0, 5), slice(5, 12)):
            metric.update(torch.from_numpy(arrays["noisy.maps"][part]), torch.from_numpy(arrays["masks"][part]))
        assert metric.compute() == pytest.approx(arrays["noisy.zero_shot"][3], abs=1e-6)
        metric.reset()
        with (
            pytest.raises(ValueError, match="All 0 values of masks are normal"),
            pytest.warns(UserWarning, match="before"),
        ):
            metric.compute()

    def test_anomalib_evaluates_with_it(self, golden_arrays):
        """Beside anomalib's own AUPRO, from the batches that a model gives."""
        arrays = golden_arrays("metrics")
        fields = ["anomaly_map", "gt_mask"]
        metrics = [kind(fields, "pixel_") for kind in (create_anomalib_metric(PublishedAUPRO), AUPRO)]
        maps, masks = torch.from_numpy(arrays["noisy.maps"]), torch.from_numpy(arrays["masks"]).bool()
        for part in (slice(0, 5), slice(5, 12)):
            batch = ImageBatch(
                image=torch.zeros(len(maps[part]), 3, 64, 64), anomaly_map=maps[part], gt_mask=masks[part]
            )
            for metric in metrics:
                metric.update(batch)
        published, theirs = (metric.compute().item() for metric in metrics)
        assert [metric.name for metric in metrics] == ["pixel_PublishedAUPRO", "pixel_AUPRO"]
        assert published == pytest.approx(arrays["noisy.zero_shot"][3], abs=1e-6)
        assert 0 < theirs < 1
        assert theirs != pytest.approx(published, abs=1e-6)

    @pytest.mark.parametrize("shape", [(2, 8, 8), (2, 1, 4, 4)])
    def test_masks_of_another_shape_are_refused_at_once(self, shape, arrays):
        with pytest.raises(ValueError, match=r"Shapes do not fit: maps \(2, 4, 4\), masks .*, masks resized to the"):
            PublishedAUPRO().update(arrays["maps"], torch.zeros(shape))

    def test_bad_maps_are_refused(self, arrays):
        metric = PublishedAUPRO()
        metric.update(arrays["maps"].log(), arrays["masks"])
        with pytest.raises(ValueError, match="maps hold 1 values that are NaN or infinite"):
            metric.compute()


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("masks", torch.zeros(2, 4, 4), "All 32 values of masks are normal: the metrics need pixels of both"),
            ("masks", torch.ones(2, 4, 4), "All 32 values of masks are anomalous"),
            ("masks", torch.rand(2, 4, 4), r"masks hold values besides 0 and 1, such as 0\.\d+\. Compare soft"),
            ("masks", 255 * torch.eye(4, dtype=torch.uint8).expand(2, 4, 4), "such as 255. .*: give masks == 255"),
            ("masks", torch.ones(2, 1, 4, 4), r"masks has the shape \(2, 1, 4, 4\), expected \(N, H, W\)"),
            ("masks", torch.eye(4).expand(3, 4, 4), "Shapes do not fit: masks"),
            ("labels", [0, 0], "All 2 values of labels are normal: the metrics need images of both kinds"),
            ("labels", [1, 1], "All 2 values of labels are anomalous"),
            ("labels", [0, 2], "labels hold values besides 0 and 1, such as 2"),
            ("labels", [0, 1, 1], "Shapes do not fit"),
            ("scores", [0.1, float("nan")], "scores hold 1 values that are NaN or infinite"),
            ("scores", torch.zeros(0), r"scores has the shape \(0,\)"),
            ("maps", torch.full((2, 4, 4), float("nan")), "maps hold 32 values that are NaN"),
            ("maps", torch.full((2, 4, 4), float("inf")), "maps hold 32 values that are NaN or infinite"),
        ],
    )
    def test_bad_input_is_refused(self, name, value, message, arrays):
        with pytest.raises(ValueError, match=message):
            paper_metrics(**{**arrays, name: value})

    def test_arguments_are_left_alone(self, arrays):
        before = {name: value.clone() for name, value in arrays.items()}
        paper_metrics(**arrays)
        assert all(torch.equal(arrays[name], before[name]) for name in arrays)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    def test_every_float_is_welcome(self, dtype, arrays):
        expected = paper_metrics(**arrays)  # multiples of 1/32 are exact in all of them
        assert paper_metrics(**{**arrays, "maps": arrays["maps"].to(dtype)}) == expected


def test_cost_is_measured_and_the_plain_computation_agrees():
    line = compare(images=6, image_size=40)
    assert re.fullmatch(
        r"6 images of 40 px: \S+ s, process at most \S+ GiB; plain: \S+ s, (\S+) times as long; "
        r"the numbers differ by (\de-\d\d) at most",
        line,
    )
    assert float(re.search(r"\de-\d\d", line).group()) < 1e-9
    assert "plain" not in compare(images=3, image_size=40, plain=False)


def test_memory_does_not_grow_with_the_number_of_images(monkeypatch):
    """Besides the arguments, as much for 60 images as for 20; a plain computation holds several copies."""
    for module, name in ((ranking, "RANGE_SIZE"), (blocks, "BLOCK_SIZE")):
        monkeypatch.setattr(module, name, 2**14)
    monkeypatch.setattr(ranking, "SAMPLE_SIZE", 2**8)
    peaks = []
    for images in (20, 60):
        generator = np.random.default_rng(0)
        maps = generator.random((images, 64, 64), dtype=np.float32)
        masks = maps + generator.random(maps.shape, dtype=np.float32) > 1.8
        labels = np.arange(images) % 2
        tracemalloc.start()
        paper_metrics(masks, maps, labels, generator.random(images))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] < maps.nbytes
    assert peaks[1] < 1.5 * peaks[0]
