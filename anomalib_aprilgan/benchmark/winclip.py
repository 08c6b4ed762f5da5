# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's WinCLIP, made fit for comparisons, and perhaps with another CLIP in it."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from anomalib.models import WinClip
from anomalib.models.image.winclip import torch_model
from anomalib.pre_processing import PreProcessor
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIP
from torch import nn
from torchvision.transforms.v2 import Compose, InterpolationMode, Normalize, Resize

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.data.references import draw_references, list_candidates, load_references
from anomalib_aprilgan.doctor import judge_winclip

logger = logging.getLogger(__name__)


class BenchmarkWinClip(WinClip):
    """Anomalib's WinClip with its own code for every score, and without the traps around it.

    - It can be fitted and tested without validation data; anomalib's fails without ``val_dataloader``.
    - Without a datamodule it waits for one; anomalib's takes the class name ``object`` for good.
    - References are drawn as AprilGAN draws them, and normalised; anomalib's takes those of its training loader,
      which are resized only.

    Args:
        class_name (str | None): Name of the product; defaults as AprilGAN's does.
        k_shot (int): Number of normal references.
        few_shot_source (str | Path | None): Folder of references; defaults to the datamodule's training images.
        reference_seed (int): Seed of the draw of references.
        scales (tuple[int, ...]): Sides of the windows.
        backbone (str | None): Another CLIP instead of WinCLIP's own, where that is out of reach; it says so.
        pretrained (str | None): Its weights; None means random ones.
        image_size (int): Side in pixels of its input; of WinCLIP's own it is 240.
        post_processor (nn.Module | bool): As in anomalib, like the two below.
        evaluator (Any): Metrics.
        visualizer (Any): Images of the results.

    Attributes:
        model (WinClipModel): Anomalib's.
        remarks (str): What readers of results must know.
    """

    model: torch_model.WinClipModel

    def __init__(
        self,
        class_name: str | None = None,
        k_shot: int = 0,
        few_shot_source: str | Path | None = None,
        reference_seed: int = 0,
        scales: tuple[int, ...] = (2, 3),
        backbone: str | None = None,
        pretrained: str | None = None,
        image_size: int = 240,
        post_processor: nn.Module | bool = True,
        evaluator: Any = True,  # ruff: ignore[any-type] - anomalib's own check is the better one
        visualizer: Any = True,  # ruff: ignore[any-type] - likewise
    ) -> None:
        parts: dict[str, Any] = {"post_processor": post_processor, "evaluator": evaluator, "visualizer": visualizer}
        arguments: dict[str, Any] = {"class_name": class_name, "k_shot": k_shot, "few_shot_source": few_shot_source}
        remarks = [f"{finding.subject}: {finding.detail}" for finding in judge_winclip(version("open_clip_torch"))]
        for remark in remarks:
            logger.warning(remark)
        if backbone is None:
            super().__init__(**arguments, scales=tuple(scales), **parts)
        else:
            resize = Resize((image_size, image_size), antialias=True, interpolation=InterpolationMode.BICUBIC)
            normalize = Normalize(OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
            pre_processor = PreProcessor(Compose([resize, normalize]))
            with _put_in_place(build_clip(backbone, pretrained, image_size)):
                super().__init__(**arguments, scales=tuple(scales), pre_processor=pre_processor, **parts)
            weights = "random weights" if pretrained is None else f"weights {pretrained}"
            remarks.append(f"WinCLIP's code with the CLIP {backbone} ({weights}, {image_size} px) instead of its own")
        self.reference_seed = reference_seed
        self.remarks = "; ".join(remarks)

    def setup(self, stage: str) -> None:
        """Settle class name and references, once; a fit without datamodule is too early for it."""
        datamodule = getattr(self._trainer, "datamodule", None)
        if self.is_setup or (datamodule is None and stage == "validate"):
            return
        known = (self.class_name, getattr(datamodule, "category", None), getattr(datamodule, "name", None), "object")
        self.class_name = next(name for name in known if name)
        references = None
        if self.k_shot:
            candidates = list_candidates(self.few_shot_source, datamodule, self.k_shot)
            paths = draw_references(candidates, self.k_shot, self.reference_seed)
            transform = self.pre_processor.transform if isinstance(self.pre_processor, PreProcessor) else None
            references = load_references(paths, transform)
        self.model.setup(self.class_name, references)
        self.is_setup = True

    def val_dataloader(self) -> list[Any]:
        """No validation data where no datamodule gives any."""
        return []


@contextmanager
def _put_in_place(clip: CLIP) -> Generator[None, None, None]:
    """Let anomalib's constructor find a given CLIP where it would load its own."""
    loader = SimpleNamespace(create_model_and_transforms=lambda *_, **__: (clip, None, None))
    home = vars(torch_model)
    original, home["open_clip"] = home["open_clip"], loader
    try:
        yield
    finally:
        home["open_clip"] = original


def build_clip(backbone: str, pretrained: str | None, image_size: int) -> CLIP:
    """A whole open_clip model, both towers, with weights as :class:`AprilGANModel` finds them."""
    source = CLIPSource.resolve(backbone, pretrained)
    clip = source.build_text()
    clip.visual = source.build_visual(image_size)
    length = clip.positional_embedding.shape[0]
    clip.attn_mask = torch.full((length, length), float("-inf")).triu(1)  # a word sees those before it
    return clip.eval()
