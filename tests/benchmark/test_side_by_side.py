# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Variants side by side: their metrics, differences and times are those of the images they saw."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anomalib_aprilgan import AprilGAN
from anomalib_aprilgan.benchmark import coreset, exports, precisions, side_by_side
from anomalib_aprilgan.benchmark.side_by_side import Outcome, compare, render
from anomalib_aprilgan.benchmark.turns import Pair
from anomalib_aprilgan.demo import RenderedProducts

pytestmark = pytest.mark.filterwarnings("ignore")


def data_of(*levels: float) -> SimpleNamespace:
    """Images of one grey level each; the second half of them is anomalous in its upper half."""
    items = []
    for index, level in enumerate(levels):
        mask = torch.zeros(8, 8, dtype=torch.bool)
        mask[:4] = index >= len(levels) / 2
        items.append(SimpleNamespace(image=torch.full((3, 8, 8), level), gt_label=mask.any(), gt_mask=mask))
    return SimpleNamespace(test_data=items)


def brightness(offset: float = 0.0, sign: float = 1.0):
    def predict(images):
        level = sign * images.mean(dim=1).numpy() + offset
        return level.max(axis=(1, 2)), level

    return predict


def test_metrics_and_differences_are_to_the_first(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(side_by_side.time, "perf_counter", lambda: float(next(ticks)))
    variants = {"exact": brightness(), "moved": brightness(0.25), "inverse": brightness(sign=-1.0)}
    outcomes = compare(data_of(0.0, 0.1, 0.8, 0.9), variants)
    exact, moved, inverse = outcomes.values()
    assert (exact.map_difference, exact.score_difference) == (0.0, 0.0)
    assert (moved.map_difference, moved.score_difference) == (0.25, 0.25)
    assert inverse.map_differences == pytest.approx([0.0, 0.2, 1.6, 1.8])
    assert inverse.map_difference == pytest.approx(1.8)
    assert [outcome.metrics[0] for outcome in (exact, moved, inverse)] == [1.0, 1.0, 0.0]
    assert moved.pairs == [Pair(1.0, 1.0)] * 4  # the warm-up does not count


def test_table_has_means_of_metrics_and_the_largest_differences():
    outcomes = [
        Outcome([0.8, 0.7, 0.6], [0.02, 0.1], 0.0, [Pair(1.0, 2.0)]),
        Outcome([1.0, 0.9, 0.8], [0.0], 0.2, [Pair(3.0, 2.0), Pair(2.0, 2.0)]),
    ]
    row = render("variant", {"any": outcomes}).splitlines()[-1]
    assert row == "| any | 0.900 | 0.800 | 0.700 | 0.1000 | 0.2000 | 1.00 | 0.75 to 1.25 |"


@pytest.fixture
def small_products(tmp_path) -> RenderedProducts:
    data = RenderedProducts(
        "coin", tmp_path, 70, 4, 2, 2, val_split_mode="from_train", val_split_ratio=0.5, eval_batch_size=1
    )
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.slow
def test_exports_stand_beside_torch(small_products, golden_arguments, traced_once, tmp_path):
    arguments = {"class_name": "coin", **golden_arguments("tiny_vit"), "evaluator": False, "visualizer": False}
    predictors = exports.build_predictors(arguments, small_products, tmp_path / "exports")
    first, *others = predictors
    assert first == "PyTorch fp32"
    assert len(others) == 7
    outcomes = compare(small_products, predictors)
    assert outcomes[first].map_difference == 0
    for name in ("ONNX Runtime fp32", "OpenVINO fp32"):
        assert 0 < outcomes[name].map_difference < 1e-4
    # Several times what was measured: rounding differs between processors.
    bounds = {"PyTorch bf16": 0.01, "OpenVINO fp16": 0.002, "OpenVINO int8 weights": 0.02, "OpenVINO int8": 0.1}
    for name, bound in bounds.items():
        assert 0 < outcomes[name].map_difference < bound


def test_exports_of_all_categories_come_into_one_table(tmp_path, monkeypatch, capsys):
    built = []

    def in_torch_only(arguments, data, folder):
        built.append((arguments["class_name"], arguments["k_shot"], data.category))
        model = AprilGAN(**arguments)
        model.setup("predict")
        assert len(model.reference_paths) == 1
        return {"PyTorch fp32": side_by_side.in_torch(model.eval())}

    def few_products(category, image_size, seed, calibration_images, root):
        assert (image_size, seed, calibration_images) == (192, 0, 64)
        data = RenderedProducts(category, root, image_size, 4, 2, 2)
        data.prepare_data()
        data.setup()
        return data

    monkeypatch.setattr(exports, "build_predictors", in_torch_only)
    monkeypatch.setattr(exports, "open_products", few_products)
    exports.main(["--categories=[coin,nut]", "--k_shot=1", f"--root={tmp_path}"])
    assert built == [("coin", 1, "coin"), ("nut", 1, "nut")]
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.startswith("| runtime and precision | image AUROC |")
    assert row.startswith("| PyTorch fp32 | ")
    assert "| 0.0000 | 0.0000 | 1.00 |" in row


def test_int8_is_calibrated_on_good_parts_that_are_in_no_test(tmp_path, monkeypatch):
    data = exports.open_products("coin", 64, 0, 8, tmp_path)
    calibration = {Path(path) for path in data.val_data.samples.image_path}
    tested = {Path(path) for path in data.test_data.samples.image_path}
    assert len(calibration) == 8
    assert {path.parts[-3:-1] for path in calibration} == {("train", "good")}
    assert not {path.read_bytes() for path in calibration} & {path.read_bytes() for path in tested}


def test_coresets_stand_beside_whole_banks(tmp_path, monkeypatch):
    products = RenderedProducts("coin", tmp_path, 224, 4, 1, 1)
    monkeypatch.setattr(side_by_side, "RenderedProducts", lambda category, root, seed, image_size: products)
    banks = []
    plain = AprilGAN.forward

    def watch(self, images):
        banks.append(len(self.model.memory_banks[0].tokens))
        return plain(self, images)

    monkeypatch.setattr(AprilGAN, "forward", watch)
    table = coreset.report_coreset(k_shot=2, ratios=(1.0, 0.25), categories=("coin",), root=tmp_path)
    whole, part = table.splitlines()[2:]
    assert "| 1.0 | " in whole
    assert "| 0.25 | " in part
    assert banks[:2] == [2 * 576, 2 * 144]
    assert np.isclose(float(whole.split("|")[5]), 0.0)


def test_precisions_stand_beside_the_first_and_moved_maps_are_counted(tmp_path, monkeypatch, capsys):
    opened = []

    def few_products(category, root, seed, image_size):
        opened.append((category, seed, image_size))
        return RenderedProducts(category, root, 32, 4, 2, 2, seed=seed)

    def compare_with_known_moves(data, predictors):
        assert list(predictors) == ["fp32", "bf16"]
        moves = {"fp32": [0.0, 0.0], "bf16": [0.02, 0.021]}
        return {name: Outcome([0.8, 0.7, 0.6], moves[name], 0.0, [Pair(1.0, 2.0)]) for name in predictors}

    built = []
    plain = AprilGAN.setup

    def watch(self, stage=None):
        plain(self, stage)
        built.append((self.model.clip.dtype, self.model.class_name, len(self.reference_paths)))

    monkeypatch.setattr(AprilGAN, "setup", watch)
    monkeypatch.setattr(side_by_side, "RenderedProducts", few_products)
    monkeypatch.setattr(side_by_side, "compare", compare_with_known_moves)
    precisions.main(["--categories=[coin]", "--seeds=2", "--k_shot=1", f"--root={tmp_path}"])
    assert opened == [("coin", 0, 192), ("coin", 1, 192)]
    assert built == [(torch.float32, "coin", 1), (torch.bfloat16, "coin", 1)] * 2
    table, moved = capsys.readouterr().out.split("\n\n")
    assert table.splitlines()[0].startswith("| precision, k=1 | image AUROC |")
    assert table.splitlines()[-1] == "| bf16 | 0.800 | 0.700 | 0.600 | 0.0210 | 0.0000 | 0.50 | 0.50 to 0.50 |"
    assert moved == "bf16: in 2 of 4 maps a pixel moved by more than 0.02.\n"
