# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""APRIL-GAN as a plain torch module: set-up, evidence and verdict.

Source: "A Zero-/Few-Shot Anomaly Classification and Segmentation Method for CVPR 2023 VAND Workshop Challenge Tracks
1&2", arXiv 2305.17382; ``test.py`` of github.com/ByChelsea/VAND-APRIL-GAN.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import DynamicBufferMixin
from torch import nn

from anomalib_aprilgan.components.anomaly_maps import logit_difference, probability, text_probability, upsample
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower, Head, check_image_size, check_layers, patch_tokens
from anomalib_aprilgan.components.image_checks import check_images
from anomalib_aprilgan.components.prompts import PromptEnsemble, as_prompts
from anomalib_aprilgan.components.text_encoder import text_features
from anomalib_aprilgan.components.tiles import check_tiles, cut, join, worst

from .adapters import AdapterFile, ProjectionAdapters, StageAdapters
from .memory_bank import MemoryBank
from .published_adapters import find_adapters

# Value of ``adapters`` for models whose adapters lie in the checkpoint that is about to be loaded.
FROM_CHECKPOINT = "checkpoint"
# References are encoded one by one: then the image tower's memory does not grow with their number, only that of their
# patches.
REFERENCE_BATCH_SIZE = 1


class Evidence(NamedTuple):
    """What speaks for an anomaly in N images.

    Attributes:
        text_score (torch.Tensor): Probability of the anomalous text for the whole image, (N,), in [0, 1]; with tiles
            the largest of theirs.
        zero_shot_maps (torch.Tensor): Probability of the anomalous text a pixel and stage, (N, L, S, S), in [0, 1].
        few_shot_maps (torch.Tensor | None): Cosine distance to the nearest reference patch a pixel and stage,
            (N, L', S, S), in [0, 2]; None without references.
    """

    text_score: torch.Tensor
    zero_shot_maps: torch.Tensor
    few_shot_maps: torch.Tensor | None


class AprilGANModel(DynamicBufferMixin, nn.Module):
    """APRIL-GAN: frozen CLIP, linear adapters, and memory banks of normal references.

    Args:
        backbone (str): open_clip architecture, or path of an open_clip model config (JSON).
        pretrained (str | None): open_clip tag, ``hf-hub:org/name``, path of a weights file, or None for random weights
            from a fixed seed.
        image_size (int): Side S in pixels of the square input, a multiple of the patch times ``tiles``.
        layers (Sequence[int]): Stages compared with the text, 1-based: blocks of a ViT, stages 1-4 of a ResNet.
        few_shot_layers (Sequence[int] | None): Stages compared with references; None takes ``layers``.
        adapters (str | Path | None): File of trained adapters; ``mvtec`` or ``visa`` for the authors' own, trained on
            that data; ``embedded`` for those of ``aprilgan-tiny``; ``checkpoint`` if they come with a state dict to be
            loaded; None uses CLIP's own projection (ViT only) and warns.
        quick_gelu (bool | None): Activation of both towers; None takes the adapters' word, else the registry's.
        prompts (PromptEnsemble | dict[str, Any] | None): States and templates; None takes the paper's.
        precision (str): Of the frozen image tower: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for what this machine
            calculates natively.
        coreset_ratio (float): Part of the references' patches to compare with; below 1 saves time with many references.
        tiles (int): T, to look at images in T x T tiles of S/T pixels, each by itself, for small defects; they go
            through CLIP in one batch of N*T*T. Not in the paper.

    Raises:
        ValueError: If an argument is unknown, out of range or contradicts another; the message says which.
        WeightsNotFoundError: If CLIP's weights are neither here nor to be had.

    Example:
        >>> model = AprilGANModel("ViT-S-32-alt", None, image_size=64, layers=[5, 10])
        >>> model.setup("metal_nut")
        >>> model(torch.zeros(2, 3, 64, 64)).anomaly_map.shape
        torch.Size([2, 64, 64])
    """

    text_features: torch.Tensor

    def __init__(
        self,
        backbone: str = "ViT-L-14-336",
        pretrained: str | None = "openai",
        image_size: int = 518,
        layers: Sequence[int] = (6, 12, 18, 24),
        few_shot_layers: Sequence[int] | None = None,
        adapters: str | Path | None = None,
        quick_gelu: bool | None = None,
        prompts: PromptEnsemble | dict[str, Any] | None = None,
        precision: str = "fp32",
        coreset_ratio: float = 1.0,
        tiles: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < coreset_ratio <= 1:
            msg = f"coreset_ratio={coreset_ratio!r} must be above 0 and at most 1: the part of the references to keep."
            raise ValueError(msg)
        self.coreset_ratio = coreset_ratio
        file = None if adapters is None or adapters == FROM_CHECKPOINT else find_adapters(adapters)
        self.prompts = as_prompts(prompts)
        self.source = CLIPSource.resolve(backbone, pretrained, quick_gelu, file.metadata.quick_gelu if file else None)
        self.layers = check_layers(layers, self.source.stages)
        self.few_shot_layers = check_layers(
            layers if few_shot_layers is None else few_shot_layers, self.source.stages, "few_shot_layers"
        )
        self.image_size = image_size
        self.tiles = check_tiles(tiles)
        check_image_size(image_size, self.source.stride, tiles)
        self.clip = CLIPTower(
            self.source, image_size // tiles, sorted({*self.layers, *self.few_shot_layers}), precision
        )
        self.class_name: str | None = None
        self.register_buffer("text_features", torch.empty(0))  # (2, E) after setup; saved with the model
        self.adapters: StageAdapters | ProjectionAdapters
        self.trained_on: str | None = None
        if file is not None:
            self.use_adapters(file)
        elif adapters == FROM_CHECKPOINT:
            self.await_adapters()
        else:
            self.adapters = ProjectionAdapters(self.clip)
            msg = "No adapters given: the zero-shot map uses CLIP's own projection, which localises poorly."
            warnings.warn(msg, UserWarning, stacklevel=2)
        self.memory_banks = self._empty_banks()

    @property
    def is_few_shot(self) -> bool:
        """Whether references take part in the verdict."""
        return all(bank.is_fitted for bank in _banks_of(self.memory_banks))

    def use_adapters(self, file: AdapterFile) -> None:
        """Take trained adapters; ``trained_on`` then says on which data they were trained, if the file does.

        Raises:
            ValueError: If backbone, stages or shapes do not fit.
        """
        file.check_backbone(self.source.backbone)
        file.metadata.warn_of_weights(file.path, self.source.backbone, self.source.pretrained)
        adapters = file.build(self.layers, self._widths(self.layers), self.clip.embed_dim)
        self.adapters = adapters.to(self.text_features.device)
        self.trained_on = file.metadata.trained_on

    def use_activation(self, *, quick_gelu: bool) -> None:
        """Rebuild the image tower with another activation; call ``setup(class_name)`` afterwards."""
        if quick_gelu != self.source.quick_gelu:
            self.source = replace(self.source, quick_gelu=quick_gelu)
            self.clip.load(self.source)
            self.clip.to(self.text_features.device)

    def await_adapters(self) -> None:
        """Make room for trained adapters that a state dict will bring."""
        adapters = StageAdapters.awaiting_weights(self._widths(self.layers), self.clip.embed_dim)
        self.adapters = adapters.to(self.text_features.device)

    def setup(self, class_name: str | None = None, reference_images: torch.Tensor | None = None) -> None:
        """Settle what is looked for; what is None stays as it is.

        Args:
            class_name (str | None): Name of the product.
            reference_images (torch.Tensor | None): Preprocessed normal images, (K, 3, S, S).

        Raises:
            RuntimeError: If the adapters' weights have not come yet.
            ValueError: If the class name is empty, the images do not fit, or ``coreset_ratio`` keeps none of their
                patches.
        """
        if isinstance(self.adapters, StageAdapters) and not self.adapters.is_loaded:
            msg = f"adapters={FROM_CHECKPOINT!r} needs a checkpoint to be loaded first; or pass the path of adapters."
            raise RuntimeError(msg)
        text = None if class_name is None else text_features(self.source, self.prompts, class_name)  # (2, E)
        banks = None if reference_images is None else self._fitted_banks(reference_images)
        # After all that may fail: never one product's words with another's references, nor banks of both.
        if text is not None:
            self.text_features = text.to(self.text_features.device)
            self.class_name = class_name
        if banks is not None:
            self.memory_banks = banks

    def _fitted_banks(self, images: torch.Tensor) -> nn.ModuleList:
        check_images(images, self.image_size)
        banks = self._empty_banks()
        for batch in cut(images.to(self.text_features.device), self.tiles).split(REFERENCE_BATCH_SIZE):
            tokens = self._tokens_by_layer(self.clip(batch).stages)
            for layer, bank in zip(self.few_shot_layers, _banks_of(banks), strict=True):
                bank.update(tokens[layer])
        for bank in _banks_of(banks):
            bank.finalize(self.coreset_ratio)
        return banks

    def _empty_banks(self) -> nn.ModuleList:
        return nn.ModuleList(MemoryBank(self.clip.dtype) for _ in self.few_shot_layers).train(self.training)

    @torch.no_grad()
    def evidence(self, images: torch.Tensor) -> Evidence:
        """Collect all evidence in one pass of the image tower.

        Args:
            images (torch.Tensor): Preprocessed images, (N, 3, S, S).

        Returns:
            Evidence: Per image, stage and pixel.

        Raises:
            RuntimeError: If no class name was set.
            ValueError: If the images do not fit or hold NaN.
        """
        if self.text_features.numel() == 0:
            msg = (
                "No class name was set: call setup(class_name='...') first; 'object' serves if there is no better name."
            )
            raise RuntimeError(msg)
        check_images(images, self.image_size)
        comparisons = [*self._with_text(), *(self._with_references() if self.is_few_shot else [])]
        # Half precision, which a trainer may have switched on, would move cosines by more than the maps' differences.
        with torch.autocast(images.device.type, enabled=False):
            pooled, compared = self.clip(cut(images, self.tiles), comparisons)  # (N, E), per comparison (N, P)
            differences, distances = compared[: len(self.layers)], compared[len(self.layers) :]
            return Evidence(
                text_score=worst(text_probability(pooled, self.text_features), self.tiles),
                zero_shot_maps=probability(self._to_pixels(differences)),
                few_shot_maps=self._to_pixels(distances) if distances else None,
            )

    def _with_text(self) -> list[Head]:
        def compare(stage: torch.Tensor, place: int) -> torch.Tensor:
            return self._difference(patch_tokens(stage), place, self.text_features)  # (N, P)

        return [(layer, partial(compare, place=place)) for place, layer in enumerate(self.layers)]

    def _with_references(self) -> list[Head]:
        def compare(stage: torch.Tensor, bank: MemoryBank) -> torch.Tensor:
            return bank.distance(patch_tokens(stage))  # (N, P)

        banks = zip(self.few_shot_layers, _banks_of(self.memory_banks), strict=True)
        return [(layer, partial(compare, bank=bank)) for layer, bank in banks]

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        """One pass of the image tower: CLIP's image feature (N, E), and patch tokens (N, P, W) by layer, all kept.

        N counts tiles, all of the first image first.

        Raises:
            ValueError: If the images do not fit or hold NaN.
        """
        check_images(images, self.image_size)
        features = self.clip(cut(images, self.tiles))
        return features.pooled, self._tokens_by_layer(features.stages)

    def text_differences(self, tokens: dict[int, torch.Tensor], text: torch.Tensor) -> torch.Tensor:
        """Logit of the anomalous text minus that of the normal one, a pixel and stage; what the adapters learn from.

        Args:
            tokens (dict[int, torch.Tensor]): Patch tokens by layer, as ``encode`` gives them.
            text (torch.Tensor): Of one class (2, E), or of each image's class (N, 2, E).

        Returns:
            torch.Tensor: (N, L, S, S).
        """
        return self._to_pixels([
            self._difference(tokens[layer], place, text) for place, layer in enumerate(self.layers)
        ])

    def _difference(self, tokens: torch.Tensor, place: int, text: torch.Tensor) -> torch.Tensor:
        """Of the patch tokens (N, P, W) of the layer at this place, (N, P)."""
        return logit_difference(self.adapters(tokens, place), text)

    def _to_pixels(self, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        """Values of patches (N, P) of every stage, and of all tiles, as maps of whole images, (N, L, S, S).

        No seam is drawn between tiles.
        """
        return torch.stack([upsample(join(patches, self.tiles), self.image_size) for patches in stages], dim=1)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Judge images, each by itself.

        The paper adds the stage maps; this takes their mean, which is the same up to a factor and stays near [0, 1].
        Its few-shot image score needs the whole test set (min-max); this one needs the image alone.

        Args:
            images (torch.Tensor): Preprocessed images, (N, 3, S, S).

        Returns:
            InferenceBatch: ``anomaly_map`` (N, S, S), the mean of all stage maps; ``pred_score`` (N,) in [0, 1]: the
            text score, with references its mean with the map's largest value.
        """
        text_score, zero_shot_maps, few_shot_maps = self.evidence(images)
        if few_shot_maps is None:
            return InferenceBatch(pred_score=text_score, anomaly_map=zero_shot_maps.mean(dim=1))
        number = zero_shot_maps.shape[1] + few_shot_maps.shape[1]
        anomaly_map = (zero_shot_maps.sum(dim=1) + few_shot_maps.sum(dim=1)) / number  # (N, S, S)
        largest = anomaly_map.amax(dim=(-2, -1)).clamp(0, 1)  # (N,)
        return InferenceBatch(pred_score=(text_score + largest) / 2, anomaly_map=anomaly_map)

    def _widths(self, layers: Sequence[int]) -> list[int]:
        width = dict(zip(self.clip.layers, self.clip.widths, strict=True))
        return [width[layer] for layer in layers]

    def _tokens_by_layer(self, stages: Sequence[torch.Tensor]) -> dict[int, torch.Tensor]:
        return {layer: patch_tokens(stage) for layer, stage in zip(self.clip.layers, stages, strict=True)}


def _banks_of(banks: nn.ModuleList) -> list[MemoryBank]:
    return [bank for bank in banks if isinstance(bank, MemoryBank)]
