# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""CLIP's image tower: one pass gives the pooled feature and the raw features of chosen stages."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from .clip_source import CLIPSource
from .precision import dtype_of, narrow
from .value_attention import check_attention, check_value_blocks, value_streams

# A layer, and what to make of its stage, which must not be changed; runs without gradients and without autocast.
Head: TypeAlias = tuple[int, Callable[[torch.Tensor], torch.Tensor]]


class CLIPFeatures(NamedTuple):
    """Features of N images, in float32.

    Attributes:
        pooled (torch.Tensor): CLIP's own image feature, not normalised, (N, E).
        stages (list[torch.Tensor]): One tensor a stage. ViT: residual stream after the block, or the second stream
            where there is one, class token first, no norm, (N, 1 + g*g, W). ResNet: stage output, (N, C, h, w). With
            heads instead one tensor a head, in their order.
    """

    pooled: torch.Tensor
    stages: list[torch.Tensor]


class CLIPTower(nn.Module):
    """Frozen image tower of a CLIP, always in eval mode.

    Source: stages as in paper section 2.2; ``open_clip/transformer.py`` of the authors' repository.

    Args:
        source (CLIPSource): Architecture, weights and activation.
        image_size (int): Side in pixels of the images to come.
        layers (Sequence[int]): Stages to hand out, 1-based and ascending: blocks of a ViT, the 4 stages of a ResNet.
        precision (str): Of the tower's matrices, see :func:`.precision.dtype_of` and :func:`.precision.narrow`.
        value_blocks (int): How many of a ViT's last blocks have a second stream, see :func:`value_streams`.
        norm_pooled (bool): Whether CLIP's final norm comes before the projection of a ViT's class token.
        interpolation (str): Of the positional embedding at other sizes, see :func:`.positions.resize_positions`.

    Raises:
        ValueError: If image size, layers, precision or value blocks do not fit the architecture.

    Example:
        >>> source = CLIPSource.resolve("ViT-S-32-alt", None)
        >>> tower = CLIPTower(source, image_size=64, layers=[5, 10])
        >>> [tuple(stage.shape) for stage in tower(torch.zeros(2, 3, 64, 64)).stages]
        [(2, 5, 384), (2, 5, 384)]
    """

    def __init__(
        self,
        source: CLIPSource,
        image_size: int,
        layers: Sequence[int],
        precision: str = "fp32",
        *,
        value_blocks: int = 0,
        norm_pooled: bool = True,
        interpolation: str = "bicubic",
    ) -> None:
        super().__init__()
        vision = source.config["vision_cfg"]
        self.is_vit = source.is_vit
        self.stride = source.stride
        check_image_size(image_size, self.stride)
        self.layers = check_layers(layers, source.stages)
        self.image_size = image_size
        self.embed_dim: int = source.config["embed_dim"]
        self.widths = [self._width(vision["width"], layer) for layer in self.layers]
        self.dtype = dtype_of(precision)
        self.value_blocks = check_value_blocks(value_blocks, source.stages if self.is_vit else 0)
        self.norm_pooled = norm_pooled
        self.interpolation = interpolation
        self.load(source)

    def _width(self, base: int, layer: int) -> int:
        """Channels of a stage: constant in a ViT, 4, 8, 16 and 32 times the stem's width in a ResNet."""
        return base if self.is_vit else base * 2 ** (layer + 1)

    def load(self, source: CLIPSource) -> None:
        """Build the tower of a source, in place of any earlier one, on the CPU."""
        visual: Any = source.build_visual(self.image_size, self.interpolation)
        narrow(visual, self.dtype)
        if self.value_blocks:
            check_attention(visual.transformer.resblocks)
        self.visual: nn.Module = visual.requires_grad_(requires_grad=False)
        self._dtypes = self._dtypes_now()

    def _dtypes_now(self) -> set[torch.dtype]:
        return {parameter.dtype for parameter in self.visual.parameters()}

    def train(self, mode: bool = True) -> "CLIPTower":
        """Stay in eval mode: the tower is frozen, and BatchNorm must not see single images."""
        del mode
        return super().train(mode=False)

    @torch.no_grad()
    def forward(self, images: torch.Tensor, heads: Sequence[Head] | None = None) -> CLIPFeatures:
        """Encode preprocessed images.

        Args:
            images (torch.Tensor): Resized and normalised images, (N, 3, S, S).
            heads (Sequence[Head] | None): What to hand out instead of the stages, in this order. A head gets its stage
                in float32 before the next block runs, so that stages do not pile up.

        Returns:
            CLIPFeatures: Pooled feature, and the stages asked for or what the heads made of them.

        Raises:
            RuntimeError: If the weights' precision was changed.
            ValueError: If a head is for another layer than the tower's.
        """
        if (dtypes := self._dtypes_now()) != self._dtypes:
            before, after = (", ".join(sorted(map(str, found))) for found in (self._dtypes, dtypes))
            msg = (
                f"The tower's weights were turned from {before} into {after}, as a trainer's precision like 16-true "
                "does. Leave the trainer's precision at 32 and set the model's precision instead."
            )
            raise RuntimeError(msg)
        if heads is None:
            heads = [(layer, _whole) for layer in self.layers]
        if others := {layer for layer, _ in heads}.difference(self.layers):
            msg = f"There are heads for layers {sorted(others)}, the tower was built with layers={list(self.layers)}."
            raise ValueError(msg)
        made: dict[int, torch.Tensor] = {}
        with torch.autocast(images.device.type, enabled=False):  # the tower's precision is settled
            blocks = self._vit(images) if self.is_vit else self._resnet(images)
            for layer, streams in enumerate(blocks, start=1):
                stream, stage = streams
                if wanted := [place for place, (at, _) in enumerate(heads) if at == layer]:
                    wide = stage.float()
                    made.update({place: heads[place][1](wide) for place in wanted})
                    del wide  # else it would be held while the next block runs
            pooled = self._pool(stream)
        return CLIPFeatures(pooled.float(), [made[place] for place in range(len(heads))])

    def _vit(self, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """After each block the residual stream, and the stream that a stage is taken from."""
        visual: Any = self.visual
        blocks = visual.transformer.resblocks
        first = len(blocks) - self.value_blocks
        stream = self._embed(images)
        if first:
            for after in residual_stream(blocks[:first], stream):
                stream = after
                yield stream, stream
            del after
        doubled = value_streams(blocks[first:], stream)
        del stream  # as after: else they would be held while the blocks run
        yield from doubled

    def _embed(self, images: torch.Tensor) -> torch.Tensor:
        visual: Any = self.visual
        patches = visual.conv1(images.float()).flatten(2).transpose(1, 2)  # (N, g*g, W)
        class_token = visual.class_embedding.expand(images.shape[0], 1, -1)  # (N, 1, W)
        tokens = torch.cat([class_token, patches], dim=1) + visual.positional_embedding  # (N, 1 + g*g, W)
        embedded: torch.Tensor = visual.ln_pre(tokens)
        return embedded

    def _resnet(self, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """After each stage what goes on and what is handed out, which is the same."""
        visual: Any = self.visual
        features = visual.stem(images.to(self.dtype))
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            features = stage(features)
            yield features, features

    def _pool(self, stream: torch.Tensor) -> torch.Tensor:
        """CLIP's image feature, (N, E), of what the last block or stage gave: (N, T, W) or (N, C, h, w)."""
        visual: Any = self.visual
        if self.is_vit:
            class_token = stream[:, 0]  # (N, W)
            pooled: torch.Tensor = (visual.ln_post(class_token) if self.norm_pooled else class_token) @ visual.proj
        else:
            pooled = visual.attnpool(stream)
        return pooled

    @torch.no_grad()
    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Map patch tokens into the text space by CLIP's own final norm and projection (ViT only).

        Args:
            tokens (torch.Tensor): Patch tokens of any stage, (N, P, W).

        Returns:
            torch.Tensor: (N, P, E), not normalised, float32.
        """
        visual: Any = self.visual
        projected: torch.Tensor = visual.ln_post(tokens.float()) @ visual.proj
        return projected


def residual_stream(
    blocks: nn.ModuleList,
    tokens: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
) -> Iterator[torch.Tensor]:
    """Run transformer blocks of open_clip one by one.

    open_clip 2.24.0 builds its blocks for (T, N, W), later versions for (N, T, W); the attention tells which.

    Args:
        blocks (nn.ModuleList): ``transformer.resblocks`` of either tower.
        tokens (torch.Tensor): Input of the first block, (N, T, W).
        attn_mask (torch.Tensor | None): Additive mask, (T, T).

    Yields:
        torch.Tensor: The residual stream after each block, (N, T, W).
    """
    batch_first = getattr(blocks[0].attn, "batch_first", True)
    stream = tokens if batch_first else tokens.transpose(0, 1)
    del tokens  # its memory is free once the first block has run
    for block in blocks:
        stream = block(stream, attn_mask=attn_mask)
        yield stream if batch_first else stream.transpose(0, 1)


def _whole(stage: torch.Tensor) -> torch.Tensor:
    return stage


def patch_tokens(stage: torch.Tensor) -> torch.Tensor:
    """Patch tokens of one stage: the class token of a ViT dropped, the map of a ResNet flattened row by row.

    Args:
        stage (torch.Tensor): (N, 1 + g*g, W) or (N, C, h, w).

    Returns:
        torch.Tensor: (N, g*g, W) or (N, h*w, C).
    """
    if stage.ndim == 4:
        return stage.flatten(2).transpose(1, 2)  # (N, h*w, C)
    return stage[:, 1:]  # (N, g*g, W)


def as_layers(layers: Sequence[int], name: str = "layers") -> tuple[int, ...]:
    """Return a sequence of layers as a tuple.

    Raises:
        ValueError: If it is something else, such as a single number.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        msg = f"{name}={layers!r} must be a list of integers such as [6, 12, 18, 24]."
        raise ValueError(msg)  # ruff: ignore[type-check-without-type-error] - as for every other value of layers
    return tuple(layers)


def check_layers(layers: Sequence[int], number: int, name: str = "layers") -> tuple[int, ...]:
    """Return the layers as a tuple if they are ascending and between 1 and their number.

    Raises:
        ValueError: Otherwise; the authors' code drops such layers silently.
    """
    chosen = as_layers(layers, name)
    valid = all(isinstance(layer, int) and not isinstance(layer, bool) and 1 <= layer <= number for layer in chosen)
    if not chosen or not valid or list(chosen) != sorted(set(chosen)):
        msg = (
            f"{name}={list(chosen)} must be ascending, without duplicates and between 1 and {number} for this backbone."
        )
        raise ValueError(msg)
    return chosen


def check_image_size(image_size: int, stride: int, tiles: int = 1) -> None:
    """Refuse a size of whole images that does not divide into patches, or into tiles of patches.

    Raises:
        ValueError: If ``image_size`` is not a positive multiple of the stride times the tiles side by side.
    """
    purpose = "this backbone" if tiles == 1 else f"this backbone, as the side of an image of {tiles} x {tiles} tiles"
    stride = stride * tiles
    if not isinstance(image_size, int) or image_size <= 0 or image_size % stride:
        is_number = isinstance(image_size, (int, float)) and math.isfinite(image_size)
        nearest = max(stride, round(image_size / stride) * stride) if is_number else 37 * stride
        msg = f"image_size={image_size!r} must be a positive multiple of {stride} for {purpose}, such as {nearest}."
        raise ValueError(msg)
