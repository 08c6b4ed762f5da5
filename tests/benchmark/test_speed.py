# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-aprilgan speed`` measures what it says."""

import json
import time

import pytest

from anomalib_aprilgan import AnomalyCLIPModel, AprilGANModel
from anomalib_aprilgan.benchmark import contenders
from anomalib_aprilgan.benchmark.speed import ratios
from anomalib_aprilgan.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")

EXPECTED = {
    "tower_seconds",
    "ratio_zero_shot",
    "ratio_few_shot",
    "ratio_anomaly_clip",
    "ratio_predict",
    "ratio_peak_memory",
    "ratio_peak_memory_zero_shot",
    "speedup_text_cold",
    "text_cold_seconds",
    "text_warm_seconds",
    "references_1_seconds",
    "references_4_seconds",
    "references_16_seconds",
}


def words(tiny_backbone, *more):
    options = ["--image_size=28", "--layers=[1,2,3,4]", "--repeats=1", "--threads=1"]
    return ["speed", f"--backbone={tiny_backbone}", *options, *more]


def test_ratios_are_medians_over_turns():
    turns = [{"tower": 1.0, "zero_shot": value} for value in (1.0, 5.0, 1.5)]
    expected = {"tower_seconds": 1.0, "ratio_zero_shot": 1.5, "spread": {"zero_shot": [1.0, 5.0]}}
    assert ratios(turns) == expected


def test_command_prints_and_writes_all(tiny_backbone, tmp_path, capsys, cache_folder):
    path = tmp_path / "new" / "speed.json"
    assert main(words(tiny_backbone, "--parts=[predict,text,references]", f"--json={path}")) == 0
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results.keys() >= EXPECTED
    assert all(results[name] > 0 for name in EXPECTED)
    assert results["settings"]["threads"] == 1
    printed = capsys.readouterr().out
    assert all(name in printed for name in EXPECTED)
    assert not list(cache_folder.rglob("*.safetensors"))  # the text of random weights is nobody's


def test_slower_verdicts_show(tiny_backbone, monkeypatch, tmp_path):
    plain = AprilGANModel.forward

    def slow(self, images):
        time.sleep(0.2)
        return plain(self, images)

    monkeypatch.setattr(AprilGANModel, "forward", slow)
    main(words(tiny_backbone, "--parts=[]", f"--json={tmp_path / 'speed.json'}"))
    results = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert results["ratio_zero_shot"] > 2
    assert results["ratio_few_shot"] > 2


def test_references_leave_the_zero_shot_model_alone(tiny_backbone):
    model = contenders.build_model(contenders.Settings(tiny_backbone, 28, (1, 2, 3, 4)))
    few = contenders.with_references(model, 2)
    assert few.is_few_shot
    assert not model.is_few_shot
    assert few.clip is model.clip


def test_anomaly_clip_shares_the_tower_and_does_all_its_work(tiny_backbone, monkeypatch):
    settings = contenders.Settings(tiny_backbone, 28, (1, 2, 3, 4))
    model = contenders.build_model(settings)
    seen = []
    plain = AnomalyCLIPModel.forward

    def watch(self, images):
        seen.append(self)
        return plain(self, images)

    monkeypatch.setattr(AnomalyCLIPModel, "forward", watch)
    verdict = contenders.anomaly_clip(settings, model)["anomaly_clip"]()
    assert verdict.anomaly_map.isfinite().all()
    (other,) = seen
    assert other.clip.visual is model.clip.visual
    assert (other.layers, other.dpam_layers) == ((4,), 4)
