# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Make the embedded small CLIP and its adapters from nothing: ``python -m anomalib_aprilgan.demo.train FOLDER``.

Pictures are drawn, then CLIP, adapters and AnomalyCLIP's prompts are trained: an hour and a half on two CPU cores that
have bfloat16. Started again with the same folder, it goes on where it was stopped, with adapters and prompts from their
start. The folder then holds what lies in ``anomalib_aprilgan/embedded``, and 6 GB of pictures.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from anomalib.engine import Engine
from lightning.pytorch import seed_everything

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
from anomalib_aprilgan.components.interrupts import STOPPED, is_stop
from anomalib_aprilgan.components.trained_file import TrainedWith, write_trained
from anomalib_aprilgan.data import AuxiliaryData

from .categories import ADAPTER_TRAINING
from .clip_training import FIRST, SECOND, Stage, train_clip

PROCESSES = 2  # of one thread each: on matrices this small they do nearly twice the work of one with two threads
ADAPTER_LINES = 4  # product lines of each category that the adapters are trained on
ADAPTER_EPOCHS = 4
PROMPT_EPOCHS = 3
PRECISION = "auto"  # of the frozen image tower: the machine's fastest, bfloat16 where the embedded files were made


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
        precision=PRECISION,
    )
    data = adapter_data(folder, lines)
    Engine(default_root_dir=folder / "adapters", max_epochs=epochs, logger=False).fit(model, data)
    trained = read_adapters(str(model.adapters_path))
    _write_embedded(folder / ADAPTERS_FILE, trained.weights, trained.metadata)


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
        str(folder / CONFIG_FILE), str(folder / WEIGHTS_FILE), *EMBEDDED_PROMPTS, precision=PRECISION, visualizer=False
    )
    Engine(default_root_dir=folder / "prompts", max_epochs=epochs, logger=False).fit(model, adapter_data(folder, lines))
    trained = read_prompts(str(model.prompts_path))
    _write_embedded(folder / PROMPTS_FILE, trained.weights, trained.trained_with)


def _write_embedded(path: Path, weights: Mapping[str, torch.Tensor], trained_with: TrainedWith) -> None:
    """In half precision, as the CLIP; it belongs to that by the package's name for it, not to files in a folder."""
    halved = {name: tensor.half() for name, tensor in weights.items()}
    write_trained(path, halved, replace(trained_with, backbone=BACKBONE, pretrained=PRETRAINED))


def train(
    folder: Path,
    first: Stage = FIRST,
    second: Stage = SECOND,
    pairs: int = 32,
    adapter_lines: int = ADAPTER_LINES,
    adapter_epochs: int = ADAPTER_EPOCHS,
    prompt_epochs: int = PROMPT_EPOCHS,
    seed: int = 0,
    processes: int = PROCESSES,
) -> None:
    """Make config, weights, adapters and prompts of the embedded small CLIP.

    Args:
        folder: For the results, and to go on after a stop.
        first: First stage of the CLIP's training.
        second: Second stage, which goes on from the first.
        pairs: Pairs in a batch.
        adapter_lines: Product lines of each category that adapters and prompts learn from.
        adapter_epochs: Epochs of adapter training.
        prompt_epochs: Epochs of prompt training.
        seed: Settles everything on the same machine, with the same number of processes.
        processes: For drawing, and for training on a machine without GPU, where each takes its share of every batch.

    Raises:
        SystemExit: If Ctrl-C stopped it, with status 130; the same command goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        train_clip(folder, (first, second), pairs, seed, processes)
        train_adapters(folder, adapter_lines, adapter_epochs)
        train_prompts(folder, adapter_lines, prompt_epochs, seed)
    except (KeyboardInterrupt, SystemExit) as error:
        if not is_stop(error):
            raise
        sys.stderr.write("Stopped. The same command goes on, with the CLIP from its last whole epoch.\n")
        raise SystemExit(STOPPED) from None
    sys.stdout.write(f"{CONFIG_FILE}, {WEIGHTS_FILE}, {ADAPTERS_FILE} and {PROMPTS_FILE} are in {folder}.\n")


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(train, as_positional=True)
