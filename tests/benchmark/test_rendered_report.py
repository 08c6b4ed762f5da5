# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The table on rendered products: columns, means, intervals and differences, from figures made by hand."""

from functools import partial

import numpy as np
import pytest
from anomalib.engine import Engine
from anomalib.metrics import AUPRO
from sklearn.metrics import roc_auc_score

from anomalib_aprilgan import AnomalyCLIP, AprilGAN
from anomalib_aprilgan.benchmark import rendered_products as report
from anomalib_aprilgan.benchmark.rendered_products import line_interval, measure, report_rendered_products
from anomalib_aprilgan.demo import RenderedProducts
from anomalib_aprilgan.demo.rendering import RENDERER

pytestmark = pytest.mark.filterwarnings("ignore")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


class TestInterval:
    """Lines are redrawn within their category, all columns alike."""

    def test_two_lines_of_one_category(self):
        # 0, 1/2 or 1, with the probabilities 1/4, 1/2 and 1/4.
        low, high = line_interval(np.array([[[0.0], [1.0]]]))
        assert (low.tolist(), high.tolist()) == ([0.0], [1.0])

    def test_differences_between_categories_are_no_chance(self):
        low, high = line_interval(np.array([[[0.2], [0.2]], [[0.8], [0.8]]]))
        assert low == pytest.approx([0.5])
        assert high == pytest.approx([0.5])

    def test_more_lines_make_it_narrower(self):
        few, many = (line_interval(np.tile([0.0, 1.0], lines)[None, :, None]) for lines in (2, 50))
        assert many[1] - many[0] == pytest.approx(2 * 1.96 * 0.5 / 10, abs=0.02)  # of a mean of 100 coins
        assert few[1] - few[0] > 3 * (many[1] - many[0])

    def test_lines_are_drawn_for_all_columns_alike(self):
        figures = np.random.default_rng(0).random((3, 5, 1))
        low, high = line_interval(np.concatenate([figures, figures + 0.1], axis=2))
        assert np.diff(low) == pytest.approx([0.1])
        assert np.diff(high) == pytest.approx([0.1])


class TestReport:
    """Who stands where."""

    @pytest.fixture(autouse=True)
    def _figures(self, monkeypatch):
        """AnomalyCLIP 0.1 ahead of zero-shot AprilGAN, which gets 0.5 and line by line 0.1 more."""

        def measured(category, seed, model, root):
            better = 0.1 if isinstance(model, AnomalyCLIP) else 0.2 * (model.k_shot > 0)
            return [0.5 + 0.1 * seed + better] * 3

        monkeypatch.setattr(report, "measure", measured)

    def test_one_method(self):
        head, _, coin, mean, interval = report_rendered_products(categories=["coin"], seeds=3).splitlines()
        names = ("image AUROC", "pixel AUROC", "AUPRO")
        assert cells(head) == ["category", *(f"AprilGAN, {name}, k={k}" for k in (0, 4) for name in names)]
        assert cells(coin) == ["coin", *["0.600"] * 3, *["0.800"] * 3]
        assert cells(mean) == ["**mean**", *["0.600"] * 3, *["0.800"] * 3]
        assert cells(interval) == ["95 % interval", *["0.500 to 0.700"] * 3, *["0.700 to 0.900"] * 3]

    def test_two_methods_and_how_far_one_is_ahead(self):
        arguments = {"categories": ["coin", "nut"], "seeds": 2, "methods": ["AprilGAN", "AnomalyCLIP"]}
        *table, _, difference = report_rendered_products(**arguments).splitlines()
        assert len(table) == 6
        assert sum(head.startswith("AnomalyCLIP") for head in cells(table[0])) == 3  # zero-shot only
        same = "+0.100 (+0.100 to +0.100)"
        assert difference == (f"AnomalyCLIP less AprilGAN, k=0: image AUROC {same}, pixel AUROC {same}, AUPRO {same}.")

    @pytest.mark.parametrize(
        "nothing", [{"seeds": 0}, {"categories": []}, {"shots": []}, {"methods": ["AnomalyCLIP"], "shots": [4]}]
    )
    def test_nothing_to_measure_is_refused(self, nothing):
        with pytest.raises(ValueError, match=r"seeds=.* leave nothing to measure\. Give at least one of each"):
            report_rendered_products(**nothing)

    def test_unknown_categories_are_refused_before_anything_is_measured(self, monkeypatch):
        monkeypatch.delattr(report, "measure")
        with pytest.raises(ValueError, match=r"category='coim' is unknown\. Choose one of grid"):
            report_rendered_products(categories=["nut", "coim"])


@pytest.mark.parametrize("kind", [AprilGAN, AnomalyCLIP])
def test_measured_are_raw_verdicts_of_a_product_line(kind, monkeypatch, tmp_path):
    small = partial(RenderedProducts, train_images=1, good_images=2, defective_images=2)
    monkeypatch.setattr(report, "RenderedProducts", small)
    figures = measure("coin", 3, kind(backbone="aprilgan-tiny", visualizer=False), tmp_path)
    assert len(figures) == 3
    assert all(0 <= figure <= 1 for figure in figures)
    assert figures[0] * 4 == round(figures[0] * 4)  # two good and two defective parts make four pairs
    assert [path.name for path in tmp_path.iterdir()] == [f"line3-{RENDERER}-224-1-2-2"]


def test_figures_stand_under_their_names(monkeypatch, tmp_path):
    small = partial(RenderedProducts, train_images=1, good_images=2, defective_images=2)
    monkeypatch.setattr(report, "RenderedProducts", small)
    model = AprilGAN("nut", backbone="aprilgan-tiny", visualizer=False)
    figures = dict(zip(report.METRICS, measure("nut", 3, model, tmp_path), strict=True))
    engine = Engine(default_root_dir=tmp_path, logger=False)
    (batch,) = engine.predict(model, datamodule=small("nut", root=tmp_path, seed=3))
    overlap = AUPRO(fields=["anomaly_map", "gt_mask"])
    overlap.update(batch)
    assert figures == {
        "image AUROC": pytest.approx(roc_auc_score(batch.gt_label, batch.pred_score), abs=1e-6),
        "pixel AUROC": pytest.approx(roc_auc_score(batch.gt_mask.ravel(), batch.anomaly_map.ravel()), abs=1e-3),
        "AUPRO": pytest.approx(overlap.compute().item(), abs=1e-2),
    }
    assert min(np.abs(np.diff(list(figures.values())))) > 0.02  # else it would not matter which is which
