# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What half precision may cost the small CLIP's verdicts on rendered products: maps move a little, rankings hardly."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_aprilgan import AnomalyCLIP, AprilGAN
from anomalib_aprilgan.benchmark.ranking import rank
from anomalib_aprilgan.components.embedded import BACKBONE, IMAGE_SIZE
from anomalib_aprilgan.demo.rendering import render

pytestmark = pytest.mark.filterwarnings("ignore")

CATEGORIES = ("carpet", "tile", "pill", "circuit_board")
DEFECTS = (None, "scratch", None, "hole") * 3  # 48 images: a pair that changes order is less than LARGEST_LOSS
LARGEST_MOVE = 2e-2  # of a map's pixel, and of a score
LARGEST_LOSS = 2e-3
PRODUCTS = {torch.ops.aten.linear.default, torch.ops.aten.matmul.default}


class Products(NamedTuple):
    """Images (N, 3, S, S) in [0, 1], masks (N, S, S), and a good part of each category as reference."""

    images: torch.Tensor
    masks: np.ndarray
    references: torch.Tensor


class Verdicts(NamedTuple):
    """Maps (N, S, S) and scores (N,)."""

    maps: np.ndarray
    scores: np.ndarray


@pytest.fixture(scope="module")
def products() -> Products:
    shots = [
        render(category, part=part, defect=defect, size=IMAGE_SIZE)
        for category in CATEGORIES
        for part, defect in enumerate(DEFECTS)
    ]
    references = [render(category, part=100, size=IMAGE_SIZE) for category in CATEGORIES]
    return Products(as_images(shots), np.stack([shot.mask for shot in shots]), as_images(references))


def as_images(shots) -> torch.Tensor:
    return torch.stack([torch.from_numpy(shot.image.copy()).permute(2, 0, 1) / 255 for shot in shots])


class ProductsAsOnGPUs(TorchDispatchMode):
    """Products in fp16 are summed in fp32 and rounded once; by itself a CPU takes ten times as long for them."""

    seen = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # ruff: ignore[bad-dunder-method-name]
        if operation in PRODUCTS and args[0].dtype == torch.float16:
            self.seen += 1
            return operation(*(each if each is None else each.float() for each in args)).half()
        return operation(*args, **(kwargs or {}))


def judge(kind: str, precision: str, products: Products) -> Verdicts:
    if kind == "AnomalyCLIP":
        model = AnomalyCLIP(BACKBONE, precision=precision).eval()
    else:
        model = AprilGAN("object", backbone=BACKBONE, precision=precision).eval()
        model.setup("predict")
    if kind == "few-shot":
        model.model.setup(reference_images=model.pre_processor(products.references))
    with torch.inference_mode(), ProductsAsOnGPUs() as multiplied:
        verdict = model(products.images)
    assert (multiplied.seen > 0) == (precision == "fp16")
    return Verdicts(verdict.anomaly_map.numpy(), verdict.pred_score.numpy())


@pytest.fixture(scope="module", params=["zero-shot", "few-shot", "AnomalyCLIP"])
def exact(request, products) -> tuple[str, Verdicts]:
    """A way to judge, and its verdicts in full precision."""
    return request.param, judge(request.param, "fp32", products)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_moves_maps_a_little_and_rankings_hardly(products, exact, precision):
    kind, full = exact
    half = judge(kind, precision, products)
    assert 0 < np.abs(half.maps - full.maps).max() < LARGEST_MOVE
    assert 0 < np.abs(half.scores - full.scores).max() < LARGEST_MOVE
    labels = products.masks.any(axis=(1, 2))
    for truth, ours, theirs in ((labels, half.scores, full.scores), (products.masks, half.maps, full.maps)):
        expected = rank(theirs, truth).auroc
        assert expected > 0.8  # verdicts that say something
        assert abs(rank(ours, truth).auroc - expected) < LARGEST_LOSS
