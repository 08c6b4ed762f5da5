# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""How long a model takes for an image, alone and in company."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .turns import timed

BATCH_SIZES = (1, 8)
WARM_UP = 1
MIN_REPEATS = 3
MAX_REPEATS = 30


class Latency(NamedTuple):
    """Milliseconds an image."""

    median: float
    p95: float


def measure_latency(model: nn.Module, images: torch.Tensor, batch_size: int, seconds: float) -> Latency:
    """Time whole forward passes, from images in memory to scores and maps, on the model's device.

    Args:
        model: A model that takes images as they are read, so with its pre-processor.
        images: (N, 3, H, W), in [0, 1]; they are repeated if there are fewer than the batch has.
        batch_size: Images a pass.
        seconds: When to stop, after three passes at least and thirty at most.
    """
    device = next(model.parameters(), torch.empty(0)).device
    index = torch.arange(batch_size) % len(images)
    batch = images[index].to(device)
    timer = timed(lambda: model(batch), str(device))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for _ in range(WARM_UP):
            timer()
        passes: list[float] = []
        while len(passes) < MIN_REPEATS or (sum(passes) < seconds and len(passes) < MAX_REPEATS):
            passes.append(timer())
    model.train(was_training)
    milliseconds = 1000 * np.array(passes) / batch_size
    return Latency(float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)))
