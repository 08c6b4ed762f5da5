# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A detector in INT8: the image tower's blocks alone; pictures, adapters, projections and cosines stay exact."""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import AnomalibDataset
from torch.nn import functional

from anomalib_aprilgan.data.image_guard import unclipped_images

from .quiet import quiet

if TYPE_CHECKING:
    from openvino import Model, Node

NOT_CALCULATED = {"Constant", "Parameter", "Result"}
# What ``functional.normalize`` becomes, before every comparison with text or references.
NORM, PRODUCT = "ReduceL2", "MatMul"
# How far outliers go from activations into weights. NNCF's 0.95 moved maps as far as quantised cosines did; none at all
# moves them as far where single channels are 30 times the others, as they are in large CLIPs.
SMOOTHING = 0.3


def quantize_tower(model: "Model", data: AnomalibDataset) -> "Model":
    """Quantise the image tower of an exported detector.

    Args:
        model (Model): Of OpenVINO, from image to verdict.
        data (AnomalibDataset): Images for calibration, one by one: a fixed batch is 1. The first 300 are used, in the
            model's own size where it has one.
    """
    import nncf

    height, width = model.input().get_partial_shape()[2:]
    size = None if height.is_dynamic or width.is_dynamic else (height.get_length(), width.get_length())
    smoothing = nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
    with quiet("nncf"):  # a line for every operation that stays exact
        return nncf.quantize(
            model,
            nncf.Dataset(data, partial(calibration_image, size=size)),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=outside_tower(model)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=smoothing),
        )


def calibration_image(
    item: Any,  # ruff: ignore[any-type] - fields of an ImageItem may be None, by their type
    size: tuple[int, int] | None,
) -> torch.Tensor:
    """An image of a dataset as an export takes it, (1, 3, H, W), in [0, 1]; 16 bits are scaled, not clipped."""
    images = unclipped_images(item.image[None], [item.image_path] if item.image_path else [])
    return images if size is None else functional.interpolate(images, size, mode="bilinear", antialias=True)


def outside_tower(model: "Model") -> list[str]:
    """Names of the operations up to the first convolution, and of those from normalised features on.

    Features are normalised where an adapter or CLIP's projection made them; these stay outside, too. An error in a
    cosine is multiplied by 100 in the verdict, and one in a pixel goes through all blocks.

    Raises:
        ValueError: If the model has no convolution, or normalises nothing.
    """
    operations = [each for each in model.get_ordered_ops() if each.get_type_name() not in NOT_CALCULATED]
    kinds = [each.get_type_name() for each in operations]
    if missing := {"Convolution", NORM} - set(kinds):
        msg = (
            f"The exported model has no operation {' and no '.join(sorted(missing))}, expected the image tower between "
            "both: what to quantise is unknown. Export without compression, or with compression_type=INT8."
        )
        raise ValueError(msg)
    first = operations[kinds.index("Convolution")]
    before, behind = {first.get_friendly_name()}, set[str]()
    for each in reversed(operations):
        if each.get_friendly_name() in before:
            before |= _sources(each)
    for each in operations:
        if each.get_type_name() == NORM or _sources(each) & behind:
            behind.add(each.get_friendly_name())
        if each.get_type_name() == NORM:
            behind |= _projection(each)
    return [each.get_friendly_name() for each in operations if each.get_friendly_name() in before | behind]


def _projection(operation: "Node") -> set[str]:
    """Names of the products that make what an operation takes, and of all between; none behind a block's sums."""
    sources = [value.get_node() for value in operation.input_values()]
    calculated = [each for each in sources if each.get_type_name() not in NOT_CALCULATED]
    if len(calculated) > 1 and operation.get_type_name() != "Concat":
        return set()
    names = set[str]()
    for each in calculated:
        is_product = each.get_type_name() == PRODUCT
        further = set[str]() if is_product else _projection(each)
        if is_product or further:
            names |= {each.get_friendly_name(), *further}
    return names


def _sources(operation: "Node") -> set[str]:
    """Names of the operations that one takes its input from."""
    return {value.get_node().get_friendly_name() for value in operation.input_values()}
