# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Exports: the same verdicts in ONNX Runtime, OpenVINO and anomalib's inferencers, and nothing else in the files."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.cli import AnomalibCLI
from anomalib.data import Folder
from anomalib.deploy import CompressionType
from anomalib.engine import Engine
from exported import (
    PHOTO_SIZE,
    RUNTIMES,
    assert_inferencer_agrees,
    assert_same_verdicts,
    photographs,
    run_onnx,
    run_openvino,
    write_photo,
)

from anomalib_aprilgan import AprilGAN

pytestmark = pytest.mark.filterwarnings("ignore")

# Kinds of models: golden arrays of that name, how many references, and the model's own size.
KINDS = [("tiny_vit", 0, 70), ("tiny_vit", 2, 70), ("tiny_rn", 2, 64)]

Size = tuple[int, int]


@pytest.fixture(scope="module")
def build(golden_arguments, tmp_path_factory, traced_once) -> Callable[..., AprilGAN]:
    """Factory of models that are set up, with fitted thresholds."""
    folder = tmp_path_factory.mktemp("references")
    for seed in range(2):
        write_photo(folder / f"{seed}.png", seed)

    def make(name: str, shots: int, **changes: int) -> AprilGAN:
        arguments = {**golden_arguments(name), **changes, "evaluator": False, "visualizer": False}
        model = AprilGAN("bottle", shots, folder if shots else None, **arguments)
        model.setup("predict")
        model.post_processor._image_threshold.fill_(0.48)
        model.post_processor._pixel_threshold.fill_(0.4)
        return model.eval()

    return make


@pytest.fixture(scope="module")
def export(build, tmp_path_factory) -> Callable[..., tuple[AprilGAN, Path]]:
    """Exports a model of a kind, to a kind of file: the model and its file, which takes seconds; both are shared."""
    models = functools.cache(build)

    @functools.cache
    def make(name: str, shots: int, kind: str, size: Size | None = None) -> tuple[AprilGAN, Path]:
        folder = tmp_path_factory.mktemp("export")
        with torch.random.fork_rng(devices=[]):  # a test's random images do not depend on who exports
            model = models(name, shots)
        model.pre_processor.log = model.post_processor.log_dict = model.log  # as a trainer does
        return model, Engine(default_root_dir=folder).export(model, kind, export_root=folder, input_size=size)

    return make


def test_tiles_leave_with_the_model_for_any_batch_and_size(build, tmp_path):
    model = build("tiny_vit", 2, image_size=112, tiles=2)
    path = Engine(default_root_dir=tmp_path).export(model, "onnx", export_root=tmp_path)
    entries = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert entries["fingerprint"]["tiles"] == 2
    for number, size in ((1, PHOTO_SIZE), (3, (112, 112))):
        images = photographs(number, size)
        assert_same_verdicts(model, run_onnx(path, images), images)


@pytest.mark.parametrize(("name", "shots", "native"), KINDS)
def test_verdicts_of_onnx_runtime_for_any_batch_and_size(export, name, shots, native):
    model, path = export(name, shots, "onnx")
    for number, size in ((1, PHOTO_SIZE), (3, (native, native)), (2, (40, 200))):
        images = photographs(number, size)
        assert_same_verdicts(model, run_onnx(path, images), images)


@pytest.mark.parametrize(("name", "shots", "native"), KINDS[1:])
def test_verdicts_of_openvino_for_any_batch_and_size(export, name, shots, native):
    model, path = export(name, shots, "openvino")
    for number, size in ((1, PHOTO_SIZE), (3, (native, native)), (2, (40, 200))):
        images = photographs(number, size)
        assert_same_verdicts(model, run_openvino(path, images), images)


@pytest.mark.parametrize("size", [PHOTO_SIZE, (70, 70)])
def test_verdicts_of_openvino_of_one_size_for_any_batch(export, size):
    model, path = export("tiny_vit", 0, "openvino", size)
    for number in (1, 3):
        images = photographs(number, size)
        assert_same_verdicts(model, run_openvino(path, images), images)


def test_images_of_the_models_own_size_need_no_whole_grey_levels(export):
    model, path = export("tiny_vit", 0, "onnx")
    images = torch.rand(2, 3, 70, 70)
    assert_same_verdicts(model, run_onnx(path, images), images)


def test_batch_can_be_fixed(build, tmp_path):
    model = build("tiny_vit", 0)
    path = model.to_onnx(tmp_path, input_size=(70, 70), dynamic_axes=None)
    assert onnxruntime.InferenceSession(path).get_inputs()[0].shape == [1, 3, 70, 70]
    images = photographs(1, (70, 70))
    assert_same_verdicts(model, run_onnx(path, images), images)
    path = model.to_openvino(tmp_path, input_size=(70, 70), onnx_kwargs={"dynamic_axes": None})
    assert openvino.Core().read_model(path).input(0).shape == [1, 3, 70, 70]
    assert_same_verdicts(model, run_openvino(path, images), images)


@pytest.mark.filterwarnings("ignore")
def test_what_changed_after_a_run_is_exported(tiny_arguments, tmp_path):
    write_photo(tmp_path / "photos" / "a.png")
    model = AprilGAN("nut", **tiny_arguments, visualizer=False)
    Engine(default_root_dir=tmp_path, accelerator="cpu").predict(model, data_path=tmp_path / "photos")
    model.class_name = "bolt"
    exported = torch.load(model.to_torch(tmp_path), weights_only=False)
    assert json.loads(exported["metadata"]["class_name"]) == "bolt"
    assert torch.equal(exported["model"].model.text_features, model.model.text_features)


def test_fixed_batches_need_a_size(build, tmp_path):
    with pytest.raises(ValueError, match=r"dynamic_axes=None fixes batch and size .* Name the size"):
        build("tiny_vit", 0).to_onnx(tmp_path, dynamic_axes=None)


def test_exports_in_bf16_tell_what_cannot_run_them_before_they_take_seconds(
    tiny_arguments, tmp_path, caplog, monkeypatch
):
    class TracedError(Exception):
        pass

    def trace(**_):
        raise TracedError

    monkeypatch.setattr(torch.onnx, "export", trace)
    with pytest.raises(TracedError):
        AprilGAN("bottle", **tiny_arguments, precision="bf16").to_onnx(tmp_path)
    assert "Export AprilGAN.load_from_checkpoint(PATH, precision='fp32') in Python" in caplog.text


def test_openvinos_own_precision_is_not_full(export):
    model, path = export("tiny_vit", 2, "openvino", PHOTO_SIZE)
    images = photographs(2, PHOTO_SIZE)
    core = openvino.Core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    takes_bf16 = core.get_property("CPU", "INFERENCE_PRECISION_HINT") == openvino.Type.bf16  # by default
    for config, is_less in (({"INFERENCE_PRECISION_HINT": "bf16"}, has_bf16), ({}, takes_bf16)):
        outputs = run_openvino(path, images, config)
        moved = np.abs(outputs["anomaly_map"] - model(images).anomaly_map.numpy()).max()
        assert (moved > 1e-3) == is_less, config
    assert_same_verdicts(model, run_openvino(path, images), images)


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_inferencers_say_what_the_engine_says(build, export, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer leaves a cache in the working directory
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    _, path = export("tiny_vit", 2, kind, PHOTO_SIZE)
    assert_inferencer_agrees(build("tiny_vit", 2), kind, path, tmp_path)


def weights_of(model: AprilGAN) -> int:
    """Numbers that a verdict takes: of the tower, the adapters, the text and the references."""
    return sum(tensor.numel() for tensor in model.model.state_dict().values())


class TestContents:
    def test_no_text_tower_in_the_graph(self, export):
        model, path = export("tiny_vit", 2, "onnx")
        numbers = sum(int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer)
        assert numbers == pytest.approx(weights_of(model), rel=0.02)

    def test_no_text_tower_or_metrics_in_torch(self, build, tmp_path):
        content = torch.load(build("tiny_vit", 2).to_torch(tmp_path), weights_only=False)
        assert {name for name, _ in content["model"].named_children()} == {"pre_processor", "model", "post_processor"}
        assert not [name for name in content["model"].state_dict() if "token_embedding" in name]


@pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
def test_files_do_not_tell_where_things_lie_on_this_machine(export, golden_arguments, kind):
    model, path = export("tiny_vit", 2, kind)
    content = b"".join(file.read_bytes() for file in path.parents[1].rglob("*") if file.is_file())
    used = [Path(golden_arguments("tiny_vit")[name]) for name in ("backbone", "pretrained", "adapters")]
    folders = [path.parent for path in (*used, Path(model.reference_paths[0]), Path(torch.__file__).parent)]
    assert [folder for folder in folders if str(folder).encode() in content] == []
    assert b"tiny_vit.json" in content
    assert b"tiny_vit.safetensors" in content
    assert b"lightning_model" not in content
    assert model.model.source.path == used[1]  # the model itself still knows


def metadata_of(path: Path) -> dict[str, Any]:
    if path.suffix == ".pt":
        entries = torch.load(path, weights_only=False)["metadata"]
    elif path.suffix == ".onnx":
        entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    else:
        entries = {key: value.value for key, value in openvino.Core().read_model(path).rt_info["framework"].items()}
    return {key: json.loads(value) for key, value in entries.items()}


class TestMetadata:
    @pytest.mark.parametrize("kind", ["torch", "onnx", "openvino"])
    def test_say_what_was_exported(self, export, kind):
        model, path = export("tiny_vit", 2, kind)
        entries = metadata_of(path)
        assert (entries["model"], entries["class_name"]) == ("AprilGAN", "bottle")
        for words in ("normal_states", "anomalous_states", "templates"):
            assert entries["prompts"][words] == list(getattr(model.model.prompts, words))
        assert entries["fingerprint"]["weights"] == model.model.source.digest
        assert entries["backbone"].endswith("tiny_vit.json")
        assert entries["precision"] == "float32"
        assert entries["reference_files"] == ["0.png", "1.png"]
        assert len(entries["adapters"]) == len(entries["references"]) == 64

    def test_hash_of_references_is_theirs(self, build, tmp_path):
        model = build("tiny_vit", 2)
        before = metadata_of(model.to_torch(tmp_path))["references"]
        model.model.setup(reference_images=torch.rand(2, 3, 70, 70))
        assert metadata_of(model.to_torch(tmp_path))["references"] != before

    def test_without_references_or_adapters_say_so(self, tiny_arguments, tmp_path):
        entries = metadata_of(AprilGAN("bottle", **tiny_arguments).to_torch(tmp_path))
        assert (entries["references"], entries["adapters"], entries["reference_files"]) == (None, None, [])


@pytest.fixture
def export_by_command(golden_arguments, tmp_path) -> Callable[..., None]:
    """Exports a model by way of a checkpoint, with anomalib's command, to ``tmp_path``."""

    def run(model: AprilGAN, kind: str, *options: str) -> None:
        engine = Engine(default_root_dir=tmp_path)
        engine.predict(model, data_path=write_photo(tmp_path / "photos" / "a.png"))
        engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
        AnomalibCLI(
            args=[
                "export",
                "--model=anomalib_aprilgan.AprilGAN",
                *(f"--model.{name}={value}" for name, value in golden_arguments("tiny_vit").items()),
                f"--ckpt_path={tmp_path / 'model.ckpt'}",
                f"--export_type={kind}",
                f"--export_root={tmp_path}",
                *options,
            ]
        )

    return run


@pytest.mark.parametrize("kind", RUNTIMES)
def test_command_exports_a_checkpoint(build, export_by_command, kind, tmp_path):
    model = build("tiny_vit", 2)
    export_by_command(model, kind)
    images = photographs(1, PHOTO_SIZE)
    file, run = RUNTIMES[kind]
    assert_same_verdicts(model, run(tmp_path / file, images), images)


def test_command_takes_options_of_compression(build, export_by_command, calibration, tmp_path):
    how = ("--input_size=[70,70]", '--onnx_kwargs={"dynamic_axes": null}', "--compression_type=INT8_PTQ")
    folders = (f"--data.root={calibration.root}", "--data.normal_dir=good", "--data.abnormal_dir=bad")
    export_by_command(build("tiny_vit", 0), "openvino", *how, "--data=Folder", "--data.name=photos", *folders)
    exported = openvino.Core().read_model(tmp_path / RUNTIMES["openvino"][0])
    assert exported.input(0).shape == [1, 3, 70, 70]
    assert sum(each.get_type_name() == "FakeQuantize" for each in exported.get_ops()) > 20


@pytest.fixture(scope="module")
def calibration(tmp_path_factory) -> Folder:
    root = tmp_path_factory.mktemp("calibration")
    for index in range(4):
        write_photo(root / "good" / f"{index}.png", index)
        write_photo(root / "bad" / f"{index}.png", 10 + index)
    return Folder("photos", root=root, normal_dir="good", abnormal_dir="bad", num_workers=0, eval_batch_size=1)


@pytest.mark.parametrize(
    ("compression", "shots", "tolerance"),
    # Two to three times what was measured: rounding differs between processors.
    [(CompressionType.FP16, 2, 2e-3), (CompressionType.INT8, 2, 0.025), (CompressionType.INT8_PTQ, 0, 0.15)],
)
def test_compressed_models_are_smaller_and_near(export, compression, shots, tolerance, calibration, tmp_path):
    model, full = export("tiny_vit", shots, "openvino", PHOTO_SIZE)
    small = Engine(default_root_dir=tmp_path).export(
        model,
        "openvino",
        export_root=tmp_path,
        input_size=PHOTO_SIZE,
        compression_type=compression,
        datamodule=calibration,
    )
    assert small.with_suffix(".bin").stat().st_size < 0.7 * full.with_suffix(".bin").stat().st_size
    images = photographs(2, PHOTO_SIZE)
    expected, outputs = model(images), run_openvino(small, images)
    for name in ("pred_score", "anomaly_map"):
        assert np.abs(outputs[name] - getattr(expected, name).numpy()).max() < tolerance, name
