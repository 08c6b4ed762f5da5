# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Exports of AnomalyCLIP: the same verdicts in ONNX Runtime, OpenVINO and anomalib's inferencer, and no text tower."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from PIL import Image

from anomalib_aprilgan import AnomalyCLIP

pytestmark = pytest.mark.filterwarnings("ignore")

TOLERANCE = 1e-4
PHOTO_SIZE = (90, 110)
Outputs = dict[str, np.ndarray]


# Golden arrays of that name, and the size of its ONNX export; None takes images of any.
ONNX_SIZES = {"tiny_vit": None, "tiny_vit_resized": PHOTO_SIZE}


@pytest.fixture(scope="module", params=ONNX_SIZES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name, clip_arguments) -> AnomalyCLIP:
    model = AnomalyCLIP(**clip_arguments(name), evaluator=False, visualizer=False)
    model.post_processor._image_threshold.fill_(0.6)
    model.post_processor._pixel_threshold.fill_(0.5)
    return model.eval()


@pytest.fixture(scope="module")
def export(model, tmp_path_factory, traced_once) -> Callable[..., Path]:
    """Exports the model to a kind of file, which takes seconds and is shared."""

    @functools.cache
    def make(kind: str, size: tuple[int, int] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("export")
        return Engine(default_root_dir=folder).export(model, kind, export_root=folder, input_size=size)

    return make


def photographs(number: int, size: tuple[int, int]) -> torch.Tensor:
    """Images of whole grey levels, as they come from files, and each of another brightness."""
    levels = torch.randint(0, 256, (number, 3, *size)) // torch.arange(1, number + 1)[:, None, None, None]
    return levels / 255


def assert_same_verdicts(model: AnomalyCLIP, outputs: Outputs, images: torch.Tensor) -> None:
    expected = model(images)
    assert outputs.keys() == {"pred_score", "pred_label", "anomaly_map", "pred_mask"}
    for name in ("pred_score", "anomaly_map"):
        torch.testing.assert_close(torch.from_numpy(outputs[name]), getattr(expected, name), rtol=0, atol=TOLERANCE)
    assert outputs["pred_label"].tolist() == expected.pred_label.tolist()
    assert (outputs["pred_mask"] != expected.pred_mask.numpy()).mean() < 1e-3  # pixels at the threshold itself


def test_onnx_runtime_for_any_batch(name, model, export):
    exported = ONNX_SIZES[name]
    session = onnxruntime.InferenceSession(export("onnx", exported), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for number, size in ((1, PHOTO_SIZE), (3, exported or (70, 70))):
        images = photographs(number, size)
        outputs = dict(zip(names, session.run(None, {"input": images.numpy()}), strict=True))
        assert_same_verdicts(model, outputs, images)


def test_openvino_in_full_precision(model, export):
    path = export("openvino", PHOTO_SIZE)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for number in (1, 3):
        images = photographs(number, PHOTO_SIZE)
        result = compiled(images.numpy())
        assert_same_verdicts(model, {output.any_name: result[output] for output in compiled.outputs}, images)


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_inferencers_say_what_the_engine_says(model, export, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer leaves a cache in the working directory
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    pixels = np.random.default_rng(0).integers(0, 256, (*PHOTO_SIZE, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    engine = Engine(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    path = export(kind, PHOTO_SIZE)
    in_full = {"INFERENCE_PRECISION_HINT": "f32"}
    inferencer = TorchInferencer(path) if kind == "torch" else OpenVINOInferencer(path, "CPU", in_full)
    theirs = inferencer.predict(tmp_path / "photo.png")
    ours = engine.predict(model, data_path=tmp_path / "photo.png")[0]
    for name in ("anomaly_map", "pred_score"):
        torch.testing.assert_close(torch.as_tensor(getattr(theirs, name)), getattr(ours, name), rtol=0, atol=TOLERANCE)
    assert torch.as_tensor(theirs.pred_label).tolist() == ours.pred_label.tolist()


def test_torch_file_does_not_tell_where_the_weights_lie(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model.pre_processor, "log", model.log, raising=False)  # as a trainer does
    content, weights = model.to_torch(tmp_path).read_bytes(), model.model.source.path
    assert str(weights.parent).encode() not in content
    assert str(Path(model.model.source.backbone).parent).encode() not in content
    assert weights.name.encode() in content


def entries_of(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_contents_are_tower_and_two_vectors_and_say_so(name, model, export):
    path = export("onnx", ONNX_SIZES[name])
    numbers = sum(int(np.prod(tensor.dims)) for tensor in onnx.load(path).graph.initializer)
    tower = sum(tensor.numel() for tensor in model.model.clip.state_dict().values())
    resizing = 0 if ONNX_SIZES[name] is None else 0.02  # matrices for images of that size
    assert 0 <= numbers / tower - 1 - resizing < 0.02
    entries = {key: json.loads(value) for key, value in entries_of(path).items()}
    assert entries["model"] == "AnomalyCLIP"
    assert entries["fingerprint"]["dpam_layers"] == model.model.dpam_layers
    assert len(entries["prompts"]) == 64
