# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What ``anomalib-aprilgan speed`` times: built with random weights, so that it runs anywhere."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import nn
from torch.nn import functional

from anomalib_aprilgan.anomaly_clip import AnomalyCLIPModel
from anomalib_aprilgan.april_gan import AprilGAN, AprilGANModel
from anomalib_aprilgan.april_gan.memory_bank import MemoryBank
from anomalib_aprilgan.components.precision import dtype_of

from .engine_predict import EnginePredict
from .turns import Timer, timed
from .winclip import BenchmarkWinClip

# WinCLIP's and Patchcore's own sizes; WinCLIP's CLIP is built without its weights.
WINCLIP_BACKBONE = "ViT-B-16-plus-240"
WINCLIP_SIZE = 240
PATCHCORE_SIZE = 224
PATCHCORE_BACKBONE = "wide_resnet50_2"
PATCHCORE_LAYERS = ("layer2", "layer3")
PATCHCORE_CORESET = 0.1
# Normal images a category of MVTec AD, all of which Patchcore takes by default: 3629 of 15.
PATCHCORE_IMAGES = 242
SHOTS = 4
# Part of the blocks that has value-value attention in AnomalyCLIP's paper.
VALUE_PART = 19 / 24
PREDICTED_BATCHES = 4
# Those whose clock and memory we can read.
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Settings:
    """What is timed; see ``anomalib-aprilgan speed``.

    Raises:
        ValueError: If the batch is empty, photographs have no size, or the device is unknown or missing; what the model
            takes, it checks itself.
    """

    backbone: str = "ViT-L-14-336"
    image_size: int = 518
    layers: Sequence[int] = (6, 12, 18, 24)
    precision: str = "fp32"
    batch_size: int = 1
    device: str = "cpu"
    photo_scale: int = 2

    def __post_init__(self) -> None:
        """Tell mistakes before anything is built."""
        check_number("batch_size", self.batch_size, "1 is the default")
        check_number("photo_scale", self.photo_scale, "2 is the default")
        if self.device not in DEVICES:
            msg = (
                f"device={self.device!r} is unknown, expected one of {', '.join(DEVICES)}. Of several GPUs, "
                "CUDA_VISIBLE_DEVICES chooses one."
            )
            raise ValueError(msg)
        if self.device == "cuda" and not torch.cuda.is_available():
            msg = "device='cuda', but PyTorch sees no CUDA GPU. Take cpu, or install PyTorch for your GPU."
            raise ValueError(msg)


def check_number(name: str, value: int, remedy: str) -> None:
    """Refuse numbers of things that are below 1.

    Raises:
        ValueError: If it is.
    """
    if value < 1:
        msg = f"{name}={value} must be at least 1; {remedy}."
        raise ValueError(msg)


# Makes a timer of a pass; whoever needs a model takes the one that is given, so that many share an image tower.
Builder: TypeAlias = Callable[[Settings, AprilGANModel], Timer]


def build_model(settings: Settings) -> AprilGANModel:
    """A zero-shot model with random weights and random text: the verdict costs the same whatever they are."""
    model = AprilGANModel(
        settings.backbone,
        None,
        settings.image_size,
        settings.layers,
        adapters="checkpoint",
        precision=settings.precision,
    )
    for parameter in model.adapters.parameters():
        nn.init.normal_(parameter, std=0.02)
    model.text_features = functional.normalize(torch.randn(2, model.clip.embed_dim), dim=-1)
    model.class_name = "object"  # so that the random text stays
    return model.to(settings.device).eval()


def with_references(model: AprilGANModel, shots: int) -> AprilGANModel:
    """The same parts with memory banks of their own, of random references."""
    few = copy.copy(model)
    banks = nn.ModuleList(MemoryBank(model.clip.dtype) for _ in model.few_shot_layers)
    few._modules = {**model._modules, "memory_banks": banks}  # ruff: ignore[private-member-access] - a deep copy would hold the tower twice
    few.setup(reference_images=torch.randn(shots, 3, model.image_size, model.image_size))
    return few


def tower(settings: Settings, model: AprilGANModel) -> Timer:
    """The yardstick: open_clip's image tower as it is, all of it in the precision."""
    dtype = dtype_of(settings.precision)
    if dtype == torch.float32:
        visual = model.clip.visual
    else:
        visual = model.source.build_visual(settings.image_size).to(settings.device, dtype)
    return _timed_on_images(visual, settings, settings.image_size, dtype)


def zero_shot(settings: Settings, model: AprilGANModel) -> Timer:
    """The whole model, from preprocessed images to maps and scores."""
    return _timed_on_images(model, settings, model.image_size)


def few_shot(settings: Settings, model: AprilGANModel, shots: int) -> Timer:
    """The same with references."""
    return _timed_on_images(with_references(model, shots), settings, model.image_size)


def predict(settings: Settings, model: AprilGANModel) -> Timer:
    """Zero-shot ``Engine.predict`` on JPEG files ``photo_scale`` times as large as the model's input."""
    module = AprilGAN(
        backbone=settings.backbone,
        pretrained=None,
        image_size=settings.image_size,
        layers=settings.layers,
        adapters="checkpoint",
        precision=settings.precision,
        evaluator=False,
        visualizer=False,
    )
    return EnginePredict(
        module, model, settings.batch_size, PREDICTED_BATCHES, settings.photo_scale, settings.device
    ).seconds


def anomaly_clip(settings: Settings, model: AprilGANModel) -> Timer:
    """AnomalyCLIP's whole model in the same image tower; its stage is the last block, as published."""
    source = model.source
    other = AnomalyCLIPModel(
        source.backbone,
        None,
        settings.image_size,
        [source.stages],
        math.ceil(VALUE_PART * source.stages),
        prompt_weights="checkpoint",  # no text tower is needed
        precision=settings.precision,
    )
    other.clip.visual = model.clip.visual
    other.text_features = functional.normalize(torch.randn(2, model.clip.embed_dim), dim=-1)
    return _timed_on_images(other, settings, settings.image_size)


def winclip(settings: Settings, model: AprilGANModel, shots: int) -> Timer:
    """WinClip of anomalib at its own size."""
    del model
    other = BenchmarkWinClip("object", backbone=WINCLIP_BACKBONE, image_size=WINCLIP_SIZE).model
    other.setup("object", torch.randn(shots, 3, WINCLIP_SIZE, WINCLIP_SIZE) if shots else None)
    return _timed_on_images(other, settings, WINCLIP_SIZE)


def patchcore(settings: Settings, model: AprilGANModel, images: int) -> Timer:
    """Patchcore of anomalib at its own size, with a bank as of so many images."""
    del model
    other = PatchcoreModel(PATCHCORE_LAYERS, PATCHCORE_BACKBONE, pre_trained=False).train()
    patches = other(torch.randn(1, 3, PATCHCORE_SIZE, PATCHCORE_SIZE))  # (P, W)
    other.memory_bank = torch.rand(int(PATCHCORE_CORESET * images * len(patches)), patches.shape[1])
    other.embedding_store.clear()
    return _timed_on_images(other, settings, PATCHCORE_SIZE)


def _timed_on_images(model: nn.Module, settings: Settings, side: int, dtype: torch.dtype = torch.float32) -> Timer:
    model.to(settings.device).eval()
    images = torch.randn(settings.batch_size, 3, side, side, device=settings.device, dtype=dtype)
    return timed(lambda: model(images), settings.device)


# Always timed; then what a part adds. Whoever adds a model adds a line.
VERDICTS: dict[str, Builder] = {"zero_shot": zero_shot, "few_shot": partial(few_shot, shots=SHOTS)}
ADDED: dict[str, dict[str, Builder]] = {
    "predict": {"predict": predict},
    "shots": {"few_shot_1": partial(few_shot, shots=1), "few_shot_16": partial(few_shot, shots=16)},
    "anomaly_clip": {"anomaly_clip": anomaly_clip},
    "rivals": {
        "winclip_zero_shot": partial(winclip, shots=0),
        "winclip_few_shot": partial(winclip, shots=SHOTS),
        "patchcore": partial(patchcore, images=SHOTS),
        "patchcore_all_images": partial(patchcore, images=PATCHCORE_IMAGES),
    },
}


# Parts of the report that time no verdicts.
APART = frozenset({"memory", "text", "references"})


def choose(parts: Iterable[str]) -> list[dict[str, Builder]]:
    """Builders of what is timed beside the tower, by name: first what always is, then a dictionary for each part.

    Raises:
        ValueError: If a part is unknown.
    """
    if unknown := [part for part in parts if part not in {*ADDED, *APART}]:
        msg = f"parts={unknown} are unknown, expected any of {', '.join([*ADDED, *sorted(APART)])}."
        raise ValueError(msg)
    return [VERDICTS, *(ADDED[part] for part in dict.fromkeys(parts) if part in ADDED)]
