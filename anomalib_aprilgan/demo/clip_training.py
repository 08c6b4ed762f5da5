# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Training of the small CLIP in two stages: products of all kinds, and then more cloth among them."""

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.utilities.seed import isolate_rng
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch.utils.data import DataLoader, Subset

from anomalib_aprilgan.components.embedded import CONFIG_FILE, WEIGHTS_FILE
from anomalib_aprilgan.components.precision import native_precision

from .categories import CATEGORIES
from .clip_batches import GENERAL_NAMES, SYNONYMS, Look, PairBatch, PairBatches
from .picture_pool import PicturePool
from .rendering import RENDERER
from .small_clip import SCALE, SmallCLIP, json_config

STEPS_AN_EPOCH = 100


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        half_seen (Mapping[int, int]): Epochs of 100 steps at each size of the pictures in pixels, in this order, in
            which the tower is shown half of the patches: half the time.
        all_seen (Mapping[int, int]): Those that come after, with all patches.
        shares (Mapping[str, float]): Of the pictures, as for ``PicturePool``.
        pool_pairs (int): Pairs of a good and a defective part to draw.
        learning_rate (float): The largest.
        first_scale (float): Of the logits, at the beginning.
    """

    half_seen: Mapping[int, int]
    all_seen: Mapping[int, int]
    shares: Mapping[str, float]
    pool_pairs: int
    learning_rate: float
    first_scale: float

    @property
    def size(self) -> int:
        """Side in pixels at which the pictures are drawn: the largest of all."""
        return max(self.half_seen.keys() | self.all_seen.keys())

    def looks(self) -> list[Look]:
        """How each step looks at its pictures."""
        parts = ((self.half_seen, 0.5), (self.all_seen, 1.0))
        epochs = [Look(size, seen) for part, seen in parts for size, times in part.items() for _ in range(times)]
        return [look for look in epochs for _ in range(STEPS_AN_EPOCH)]


FIRST = Stage(
    half_seen={128: 50},
    all_seen={128: 10},
    # A category that is not named has an even part of the rest: 0 keeps cloth out of this stage.
    shares={"invented_part": 0.4, "invented_surface": 0.2, "nonwoven": 0.0},
    pool_pairs=36_000,
    learning_rate=5e-4,
    first_scale=30.0,
)
SECOND = Stage(
    half_seen={},
    all_seen={192: 4},
    shares={"invented_part": 0.32, "invented_surface": 0.14, "nonwoven": 0.3},
    pool_pairs=8_000,
    learning_rate=4e-4,
    first_scale=SCALE,
)
SECOND_SHARE = 0.7  # of the second stage in the averaged weights


class EpochByEpoch(LightningDataModule):
    """Batches of the epoch that the trainer is in, also where a stopped training goes on.

    Args:
        batches (PairBatches): One for each step of all epochs.
        steps_an_epoch (int): How many of them an epoch has.
    """

    def __init__(self, batches: PairBatches, steps_an_epoch: int) -> None:
        super().__init__()
        self.batches = batches
        self.steps_an_epoch = steps_an_epoch

    def train_dataloader(self) -> DataLoader[PairBatch]:
        """Batches of one epoch; the trainer asks anew for every epoch."""
        trainer: Any = self.trainer
        first = trainer.current_epoch * self.steps_an_epoch
        return DataLoader(Subset(self.batches, range(first, first + self.steps_an_epoch)), batch_size=None)


def train_clip(folder: Path, stages: tuple[Stage, Stage], pairs: int, seed: int, processes: int) -> None:
    """Train the small CLIP, and write config and weights.

    The second stage goes on from the first, more gently and with other pictures. Since it costs some of what was
    learned before, the weights of both are averaged, as WiSE-FT does (arXiv 2109.01903).

    Args:
        folder (Path): For the results, and for the checkpoints from which a stopped training goes on.
        stages (tuple[Stage, Stage]): What to train on.
        pairs (int): Pairs in a batch.
        seed (int): Settles everything on the same machine, with the same number of processes.
        processes (int): On a machine without GPU; each takes its share of every batch.

    Raises:
        RuntimeError: If torch has no optimiser Muon, before anything is drawn.
        ValueError: If the processes cannot share a batch evenly, as early.
    """
    if not hasattr(torch.optim, "Muon"):
        msg = f"torch {torch.__version__} has no optimiser Muon, which this training needs. Install torch 2.9 or later."
        raise RuntimeError(msg)
    if processes < 1 or (pairs % processes and not torch.cuda.is_available()):
        msg = f"processes={processes} cannot share pairs={pairs} evenly. Give a number that divides {pairs}."
        raise ValueError(msg)
    seed_everything(seed)
    models = [SmallCLIP(spoken_names(), len(stage.looks()), stage.learning_rate, stage.first_scale) for stage in stages]
    for number, (model, stage) in enumerate(zip(models, stages, strict=True)):
        if number > 0:
            model.load_state_dict(models[number - 1].state_dict())
        pool = PicturePool(folder / "pictures", stage.pool_pairs, stage.size, seed + number, stage.shares)
        pool.draw(processes)
        batches = PairBatches(pool, stage.looks(), pairs, tuple(IMAGENET_CLASSNAMES), seed + number)
        _fit(model, batches, folder / f"training-{_key(stages[: number + 1], pairs, seed)}.ckpt", processes)
    first, second = models
    _average(first, second, SECOND_SHARE).save(str(folder / WEIGHTS_FILE))
    (folder / CONFIG_FILE).write_text(json_config(), encoding="utf-8")


def _key(stages: tuple[Stage, ...], pairs: int, seed: int) -> str:
    """Of a checkpoint: another training's would go on with another schedule and other pictures."""
    return hashlib.sha256(repr((RENDERER, stages, pairs, seed)).encode()).hexdigest()[:12]


def _fit(model: SmallCLIP, batches: PairBatches, checkpoint: Path, processes: int) -> None:
    on_gpu = torch.cuda.is_available()
    trainer = Trainer(
        default_root_dir=checkpoint.parent,
        devices=1 if on_gpu else processes,
        strategy="auto" if on_gpu or processes == 1 else "ddp_spawn",
        use_distributed_sampler=False,  # the batches share themselves out
        reload_dataloaders_every_n_epochs=1,
        max_epochs=len(batches) // STEPS_AN_EPOCH,
        precision=_precision(),
        callbacks=[
            TQDMProgressBar(refresh_rate=20),
            ModelCheckpoint(checkpoint.parent, filename=checkpoint.stem, enable_version_counter=False),
        ],
        logger=False,
    )
    known = checkpoint if checkpoint.is_file() else None
    with isolate_rng():  # what comes after starts alike, whether this went through, was stopped, or ran elsewhere
        trainer.fit(model, EpochByEpoch(batches, STEPS_AN_EPOCH), ckpt_path=known, weights_only=True)


def _average(first: SmallCLIP, second: SmallCLIP, share: float) -> SmallCLIP:
    mixed = deepcopy(first)
    with torch.no_grad():
        for weight, other in zip(mixed.parameters(), second.parameters(), strict=True):
            weight.lerp_(other, share)
    return mixed


def spoken_names() -> list[str]:
    """All names whose words have a vector of their own: those in training sentences, and the other categories'."""
    known = [name for category in CATEGORIES for name in (category, category.replace("_", " "))]
    return [*IMAGENET_CLASSNAMES, *GENERAL_NAMES, *known, *(word for words in SYNONYMS.values() for word in words)]


def _precision() -> Literal["bf16-mixed", "32-true"]:
    """Bfloat16 where the machine multiplies it faster."""
    return "bf16-mixed" if torch.cuda.is_available() or native_precision() == "bf16" else "32-true"
