# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Make the embedded small CLIP and its adapters from nothing: ``python -m anomalib_aprilgan.demo.train FOLDER``.

It takes about an hour on two CPU cores, one of which renders. Started again with the same folder, it goes on where it
was stopped. The folder then holds what lies in ``anomalib_aprilgan/embedded``, AnomalyCLIP's prompts with it.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from anomalib.engine import Engine
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Sampler

from anomalib_aprilgan.anomaly_clip import AnomalyCLIPPrompts
from anomalib_aprilgan.anomaly_clip.learned_prompts import read_prompts
from anomalib_aprilgan.april_gan import AprilGANAdapters
from anomalib_aprilgan.april_gan.adapters import read_adapters
from anomalib_aprilgan.components.embedded import (
    ADAPTERS_FILE,
    BACKBONE,
    CONFIG_FILE,
    EMBEDDED_PROMPTS,
    IMAGE_SIZE,
    LAYERS,
    PRETRAINED,
    PROMPTS_FILE,
    WEIGHTS_FILE,
)
from anomalib_aprilgan.components.trained_file import write_trained
from anomalib_aprilgan.data import AuxiliaryData

from .categories import ADAPTER_TRAINING, CATEGORIES
from .clip_batches import GENERAL_NAMES, SYNONYMS, RenderedPairs
from .small_clip import SmallCLIP, json_config

STEPS_AN_EPOCH = 100
# Epochs at each size of the pictures in pixels: coarse first, since an image costs four times as much at 224.
SCHEDULE = {112: 50, 168: 12, 224: 3}
ADAPTER_LINES = 4  # product lines of each category that the adapters are trained on
ADAPTER_EPOCHS = 4
PROMPT_EPOCHS = 3


class Onward(Sampler[int]):
    """Numbers of the steps of one epoch after another; Lightning tells the epoch."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Numbers of the epoch's steps."""
        return iter(range(self.epoch * STEPS_AN_EPOCH, (self.epoch + 1) * STEPS_AN_EPOCH))

    def __len__(self) -> int:
        """Steps an epoch."""
        return STEPS_AN_EPOCH


def train_clip(folder: Path, schedule: dict[int, int], pairs: int, seed: int) -> None:
    """Train the small CLIP, and write config and weights.

    Args:
        folder (Path): For the results, and for ``training.ckpt``, from which a stopped training goes on.
        schedule (dict[int, int]): Epochs of 100 steps at each size in pixels, in this order.
        pairs (int): Pairs of a good and a defective part in a batch.
        seed (int): Settles everything.
    """
    sizes = [size for size, epochs in schedule.items() for _ in range(epochs * STEPS_AN_EPOCH)]
    seed_everything(seed)
    model = SmallCLIP(spoken_names(), steps=len(sizes))
    pictures = RenderedPairs(sizes, pairs, tuple(IMAGENET_CLASSNAMES), seed)
    loader = DataLoader(pictures, batch_size=None, sampler=Onward(), num_workers=1, prefetch_factor=4)
    trainer = Trainer(
        default_root_dir=folder,
        max_epochs=len(sizes) // STEPS_AN_EPOCH,
        precision=_precision(),
        gradient_clip_val=1.0,
        callbacks=[
            TQDMProgressBar(refresh_rate=20),
            ModelCheckpoint(folder, filename="training", enable_version_counter=False),
        ],
        logger=False,
    )
    last = folder / "training.ckpt"
    with sdpa_kernel(SDPBackend.MATH):  # on CPUs its backward pass is the faster one for so few tokens
        trainer.fit(model, loader, ckpt_path=last if last.is_file() else None, weights_only=True)
    model.save(str(folder / WEIGHTS_FILE))
    (folder / CONFIG_FILE).write_text(json_config(), encoding="utf-8")


def spoken_names() -> list[str]:
    """All names that training sentences may hold."""
    known = [name for category in CATEGORIES for name in (category, category.replace("_", " "))]
    return [*IMAGENET_CLASSNAMES, *GENERAL_NAMES, *known, *(word for words in SYNONYMS.values() for word in words)]


def train_adapters(folder: Path, lines: int, epochs: int) -> None:
    """Train adapters for the CLIP in the same folder, on categories that it has not seen.

    Args:
        folder (Path): Where config and weights are, and for the adapters.
        lines (int): Product lines of each category.
        epochs (int): Epochs of adapter training.
    """
    model = AprilGANAdapters(
        backbone=str(folder / CONFIG_FILE),
        pretrained=str(folder / WEIGHTS_FILE),
        image_size=IMAGE_SIZE,
        layers=LAYERS,
    )
    data = adapter_data(folder, lines)
    Engine(default_root_dir=folder / "adapters", max_epochs=epochs, logger=False).fit(model, data)
    trained = read_adapters(str(model.adapters_path))
    # They belong to the CLIP under the name that the package gives it, not to files in this folder.
    belonging = replace(trained.metadata, backbone=BACKBONE, pretrained=PRETRAINED)
    write_trained(folder / ADAPTERS_FILE, trained.weights, belonging)


def adapter_data(folder: Path, lines: int) -> AuxiliaryData:
    """The categories that neither the CLIP nor its figures have, some product lines of each."""
    sources = [
        {
            "class_path": "anomalib_aprilgan.demo.RenderedProducts",
            "init_args": {"category": category, "seed": line, "root": str(folder / "pictures")},
        }
        for category in ADAPTER_TRAINING
        for line in range(1, lines + 1)
    ]
    return AuxiliaryData(sources=sources, image_size=IMAGE_SIZE, num_workers=0)


def train_prompts(folder: Path, lines: int, epochs: int, seed: int) -> None:
    """Train AnomalyCLIP's prompts for the CLIP in the same folder, on what the adapters are trained on.

    Args:
        folder (Path): Where config and weights are, and for the prompts.
        lines (int): Product lines of each category.
        epochs (int): Epochs of prompt training.
        seed (int): Settles the prompts' start.
    """
    seed_everything(seed)
    model = AnomalyCLIPPrompts(
        str(folder / CONFIG_FILE), str(folder / WEIGHTS_FILE), *EMBEDDED_PROMPTS, visualizer=False
    )
    Engine(default_root_dir=folder / "prompts", max_epochs=epochs, logger=False).fit(model, adapter_data(folder, lines))
    trained = read_prompts(str(model.prompts_path))
    belonging = replace(trained.trained_with, backbone=BACKBONE, pretrained=PRETRAINED)  # as of the adapters
    write_trained(folder / PROMPTS_FILE, trained.weights, belonging)


def train(
    folder: Path,
    schedule: dict[int, int] = SCHEDULE,
    pairs: int = 16,
    adapter_lines: int = ADAPTER_LINES,
    adapter_epochs: int = ADAPTER_EPOCHS,
    prompt_epochs: int = PROMPT_EPOCHS,
    seed: int = 0,
) -> None:
    """Make config, weights, adapters and prompts of the embedded small CLIP.

    Args:
        folder: For the results, and to go on after a stop.
        schedule: Epochs of 100 steps at each size of the pictures in pixels.
        pairs: Pairs of a good and a defective part in a batch.
        adapter_lines: Product lines of each category that adapters and prompts learn from.
        adapter_epochs: Epochs of adapter training.
        prompt_epochs: Epochs of prompt training.
        seed: Settles everything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    train_clip(folder, schedule, pairs, seed)
    train_adapters(folder, adapter_lines, adapter_epochs)
    train_prompts(folder, adapter_lines, prompt_epochs, seed)
    sys.stdout.write(f"{CONFIG_FILE}, {WEIGHTS_FILE}, {ADAPTERS_FILE} and {PROMPTS_FILE} are in {folder}.\n")


def _precision() -> Literal["bf16-mixed", "32-true"]:
    """Bfloat16 where the machine multiplies it faster."""
    is_native = torch.cuda.is_available() or "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return "bf16-mixed" if is_native else "32-true"


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(train, as_positional=True)
