# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What ``anomalib-aprilgan speed`` times: built with random weights, so that it runs anywhere."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from anomalib_aprilgan import AnomalyCLIPModel, AprilGAN, AprilGANModel
from anomalib_aprilgan.april_gan.adapters import StageAdapters
from anomalib_aprilgan.april_gan.memory_bank import MemoryBank

from .winclip import BenchmarkWinClip

# WinCLIP's and Patchcore's own sizes; WinCLIP's CLIP is built without its weights.
WINCLIP_BACKBONE = "ViT-B-16-plus-240"
WINCLIP_SIZE = 240
PATCHCORE_SIZE = 224
PATCHCORE_BACKBONE = "wide_resnet50_2"
PATCHCORE_LAYERS = ("layer2", "layer3")
PATCHCORE_CORESET = 0.1
SHOTS = 4
# Part of the blocks that has value-value attention in AnomalyCLIP's paper.
VALUE_PART = 19 / 24
# Of photographs in predict, as a multiple of the model's side: they must be resized.
PHOTO_SCALE = 2

Work = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """What is timed; see ``anomalib-aprilgan speed``."""

    backbone: str = "ViT-L-14-336"
    image_size: int = 518
    layers: Sequence[int] = (6, 12, 18, 24)
    precision: str = "fp32"
    batch_size: int = 1
    device: str = "cpu"


def build_model(settings: Settings) -> AprilGANModel:
    """A zero-shot model with random weights and random text: the verdict costs the same whatever they are."""
    model = AprilGANModel(
        settings.backbone,
        None,
        settings.image_size,
        settings.layers,
        precision=settings.precision,
    )
    model.adapters = StageAdapters(model.clip.widths, model.clip.embed_dim)
    model.text_features = functional.normalize(torch.randn(2, model.clip.embed_dim), dim=-1)
    return model.to(settings.device).eval()


def with_references(model: AprilGANModel, shots: int) -> AprilGANModel:
    """The same image tower with a memory bank of its own; random references."""
    few = AprilGANModel.__new__(AprilGANModel)
    few.__dict__ = {**model.__dict__, "_modules": dict(model._modules)}  # ruff: ignore[private-member-access] - a copy would hold the tower twice
    few.memory_banks = nn.ModuleList(MemoryBank() for _ in model.few_shot_layers)
    side = model.image_size
    few.setup(reference_images=torch.randn(shots, 3, side, side))
    return few


def verdicts(settings: Settings, model: AprilGANModel) -> dict[str, Work]:
    """The bare tower, and the whole model zero- and few-shot, from preprocessed images to maps and scores."""
    side = settings.image_size
    images = torch.randn(settings.batch_size, 3, side, side, device=settings.device)
    few = with_references(model, SHOTS)
    half = images.to(model.clip.dtype)
    return {
        "tower": lambda: model.clip.visual(half),
        "zero_shot": lambda: model(images),
        "few_shot": lambda: few(images),
    }


def anomaly_clip(settings: Settings, model: AprilGANModel) -> dict[str, Work]:
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
    other.to(settings.device).eval()
    images = torch.randn(settings.batch_size, 3, settings.image_size, settings.image_size, device=settings.device)
    return {"anomaly_clip": lambda: other(images)}


def rivals(settings: Settings) -> dict[str, Work]:
    """Anomalib's WinClip and Patchcore at their own sizes and defaults, with as many references."""
    winclip, few = (
        BenchmarkWinClip("object", backbone=WINCLIP_BACKBONE, image_size=WINCLIP_SIZE).model for _ in range(2)
    )
    winclip.setup("object")
    few.setup("object", torch.randn(SHOTS, 3, WINCLIP_SIZE, WINCLIP_SIZE))
    patchcore = PatchcoreModel(PATCHCORE_LAYERS, PATCHCORE_BACKBONE, pre_trained=False)
    patchcore.train()
    patchcore(torch.randn(SHOTS, 3, PATCHCORE_SIZE, PATCHCORE_SIZE))
    patchcore.subsample_embedding(PATCHCORE_CORESET)
    models: dict[str, tuple[nn.Module, int]] = {
        "winclip_zero_shot": (winclip, WINCLIP_SIZE),
        "winclip_few_shot": (few, WINCLIP_SIZE),
        "patchcore": (patchcore, PATCHCORE_SIZE),
    }

    def work(model: nn.Module, side: int) -> Work:
        model.to(settings.device).eval()
        images = torch.randn(settings.batch_size, 3, side, side, device=settings.device)
        return lambda: model(images)

    return {name: work(*built) for name, built in models.items()}


class EnginePredict(Callback):
    """``Engine.predict`` on JPEG files, from reading to post-processed verdicts, without pictures.

    Args:
        settings (Settings): Sizes and device.
        model (AprilGANModel): The torch model to use.
        folder (Path): Where photographs are written.
        batches (int): Batches a run; the first, with which the data loader starts, does not count.
    """

    def __init__(self, settings: Settings, model: AprilGANModel, folder: Path, batches: int) -> None:
        super().__init__()
        self.batches = batches
        side = PHOTO_SCALE * settings.image_size
        rng = np.random.default_rng(0)
        for index in range((batches + 1) * settings.batch_size):
            smooth = Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).resize((side, side))
            smooth.save(folder / f"{index:04}.jpg")
        self.module = AprilGAN(
            "object",
            backbone=settings.backbone,
            pretrained=None,
            image_size=settings.image_size,
            layers=settings.layers,
            adapters=None,
            precision=settings.precision,
            evaluator=False,
            visualizer=False,
        )
        self.module.model = model
        self.module.class_name = model.class_name = "object"  # the random text serves
        self.folder, self.settings = folder, settings
        self.engine = Engine(
            callbacks=[self],
            logger=False,
            accelerator="gpu" if settings.device.startswith("cuda") else settings.device,
            devices=1,
            default_root_dir=folder,
            enable_progress_bar=False,
        )
        self.start = self.end = 0.0

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock with the second batch."""
        del trainer, pl_module, batch, dataloader_idx
        if batch_idx == 1:
            self.start = time.perf_counter()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock after the last verdict."""
        del trainer, pl_module
        self.end = time.perf_counter()

    def seconds(self) -> float:
        """Seconds a batch."""
        dataset = PredictDataset(self.folder)
        loader = DataLoader(dataset, self.settings.batch_size, collate_fn=dataset.collate_fn, num_workers=1)
        self.engine.predict(self.module, dataloaders=[loader], return_predictions=False)
        return (self.end - self.start) / self.batches
