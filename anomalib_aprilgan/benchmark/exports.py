# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Precisions and exports of AprilGAN on rendered products: accuracy and speed beside PyTorch in fp32.

``python -m anomalib_aprilgan.benchmark.exports`` prints a table. Each category has models of its own. INT8 is
calibrated on good parts of the same product line that are in no test. Times are of one image from pixels to verdict, as
multiples of PyTorch's in fp32 for the same image.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib.deploy import CompressionType

from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.components.embedded import BACKBONE, settings_of
from anomalib_aprilgan.demo import RenderedProducts
from anomalib_aprilgan.detection.blocks import Array

from .console import CHATTY, print_report
from .side_by_side import Outcome, Predictor, compare, in_torch, render

# Good parts that are neither references nor for calibration.
SPARE = 16
COMPRESSIONS = {"fp16": CompressionType.FP16, "int8 weights": CompressionType.INT8, "int8": CompressionType.INT8_PTQ}
BATCH_OF_ONE: dict[str, Any] = {"dynamic_axes": None}


def report_exports(
    backbone: str = BACKBONE,
    k_shot: int = 0,
    categories: Sequence[str] = ("leather", "coin", "nut"),
    seed: int = 0,
    calibration_images: int = 64,
    threads: int | None = None,
    root: Path = Path("datasets/RenderedProducts"),
) -> str:
    """Markdown table of AprilGAN in other runtimes and precisions.

    Args:
        backbone: Of AprilGAN, with its own settings.
        k_shot: Number of references.
        categories: What to render.
        seed: The product line.
        calibration_images: For INT8.
        threads: Of every runtime; null takes PyTorch's default.
        root: Folder for the pictures.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    outcomes: dict[str, list[Outcome]] = {}
    for category in categories:
        data = open_products(category, settings_of(backbone).image_size, seed, calibration_images, root)
        options = {"class_name": category, "k_shot": k_shot, "few_shot_source": data.folder / "train" / "good"}
        arguments = {"backbone": backbone, "evaluator": False, "visualizer": False}
        with TemporaryDirectory() as folder:
            predictors = build_predictors({**options, **arguments}, data, Path(folder))
            for name, outcome in compare(data, predictors).items():
                outcomes.setdefault(name, []).append(outcome)
    return render("runtime and precision", outcomes)


def open_products(category: str, image_size: int, seed: int, calibration_images: int, root: Path) -> RenderedProducts:
    """Rendered products whose validation images are good parts for calibration, one a batch."""
    train_images = calibration_images + SPARE
    data = RenderedProducts(
        category,
        root=root,
        image_size=image_size,
        seed=seed,
        train_images=train_images,
        val_split_mode="from_train",
        val_split_ratio=calibration_images / train_images,
        eval_batch_size=1,
    )
    data.prepare_data()
    data.setup()
    return data


def build_predictors(arguments: dict[str, Any], data: RenderedProducts, folder: Path) -> dict[str, Predictor]:
    """Models and exports by name, PyTorch in fp32 first.

    Args:
        arguments: Of AprilGAN.
        data: Test images, all of one size, and for INT8 validation images.
        folder: For the exports.
    """
    models = {f"PyTorch {name}": AprilGAN(**arguments, precision=name).eval() for name in ("fp32", "bf16")}
    for model in models.values():
        model.setup("predict")
    exact = models["PyTorch fp32"]
    size = (data.image_size, data.image_size)
    files = {
        name: exact.to_openvino(
            folder / name, input_size=size, compression_type=compression, datamodule=data, onnx_kwargs=BATCH_OF_ONE
        )
        for name, compression in {"fp32": None, **COMPRESSIONS}.items()
    }
    return {
        **{name: in_torch(model) for name, model in models.items()},
        "ONNX Runtime fp32": _in_onnx_runtime(exact.to_onnx(folder, input_size=size, **BATCH_OF_ONE)),
        "OpenVINO fp32": _in_openvino(files["fp32"], "f32"),
        "OpenVINO fp32, hint bf16": _in_openvino(files["fp32"], "bf16"),
        **{f"OpenVINO {name}": _in_openvino(files[name], "f32") for name in COMPRESSIONS},
    }


def _in_onnx_runtime(path: Path) -> Predictor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def predict(images: torch.Tensor) -> tuple[Array, Array]:
        score, anomaly_map = session.run(["pred_score", "anomaly_map"], {"input": images.numpy()})
        return score, anomaly_map

    return predict


def _in_openvino(path: Path, precision: str) -> Predictor:
    import openvino

    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(path, "CPU", config)

    def predict(images: torch.Tensor) -> tuple[Array, Array]:
        result = compiled(images.numpy())
        return result["pred_score"].copy(), result["anomaly_map"].copy()

    return predict


def main(args: list[str] | None = None) -> None:
    """Run :func:`report_exports` from the command line."""
    print_report(report_exports, args, quiet=[*CHATTY, "nncf", "torch.onnx"])


if __name__ == "__main__":
    main()
