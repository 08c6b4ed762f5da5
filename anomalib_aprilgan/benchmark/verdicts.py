# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What a model says of the test images, and the image scores that the paper makes of it."""

import time

import numpy as np
import torch
from anomalib.data import ImageBatch
from lightning.pytorch import Callback
from torch.nn import functional

from anomalib_aprilgan.detection.blocks import Array

from .metrics import image_metrics, paper_metrics

# Of each image: its score, its label, the largest value of its map, and, if it has a mask, both whole.
KEPT = ("scores", "labels", "largest", "maps", "masks")


class VerdictCollector(Callback):
    """Keeps the raw scores and maps of a test, with their truth, on the CPU."""

    def __init__(self) -> None:
        self.first_batch_at: float | None = None
        self.map_size: tuple[int, ...] = ()  # none without maps
        self._batches: dict[str, list[torch.Tensor]] = {name: [] for name in KEPT}

    def on_test_batch_start(self, *rest: object) -> None:
        """Note when the model was ready to judge."""
        del rest
        self.first_batch_at = self.first_batch_at or time.perf_counter()

    def on_test_batch_end(self, trainer: object, model: object, outputs: object, batch: ImageBatch, *rest: int) -> None:
        """Keep a batch."""
        del trainer, model, outputs, rest
        if batch.pred_score is None or batch.gt_label is None:
            msg = "The model gives no image scores, or the dataset no labels: there is nothing to measure."
            raise ValueError(msg)
        self._keep("scores", batch.pred_score.flatten())
        self._keep("labels", batch.gt_label.flatten())
        if batch.anomaly_map is not None:
            maps = batch.anomaly_map.reshape(-1, *batch.anomaly_map.shape[-2:])  # (N, H, W)
            self.map_size = tuple(maps.shape[1:])
            self._keep("largest", maps.amax(dim=(1, 2)))
            if batch.gt_mask is not None:
                self._keep("maps", maps)
                self._keep("masks", masks_like(batch.gt_mask, maps))

    def _keep(self, name: str, values: torch.Tensor) -> None:
        values = values.detach().cpu()
        # NumPy has no bfloat16.
        self._batches[name].append(values.float() if values.dtype is torch.bfloat16 else values)

    def arrays(self) -> dict[str, Array]:
        """What was kept of all images, by name: (N,), maps and masks (N, H, W); each batch is let go."""
        images = sum(len(batch) for batch in self._batches["scores"])
        if images == 0:
            msg = "There were no test images. Look at the dataset's folders and splits."
            raise ValueError(msg)
        found: dict[str, Array] = {}
        for name in KEPT:
            batches = self._batches.pop(name)
            if sum(len(batch) for batch in batches) == images:
                found[name] = torch.cat(batches).numpy()
        return found


def masks_like(masks: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Masks at the size of maps (N, H, W), boolean; mostly they are so already, by the model's pre-processor."""
    masks = masks.reshape(len(maps), *masks.shape[-2:])  # (N, H', W')
    values = masks.float()
    if masks.shape != maps.shape:
        values = functional.interpolate(values[:, None], size=maps.shape[-2:], mode="nearest-exact")[:, 0]
    return values > 0.5


def paper_scores(scores: Array, largest: Array) -> Array:
    """The few-shot image scores of the paper, which need all test images of a category at once.

    They are the mean of the text score and the largest value of the map, which is rescaled to [0, 1] over the test
    images (``test.py`` of the authors). AprilGAN's own score is the mean of the text score and the largest value,
    at most 1, as it is, so the text score follows from it.

    Args:
        scores: Of :class:`AprilGAN` with references, (N,).
        largest: Largest values of its raw maps, (N,).

    Raises:
        ValueError: If all maps have the same largest value.

    Example:
        >>> paper_scores(np.array([0.3, 0.4]), np.array([0.2, 0.4])).round(6)
        array([0.2, 0.7])
    """
    largest = largest.astype(np.float64)
    if np.ptp(largest) == 0:
        msg = f"All {len(largest)} maps have the largest value {largest[0]}, so that the paper's score is undefined."
        raise ValueError(msg)
    text_scores = 2 * scores.astype(np.float64) - largest.clip(0, 1)
    return np.asarray((text_scores + (largest - largest.min()) / np.ptp(largest)) / 2)


def judge(found: dict[str, Array], *, has_paper_scores: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics by column: of the streaming protocol, and image metrics of the paper's protocol.

    Args:
        found: As :meth:`VerdictCollector.arrays` gives them.
        has_paper_scores: Whether the paper has another image score for this model.
    """
    labels, scores = found["labels"], found["scores"]
    if "maps" in found:
        streaming = paper_metrics(found["masks"], found["maps"], labels, scores)
    else:  # without masks there are no metrics of pixels
        streaming = image_metrics(labels, scores)
    paper = image_metrics(labels, paper_scores(scores, found["largest"])) if has_paper_scores else {}
    return streaming, paper
