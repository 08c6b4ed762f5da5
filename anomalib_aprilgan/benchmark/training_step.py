# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What a training step of the adapters costs, as a multiple of the image tower's forward pass.

``python -m anomalib_aprilgan.benchmark.training_step --backbone ViT-B-16 --image_size 240 --layers '[3,6,9,12]'``
"""

import statistics
import sys
from collections.abc import Sequence

import torch

from anomalib_aprilgan.april_gan import AprilGANAdapters
from anomalib_aprilgan.data.auxiliary_batch import AuxiliaryBatch

from .turns import take_turns, timed


def time_training_step(
    backbone: str = "ViT-L-14-336",
    image_size: int = 518,
    layers: Sequence[int] = (6, 12, 18, 24),
    batch_size: int = 8,
    repeats: int = 5,
) -> str:
    """Time forward passes and whole steps in turns, with random weights, so that it runs anywhere.

    Args:
        backbone: open_clip architecture, or path of an open_clip model config.
        image_size: Side in pixels of the model's input.
        layers: Stages with an adapter.
        batch_size: Images a step.
        repeats: Turns, after one to warm up; the median of their ratios counts.

    Returns:
        One line with the median ratio and its range.
    """
    model = AprilGANAdapters(backbone, None, image_size, layers, visualizer=False)
    batch = AuxiliaryBatch(
        image=torch.rand(batch_size, 3, image_size, image_size),
        gt_mask=torch.arange(image_size * image_size).reshape(1, image_size, -1).expand(batch_size, -1, -1) % 5 == 0,
        class_name=["object"] * batch_size,
    )
    optimizer = model.configure_optimizers()

    def step() -> None:
        optimizer.zero_grad()
        model.training_step(batch, 0).backward()
        optimizer.step()

    turns = take_turns(timed(lambda: model.model.clip(batch.image)), {"step": timed(step)}, repeats)["step"]
    ratios = [turn.own / turn.yardstick for turn in turns]
    return (
        f"{backbone} at {image_size} px, batch {batch_size}, {torch.get_num_threads()} thread(s): a step takes "
        f"{statistics.median(ratios):.2f} x the tower's forward pass ({min(ratios):.2f} to {max(ratios):.2f})."
    )


if __name__ == "__main__":
    from jsonargparse import auto_cli

    sys.stdout.write(f"{auto_cli(time_training_step, as_positional=False)}\n")
