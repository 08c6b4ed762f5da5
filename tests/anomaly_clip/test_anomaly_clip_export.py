# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Exports of AnomalyCLIP: the same verdicts in ONNX Runtime, OpenVINO and anomalib's inferencer, and no text tower."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from anomalib.engine import Engine
from exported import PHOTO_SIZE, assert_inferencer_agrees, assert_same_verdicts, photographs, run_onnx, run_openvino

from anomalib_aprilgan import AnomalyCLIP

pytestmark = pytest.mark.filterwarnings("ignore")

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


def test_onnx_runtime_for_any_batch(name, model, export):
    exported = ONNX_SIZES[name]
    for number, size in ((1, PHOTO_SIZE), (3, exported or (70, 70))):
        images = photographs(number, size)
        assert_same_verdicts(model, run_onnx(export("onnx", exported), images), images)


def test_openvino_in_full_precision(model, export):
    path = export("openvino", PHOTO_SIZE)
    for number in (1, 3):
        images = photographs(number, PHOTO_SIZE)
        assert_same_verdicts(model, run_openvino(path, images), images)


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_inferencers_say_what_the_engine_says(model, export, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # OpenVINOInferencer leaves a cache in the working directory
    monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
    assert_inferencer_agrees(model, kind, export(kind, PHOTO_SIZE), tmp_path)


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
