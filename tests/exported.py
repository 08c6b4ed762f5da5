# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What exported files say, in their runtimes, beside the detector that they were made from."""

from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import torch
from anomalib.deploy import OpenVINOInferencer, TorchInferencer
from anomalib.engine import Engine
from PIL import Image

from anomalib_aprilgan import AnomalyCLIP, AprilGAN

FULL_PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
TOLERANCE = 1e-4
PHOTO_SIZE = (90, 110)

Detector = AprilGAN | AnomalyCLIP
Outputs = dict[str, np.ndarray]


def photographs(number: int, size: tuple[int, int]) -> torch.Tensor:
    """Images of whole grey levels, as they come from files, and each of another brightness."""
    levels = torch.randint(0, 256, (number, 3, *size)) // torch.arange(1, number + 1)[:, None, None, None]
    return levels / 255


def write_photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*PHOTO_SIZE, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def run_onnx(path: Path, images: torch.Tensor) -> Outputs:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"input": images.numpy()}), strict=True))


def run_openvino(path: Path, images: torch.Tensor, config: dict[str, str] = FULL_PRECISION) -> Outputs:
    compiled = openvino.Core().compile_model(path, "CPU", config)
    result = compiled(images.numpy())
    return {output.any_name: result[output] for output in compiled.outputs}


def run_torch(path: Path, images: torch.Tensor) -> Outputs:
    verdict = torch.load(path, weights_only=False)["model"](images)
    return {name: value.numpy() for name, value in verdict._asdict().items()}


# By anomalib's name of the type: where the file lies below the root of exports, and what runs it.
RUNTIMES = {
    "torch": ("weights/torch/model.pt", run_torch),
    "onnx": ("weights/onnx/model.onnx", run_onnx),
    "openvino": ("weights/openvino/model.xml", run_openvino),
}


def assert_same_verdicts(model: Detector, outputs: Outputs, images: torch.Tensor) -> None:
    expected = model(images)
    assert outputs.keys() == {"pred_score", "pred_label", "anomaly_map", "pred_mask"}
    for name in ("pred_score", "anomaly_map"):
        theirs = torch.from_numpy(outputs[name])
        torch.testing.assert_close(theirs, getattr(expected, name), rtol=0, atol=TOLERANCE)
    assert outputs["pred_label"].tolist() == expected.pred_label.tolist()
    assert (outputs["pred_mask"] != expected.pred_mask.numpy()).mean() < 1e-3  # pixels at the threshold itself


def assert_inferencer_agrees(model: Detector, kind: str, path: Path, folder: Path) -> None:
    """Compare anomalib's inferencer of a kind with its engine, on a photo in a new folder."""
    photo = write_photo(folder / "photos" / "a.png")
    inferencer = TorchInferencer(path) if kind == "torch" else OpenVINOInferencer(path, "CPU", FULL_PRECISION)
    theirs = inferencer.predict(photo)
    ours = Engine(default_root_dir=folder, accelerator="cpu", logger=False).predict(model, data_path=photo)[0]
    for name in ("pred_score", "anomaly_map"):
        theirs_of_it = torch.as_tensor(getattr(theirs, name))
        torch.testing.assert_close(theirs_of_it, getattr(ours, name), rtol=0, atol=TOLERANCE)
    assert torch.as_tensor(theirs.pred_label).tolist() == ours.pred_label.tolist()
    assert (torch.as_tensor(theirs.pred_mask) != ours.pred_mask).float().mean() < 1e-3  # as above
