# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The images of a run, and settings that a model would ignore."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib import LearningType
from anomalib.data.utils import ValSplitMode
from anomalib.models import EfficientAd, Ganomaly
from test_harness import write_images

from anomalib_aprilgan import AnomalyCLIP, AprilGAN
from anomalib_aprilgan.benchmark import preconditions, single_run
from anomalib_aprilgan.benchmark.classes import PlanError
from anomalib_aprilgan.benchmark.machine import processor_name
from anomalib_aprilgan.benchmark.metrics import IMAGE_COLUMNS, PIXEL_COLUMNS
from anomalib_aprilgan.benchmark.plan import Dataset, Method, list_runs
from anomalib_aprilgan.components.trained_file import TrainedWith


def runs_of(tmp_path, shots=(0, 2, "full"), seeds=(0, 1), **limits):
    root = tmp_path / "MVTecAD"
    if not root.exists():
        write_images(root)
    dataset = Dataset("MVTecAD", {"root": str(root), "num_workers": 0}, ["bottle"], **limits)
    runs = list_runs({"any": Method("Patchcore")}, {"MVTecAD": dataset}, shots, seeds)
    return {(run.shots, run.seed): run for run in runs}


def names_of(images):
    return ["/".join(Path(path).parts[-2:]) for path in images.samples.image_path]


def test_references_are_the_training_images(tmp_path):
    runs = runs_of(tmp_path)
    for seed in (0, 1):
        datamodule, references = single_run.open_data(runs[2, seed])
        assert len(references) == 2
        assert {Path(path) for path in datamodule.train_data.samples.image_path} == {*references}
    _, references = single_run.open_data(runs["full", 0])
    assert len(references) == 4
    assert single_run.open_data(runs[0, 0])[1] == []


def test_limits_keep_as_many_of_each_kind_the_same_in_all_runs(tmp_path):
    whole, _ = single_run.open_data(runs_of(tmp_path)["full", 0])
    assert len(names_of(whole.test_data)) == 5
    opened = [single_run.open_data(run) for run in runs_of(tmp_path, max_train_images=3, max_test_images=2).values()]
    tests = {tuple(names_of(datamodule.test_data)) for datamodule, _ in opened}
    (kept,) = tests
    assert [name.partition("/")[0] for name in kept] == ["broken", "broken", "good", "good"]
    assert set(kept) < set(names_of(whole.test_data))
    none, first, second, full, same = (references for _, references in opened)
    assert none == []
    assert len(full) == 3
    assert full == same
    assert {*first, *second} <= {*full}


@pytest.mark.parametrize(
    ("split", "counts"),
    [("none", "0 normal and 2 anomalous"), ("from_test", "0 normal and 1 anomalous")],
)
def test_images_of_one_kind_are_told_before_anything_else(split, counts, tmp_path, caplog):
    (run,) = runs_of(tmp_path, ["full"], [0]).values()
    root = tmp_path / "MVTecAD" / "bottle"  # a fifth of its four good images is none
    folders = {"root": str(root), "normal_dir": "train/good", "abnormal_dir": "test/broken"}
    folder = Dataset("Folder", {"name": "bottle", **folders, "val_split_mode": split})
    with pytest.raises(ValueError, match=f"MVTecAD has {counts} test images, but metrics need both. Look at"):
        single_run.execute(replace(run, dataset=folder), single_run.Settings())
    assert ("put aside for validation" in caplog.text) == (split == "from_test")


@pytest.mark.parametrize(
    ("shots", "learning_type", "message"),
    [
        (0, LearningType.ONE_CLASS, "any learns from normal images, so 0 is not among its shots"),
        (2, LearningType.ZERO_SHOT, "any looks at no reference, so 2 is not among its shots"),
        ("full", LearningType.ZERO_SHOT, "any looks at no reference, so full is not among its shots"),
    ],
)
def test_settings_that_a_model_ignores_are_refused(shots, learning_type, message, tmp_path):
    run = runs_of(tmp_path)[shots, 0]
    with pytest.raises(ValueError, match=message):
        preconditions.check_shots(run, SimpleNamespace(learning_type=learning_type))


class TestValidation:
    @pytest.mark.parametrize(("split", "is_leak"), [("same_as_test", True), ("from_train", False)])
    def test_on_the_images_under_test_it_is_refused(self, split, is_leak, tmp_path):
        run = runs_of(tmp_path)["full", 0]
        run = replace(run, method=replace(run.method, trainer={"limit_val_batches": 1.0}))
        datamodule = SimpleNamespace(val_split_mode=ValSplitMode(split))
        message = "any would be validated on the test images of MVTecAD. Leave limit_val_batches out"
        with pytest.raises(ValueError, match=message) if is_leak else nullcontext():
            preconditions.check_validation(run, SimpleNamespace(), datamodule)

    def test_a_model_whose_maps_need_it_must_have_it(self, tmp_path):
        run = runs_of(tmp_path)["full", 0]
        with pytest.raises(ValueError, match=r"normal validation images\. Give its trainer"):
            preconditions.check_validation(run, EfficientAd.__new__(EfficientAd), run.build_datamodule())


@pytest.mark.filterwarnings("ignore")
def test_a_model_is_trained_for_its_epochs_and_needs_no_maps(tmp_path, monkeypatch):
    run = runs_of(tmp_path)["full", 0]
    epochs = []
    monkeypatch.setattr(Ganomaly, "on_train_epoch_end", lambda model: epochs.append(model.current_epoch))
    size = {"batch_size": 4, "n_features": 4, "latent_vec_size": 4}
    run = replace(run, method=Method("Ganomaly", size, trainer={"max_epochs": 2}))
    row = single_run.execute(run, single_run.Settings("cpu", 0))
    assert epochs == [0, 1]
    assert all(0 <= row[column] <= 1 for column in IMAGE_COLUMNS)
    assert [row[column] for column in PIXEL_COLUMNS] == ["", "", ""]


@pytest.mark.filterwarnings("ignore")
class TestTrainedParts:
    @pytest.mark.parametrize(("kind", "column"), [(AprilGAN, "adapters"), (AnomalyCLIP, "prompt_weights")])
    def test_bundled_ones(self, kind, column):
        assert single_run._trained_parts(kind(backbone="aprilgan-tiny")) == {column: "embedded"}

    def test_none_at_all(self, tiny_arguments):
        assert single_run._trained_parts(AprilGAN(**tiny_arguments)) == {"adapters": "none"}
        model = AnomalyCLIP(**tiny_arguments, dpam_layers=3)
        assert single_run._trained_parts(model) == {"prompt_weights": "random"}
        given_none = AnomalyCLIP(**tiny_arguments, dpam_layers=3, prompt_weights=None)
        assert single_run._trained_parts(given_none) == {"prompt_weights": "random"}

    def test_published_ones_by_their_data(self):
        model = AnomalyCLIP(backbone="aprilgan-tiny")
        model.chooses_prompts, model.model.trained_on = True, "visa"
        assert single_run._trained_parts(model) == {"prompt_weights": "visa"}

    def test_files_by_their_name_even_if_they_say_nothing_of_their_data(self, tmp_path):
        file = tmp_path / "bolts.safetensors"
        model = AnomalyCLIP(backbone="aprilgan-tiny")
        model.model.prompts.save(file, TrainedWith())
        again = AnomalyCLIP(backbone="aprilgan-tiny", prompt_weights=file)
        assert single_run._trained_parts(again) == {"prompt_weights": "bolts.safetensors"}

    def test_other_models_have_none(self):
        assert single_run._trained_parts(SimpleNamespace()) == {}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"accelerator": "gpus"}, "accelerator='gpus' is unknown, expected one of auto, cpu, gpu"),
        ({"accelerator": "gpu"}, "accelerator='gpu', but PyTorch sees none"),
        ({"latency_seconds": -1.0}, r"latency_seconds=-1\.0 must be at least 0"),
    ],
)
def test_settings_that_would_fail_every_run_are_refused(wrong, message, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(PlanError, match=message):
        single_run.Settings(**wrong)


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_the_device_is_the_one_that_judged(kind):
    device = single_run._circumstances(torch.device(kind))["device"]
    assert device == f"{kind.upper()}, {processor_name()}"
