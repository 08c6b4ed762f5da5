# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""INT8: the tower is quantised, what is before its first convolution and behind it is not."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from anomalib.data import ImageItem
from anomalib.deploy import CompressionType
from openvino import opset13 as ops
from PIL import Image

from anomalib_aprilgan import AnomalyCLIP, AprilGAN
from anomalib_aprilgan.benchmark.metrics import paper_metrics
from anomalib_aprilgan.demo import RenderedProducts
from anomalib_aprilgan.detection.export import SelfDescribingExport
from anomalib_aprilgan.detection.int8 import calibration_image, outside_tower

pytestmark = pytest.mark.filterwarnings("ignore")

SIZE = 192
SMALL_CLIP = {"backbone": "aprilgan-tiny", "evaluator": False, "visualizer": False}
IN_FULL = {"INFERENCE_PRECISION_HINT": "f32"}


def named(operation: openvino.Node, name: str) -> openvino.Node:
    operation.set_friendly_name(name)
    return operation


def small_graph(*, convolves: bool = True, normalises: bool = True, projects: bool = True) -> openvino.Model:
    """A tower of a product with a sum and a second convolution, brought into the space of a text and compared."""
    image = ops.parameter([1, 3, 4, 4], np.float32)
    features = named(ops.clamp(image, 0.0, 1.0), "clip")
    if convolves:
        for name in ("conv1", "conv2"):
            kernel = np.ones((3, 3, 1, 1), np.float32)
            features = named(ops.convolution(features, kernel, [1, 1], [0, 0], [0, 0], [1, 1]), name)
    tokens = named(ops.matmul(features, np.ones((4, 4), np.float32), transpose_a=False, transpose_b=False), "block")
    tokens = verdict = named(ops.add(tokens, features), "sum")
    if projects:
        tokens = named(ops.matmul(tokens, np.ones((4, 4), np.float32), transpose_a=False, transpose_b=False), "adapter")
        tokens = verdict = named(ops.add(tokens, np.ones(4, np.float32)), "bias")
    if normalises:
        length = named(ops.reduce_l2(tokens, np.array([3]), keep_dims=True), "length")
        unit = named(ops.divide(tokens, length), "unit")
        verdict = named(ops.matmul(unit, np.ones((4, 1), np.float32), transpose_a=False, transpose_b=False), "cosine")
    return openvino.Model([named(ops.sigmoid(verdict), "score")], [image])


def test_tower_lies_between_the_first_convolution_and_the_norms():
    behind = ["length", "unit", "cosine", "score"]
    assert outside_tower(small_graph()) == ["clip", "conv1", "adapter", "bias", *behind]
    assert outside_tower(small_graph(projects=False)) == ["clip", "conv1", *behind]


@pytest.mark.parametrize("missing", ["Convolution", "ReduceL2"])
def test_graphs_without_a_tower_are_refused(missing):
    graph = small_graph(convolves=missing != "Convolution", normalises=missing != "ReduceL2")
    with pytest.raises(ValueError, match=f"has no operation {missing}, expected .* Export without compression"):
        outside_tower(graph)


def test_calibration_needs_images():
    with pytest.raises(ValueError, match="'INT8_PTQ' is calibrated on images: give a datamodule, --data"):
        SelfDescribingExport._post_training_quantization_ov(small_graph(), None)


def test_calibration_needs_validation_images(tmp_path):
    data = RenderedProducts("coin", tmp_path, 32, 1, 1, 1, val_split_mode="none")
    with pytest.raises(ValueError, match="RenderedProducts has none: give it another val_split_mode"):
        SelfDescribingExport._post_training_quantization_ov(small_graph(), data)


def test_calibration_scales_16_bits(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 6), 13107, np.uint16)).save(path)  # a fifth of 65535
    item = ImageItem(image=torch.ones(3, 4, 6), image_path=str(path))  # as anomalib reads it
    torch.testing.assert_close(calibration_image(item, None), torch.full((1, 3, 4, 6), 0.2))
    torch.testing.assert_close(calibration_image(item, (2, 3)), torch.full((1, 3, 2, 3), 0.2))


def test_calibration_takes_other_images_as_the_datamodule_gives_them():
    item = ImageItem(image=torch.arange(12.0).reshape(3, 2, 2) / 12)
    assert torch.equal(calibration_image(item, None), item.image[None])


@pytest.fixture(scope="module")
def coins(tmp_path_factory) -> RenderedProducts:
    """Good and defective parts, and 8 good ones for calibration; batches of other sizes than the export's."""
    root = tmp_path_factory.mktemp("coins")
    data = RenderedProducts("coin", root, SIZE, 9, 24, 24, val_split_mode="from_train", val_split_ratio=8 / 9)
    data.prepare_data()
    data.setup()
    return data


DETECTORS = {
    "AprilGAN": lambda coins: AprilGAN("coin", 1, coins.folder / "train" / "good", **SMALL_CLIP),
    "AnomalyCLIP": lambda coins: AnomalyCLIP(**SMALL_CLIP),
}
# Of a single pixel and of a score; about twice what was measured on a processor without VNNI, where products of INT8
# saturate. Anomalib's own quantisation makes a file of the small AnomalyCLIP that does not load.
BOUNDS = {"AprilGAN": (0.25, 0.1), "AnomalyCLIP": (0.3, 0.3)}


@pytest.fixture(scope="module", params=DETECTORS)
def exported(request, coins, tmp_path_factory) -> tuple[AprilGAN | AnomalyCLIP, Path]:
    """A detector, and its file in INT8 for one image at a time."""
    detector = DETECTORS[request.param](coins).eval()
    detector.setup("predict")
    path = detector.to_openvino(
        tmp_path_factory.mktemp("int8"),
        input_size=(SIZE, SIZE),
        compression_type=CompressionType.INT8_PTQ,
        datamodule=coins,
        onnx_kwargs={"dynamic_axes": None},
    )
    return detector, path


def judge(coins: RenderedProducts, predict: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N,) and maps (N, S, S) of the test images, one image at a time."""
    with torch.inference_mode():
        verdicts = [predict(item.image[None]) for item in coins.test_data]
    return tuple(np.concatenate(part) for part in zip(*verdicts, strict=True))


def test_verdicts_in_int8_are_near_and_as_accurate(exported, coins):
    detector, path = exported

    def in_full(images):
        verdict = detector(images)
        return verdict.pred_score.numpy(), verdict.anomaly_map.numpy()

    compiled = openvino.Core().compile_model(path, "CPU", IN_FULL)

    def in_int8(images):
        verdict = compiled(images.numpy())
        return verdict["pred_score"].copy(), verdict["anomaly_map"].copy()

    (scores, maps), (int8_scores, int8_maps) = (judge(coins, predict) for predict in (in_full, in_int8))
    moved = np.abs(int8_maps - maps)
    map_bound, score_bound = BOUNDS[type(detector).__name__]
    assert 0 < moved.max() < map_bound
    assert moved.mean() < 0.0012
    assert 0 < np.abs(int8_scores - scores).max() < score_bound
    masks = np.stack([item.gt_mask.numpy() for item in coins.test_data])
    labels = np.stack([item.gt_label.numpy() for item in coins.test_data])
    full, int8 = (paper_metrics(masks, m, labels, s) for m, s in ((maps, scores), (int8_maps, int8_scores)))
    assert int8["AUROC-segm"] == pytest.approx(full["AUROC-segm"], abs=0.01)
    # 24 good and 24 defective parts: a pair that changes its order moves this one by 1 / 576.
    assert int8["AUROC-cls"] == pytest.approx(full["AUROC-cls"], abs=0.025)


def test_nothing_outside_the_tower_is_quantised(exported):
    model = openvino.Core().read_model(exported[1])
    quantisers = [each for each in model.get_ops() if each.get_type_name() == "FakeQuantize"]
    readers = {
        value.get_node().get_friendly_name() for each in quantisers for value in each.output(0).get_target_inputs()
    }
    assert len(quantisers) > 30
    assert not readers & set(outside_tower(model))
