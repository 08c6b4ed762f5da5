# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AnomalyCLIP as a plain torch module.

Source: "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection" (ICLR 2024), arXiv 2310.18961;
``test.py`` of github.com/zqhang/AnomalyCLIP.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from anomalib.data import InferenceBatch
from anomalib.models.components import DynamicBufferMixin
from torch import nn
from torch.nn import functional

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower, check_layers, patch_tokens
from anomalib_aprilgan.components.image_checks import check_images
from anomalib_aprilgan.components.map_matrices import bilinear_matrix, gaussian_matrix
from anomalib_aprilgan.components.value_attention import check_value_blocks

from .learned_prompts import LearnedPrompts, PromptFile
from .prompt_encoder import PromptEncoder
from .published_prompts import find_prompts

# Value of ``prompt_weights`` for models whose prompts lie in the checkpoint that is about to be loaded.
FROM_CHECKPOINT = "checkpoint"
UNTRAINED = (
    "The prompts are random and not trained yet. Train first, with anomalib train or Engine.fit, or set start_from to "
    "a file of prompts, mvtec, visa or embedded. To judge images with prompts that are trained, use AnomalyCLIP."
)
# Of both softmaxes (section 3.2 of the paper; test.py).
TEMPERATURE = 0.07


class Logits(NamedTuple):
    """How much more N images are like the anomalous prompt than like the normal one.

    Differences of the two cosines, each divided by the temperature; their sigmoid is the softmax of both.

    Attributes:
        image (torch.Tensor): Of the whole image, (N,).
        patches (torch.Tensor): A patch and stage, (N, L, g, g).
    """

    image: torch.Tensor
    patches: torch.Tensor


class AnomalyCLIPModel(DynamicBufferMixin, nn.Module):
    """AnomalyCLIP: frozen CLIP with value-value attention, and one pair of learned prompts for all objects.

    Args:
        backbone (str): open_clip architecture with a ViT, or path of an open_clip model config (JSON).
        pretrained (str | None): open_clip tag, ``hf-hub:org/name``, path of a weights file, or None for random weights
            from a fixed seed.
        image_size (int): Side S in pixels of the square input, a multiple of the patch.
        layers (Sequence[int]): Blocks whose patch features are compared with the prompts, 1-based.
        dpam_layers (int): How many of the last blocks have the second stream, of value-value attention.
        prompt_length (int): Number of learned vectors before the words.
        deep_prompt_length (int): Number of learned vectors in between blocks of the text tower.
        deep_prompt_depth (int): Number of blocks of the text tower with learned vectors; 1 has no deep prompts.
        prompt_weights (str | Path | None): File of learned prompts; ``mvtec`` or ``visa`` for the authors' own, trained
            on that data; ``embedded`` for those of ``aprilgan-tiny``; ``checkpoint`` if they come with a state dict to
            be loaded; None takes random ones and warns.
        sigma (float): Standard deviation in pixels of the Gaussian that smooths the map; 0 leaves it out.
        precision (str): Of the frozen image tower: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for what this machine
            calculates natively.

    Raises:
        ValueError: If an argument is unknown, out of range or contradicts another; the message says which.
        WeightsNotFoundError: If CLIP's weights are neither here nor to be had.

    Example:
        >>> model = AnomalyCLIPModel("ViT-S-32-alt", None, image_size=64, layers=[10], dpam_layers=5)
        >>> model(torch.zeros(2, 3, 64, 64)).anomaly_map.shape
        torch.Size([2, 64, 64])
    """

    text_features: torch.Tensor
    upsampling: torch.Tensor
    smoothing: torch.Tensor

    def __init__(
        self,
        backbone: str = "ViT-L-14-336",
        pretrained: str | None = "openai",
        image_size: int = 518,
        layers: Sequence[int] = (24,),
        dpam_layers: int = 19,
        prompt_length: int = 12,
        deep_prompt_length: int = 4,
        deep_prompt_depth: int = 9,
        prompt_weights: str | Path | None = None,
        sigma: float = 4.0,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        file = None if prompt_weights is None or prompt_weights == FROM_CHECKPOINT else find_prompts(prompt_weights)
        quick_gelu = file.trained_with.quick_gelu if file else None
        self.source = CLIPSource.resolve(backbone, pretrained, quick_gelu)
        if not self.source.is_vit:
            msg = f"backbone={backbone!r} is a ResNet, which has no tokens to attend to. Choose a ViT."
            raise ValueError(msg)
        self.layers = check_layers(layers, self.source.stages)
        self.dpam_layers = check_value_blocks(dpam_layers, self.source.stages, "dpam_layers")
        self.image_size = image_size
        self.sigma = sigma
        self.clip = CLIPTower(
            self.source,
            image_size,
            self.layers,
            precision,
            value_blocks=dpam_layers,
            norm_pooled=False,
            interpolation="bilinear",
        )
        lengths = (prompt_length, deep_prompt_length, deep_prompt_depth)
        self.prompts = LearnedPrompts(self.source.text_width, *lengths)
        self.trained_on: str | None = None
        self.register_buffer("text_features", torch.empty(0))  # (2, E) once the prompts are read; saved with the model
        upsampling = bilinear_matrix(image_size // self.clip.stride, image_size)  # (S, g)
        smoothing = gaussian_matrix(image_size, sigma) @ upsampling
        self.register_buffer("upsampling", upsampling.float(), persistent=False)
        self.register_buffer("smoothing", smoothing.float(), persistent=False)
        if file is not None:
            self.use_prompts(file)
        elif prompt_weights == FROM_CHECKPOINT:
            self.prompts.await_weights()
        else:
            self.read_prompts()
            msg = (
                "No prompt_weights given: the prompts are random, and so are the verdicts. Give a file, or train some "
                "with AnomalyCLIPPrompts."
            )
            warnings.warn(msg, UserWarning, stacklevel=2)

    def use_prompts(self, file: PromptFile) -> None:
        """Take learned prompts and read them; ``trained_on`` then says on which data, if the file does.

        Warns if the file says that they were trained with other weights, layers, ``dpam_layers`` or image size.

        Raises:
            ValueError: If backbone or shapes do not fit.
        """
        file.trained_with.check_backbone(self.source.backbone, file.path)
        file.trained_with.warn_of_weights(file.path, self.source.backbone, self.source.pretrained)
        file.trained_with.warn_of_settings(
            file.path, layers=self.layers, dpam_layers=self.dpam_layers, image_size=self.image_size
        )
        file.load_into(self.prompts)
        self.trained_on = file.trained_with.trained_on
        self.read_prompts()

    def use_activation(self, *, quick_gelu: bool) -> None:
        """Rebuild the image tower with another activation; the prompts must be read anew."""
        if quick_gelu != self.source.quick_gelu:
            self.source = replace(self.source, quick_gelu=quick_gelu)
            self.clip.load(self.source)
            self.clip.to(self.text_features.device)

    @torch.no_grad()
    def read_prompts(self, encoder: PromptEncoder | None = None) -> None:
        """Turn the prompts into the two vectors that images are compared with.

        Args:
            encoder (PromptEncoder | None): The text tower; None builds it for once.
        """
        device = self.text_features.device
        if encoder is None:
            encoder = PromptEncoder(self.source, self.prompts.length).to(device)
        self.text_features = encoder(self.prompts)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One pass of the image tower, everything in the text space and not normalised.

        Args:
            images (torch.Tensor): Preprocessed images, (N, 3, S, S).

        Returns:
            tuple[torch.Tensor, torch.Tensor]: Image features (N, E) and patch features (N, L, P, E).

        Raises:
            ValueError: If the images do not fit or hold NaN.
        """
        check_images(images, self.image_size)

        def project(stage: torch.Tensor) -> torch.Tensor:
            return self.clip.project(patch_tokens(stage))  # (N, P, E)

        pooled, patches = self.clip(images, [(layer, project) for layer in self.layers])
        return pooled, torch.stack(patches, dim=1)

    def logits(self, pooled: torch.Tensor, patches: torch.Tensor, text: torch.Tensor) -> Logits:
        """Compare features with the two prompts; what the prompts learn from.

        Args:
            pooled (torch.Tensor): Image features, (N, E).
            patches (torch.Tensor): Patch features, (N, L, P, E).
            text (torch.Tensor): Unit vectors, normal first, (2, E).
        """
        direction = (text[1] - text[0]) / TEMPERATURE  # (E,)
        image = functional.normalize(pooled, dim=-1) @ direction  # (N,)
        by_patch = functional.normalize(patches, dim=-1) @ direction  # (N, L, P)
        side = self.image_size // self.clip.stride
        return Logits(image, by_patch.unflatten(2, (side, side)))  # (N, L, g, g)

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Judge images, each by itself.

        The authors add the maps of the stages; this takes their mean, which stays in [0, 1].

        Args:
            images (torch.Tensor): Preprocessed images, (N, 3, S, S).

        Returns:
            InferenceBatch: ``anomaly_map`` (N, S, S) and ``pred_score`` (N,), both in [0, 1].

        Raises:
            RuntimeError: If the prompts were to come with a checkpoint and have not come.
            ValueError: If the images do not fit or hold NaN.
        """
        if self.text_features.numel() == 0:
            waiting = (
                f"prompt_weights={FROM_CHECKPOINT!r} needs a checkpoint to be loaded, as does start_from; or pass "
                "a path of prompts."
            )
            raise RuntimeError(UNTRAINED if self.prompts.is_loaded else waiting)
        pooled, patches = self.encode(images)
        # Half precision, which a trainer may have switched on, would move cosines by more than the maps' differences.
        with torch.autocast(images.device.type, enabled=False):
            logits = self.logits(pooled, patches, self.text_features)
            probabilities = torch.sigmoid(logits.patches).mean(dim=1)  # (N, g, g)
            anomaly_map = self.smoothing @ probabilities @ self.smoothing.T  # (N, S, S)
            return InferenceBatch(pred_score=torch.sigmoid(logits.image), anomaly_map=anomaly_map)
