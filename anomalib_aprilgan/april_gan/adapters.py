# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The linear adapters that map a stage's patch tokens into the text space, and their files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from anomalib_aprilgan.components.clip_tower import CLIPTower
from anomalib_aprilgan.components.download import git_blob_hash
from anomalib_aprilgan.components.trained_file import TrainedWith, not_finite, read_trained, write_trained

AUTHORS_KEY = "trainable_linearlayer"


# What adapters were trained with, as far as their file says.
AdapterMetadata: TypeAlias = TrainedWith

# The authors' published files hold no metadata, so they are known by their git blob hashes
# (github.com/ByChelsea/VAND-APRIL-GAN, commit f13b8a6, exps/pretrained). Their factory left QuickGELU out.
PUBLISHED = {
    blob: AdapterMetadata(
        "ViT-L-14-336", "openai", quick_gelu=False, layers=(6, 12, 18, 24), image_size=518, trained_on=data
    )
    for blob, data in (
        ("a057cec6c2ba5996baa0160a51e155908156813f", "mvtec"),
        ("86d6848c543f8393663d35c0333498ffb5ce9b68", "visa"),
    )
}


class StageAdapters(nn.Module):
    """One linear map a stage, from the stage's width to the text space.

    Source: paper section 2.2; ``LinearLayer`` in the authors' ``model.py``.

    Args:
        widths (Sequence[int]): Channels of every stage.
        embed_dim (int): Dimension E of the text space.
    """

    def __init__(self, widths: Sequence[int], embed_dim: int) -> None:
        super().__init__()
        self.fc = nn.ModuleList(nn.Linear(width, embed_dim) for width in widths)

    def forward(self, tokens: torch.Tensor, place: int) -> torch.Tensor:
        """Map patch tokens (N, P, W) of the stage at a place, from 0, to (N, P, E), not normalised."""
        adapted: torch.Tensor = self.fc[place](tokens)
        return adapted

    @classmethod
    def awaiting_weights(cls, widths: Sequence[int], embed_dim: int) -> "StageAdapters":
        """Adapters whose weights come later, with a checkpoint; they cannot be used before."""
        adapters = cls(widths, embed_dim).eval()
        for parameter in adapters.parameters():
            nn.init.constant_(parameter, float("nan"))
        return adapters

    @property
    def is_loaded(self) -> bool:
        """Whether the weights are there."""
        return not any(parameter.isnan().any() for parameter in self.parameters())

    def save(self, path: str | Path, metadata: AdapterMetadata) -> None:
        """Write weights and metadata as safetensors, all or nothing.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If the weights hold NaN or infinite values.
        """
        write_trained(path, self.state_dict(), metadata)


class ProjectionAdapters(nn.Module):
    """Stand-in where no adapters are trained: CLIP's own final norm and projection, for every stage (ViT only).

    Args:
        tower (CLIPTower): The image tower; not registered again, so that its weights are not held twice.

    Raises:
        ValueError: If the tower is a ResNet, which has no such projection of its patches.
    """

    def __init__(self, tower: CLIPTower) -> None:
        super().__init__()
        if not tower.is_vit:
            msg = "A ResNet backbone cannot localise without trained adapters: pass adapters=PATH, or take a ViT."
            raise ValueError(msg)
        self._tower = [tower]

    def forward(self, tokens: torch.Tensor, place: int) -> torch.Tensor:
        """Map patch tokens (N, P, W) of any stage to (N, P, E), not normalised."""
        del place
        return self._tower[0].project(tokens)


@dataclass(frozen=True)
class AdapterFile:
    """Weights and metadata as read from a file; see :func:`read_adapters`."""

    path: Path
    weights: dict[str, torch.Tensor]
    metadata: AdapterMetadata

    def build(self, layers: Sequence[int], widths: Sequence[int], embed_dim: int) -> StageAdapters:
        """Build the adapters for a model's stages.

        Args:
            layers (Sequence[int]): The model's stages.
            widths (Sequence[int]): Their channels.
            embed_dim (int): Dimension of the text space.

        Returns:
            StageAdapters: In eval mode.

        Raises:
            ValueError: If stages or shapes differ; both sides are named.
        """
        if self.metadata.layers is not None and self.metadata.layers != tuple(layers):
            theirs = list(self.metadata.layers)
            msg = f"{self.path} was trained on layers {theirs}, the model uses {list(layers)}. Give it layers={theirs}."
            raise ValueError(msg)
        adapters = StageAdapters(widths, embed_dim)
        found = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in adapters.state_dict().items()}
        if found != expected:
            msg = f"{self.path} holds {found}, the model with layers {list(layers)} needs {expected}."
            raise ValueError(msg)
        adapters.load_state_dict(self.weights)
        return adapters.eval()

    def check_backbone(self, backbone: str) -> None:
        """Refuse adapters of another architecture, whose shapes may fit by chance.

        Raises:
            ValueError: If the metadata name another backbone.
        """
        self.metadata.check_backbone(backbone, self.path)


def read_adapters(path: str | Path) -> AdapterFile:
    """Read adapters from safetensors (ours) or from a ``.pth`` of the authors' code.

    Args:
        path (str | Path): The file.

    Returns:
        AdapterFile: Weights in float32, and metadata as far as they are known.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no adapters.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        msg = (
            f"adapters={str(path)!r} are neither mvtec, visa, embedded nor a file. Give one of these names, or the "
            "path of a .safetensors file or of a .pth of the authors' code; AprilGAN also takes auto."
        )
        raise FileNotFoundError(msg)
    try:
        weights, metadata = read_trained(path) if path.suffix == ".safetensors" else _read_authors(path)
        weights = {name: tensor.float() for name, tensor in weights.items()}
        _refuse_other_weights(weights)
    except Exception as error:  # whatever a file holds instead, its reader stumbles over it
        msg = f"{path} holds no adapters ({error}). Expected fc.0.weight, ... in safetensors or the authors' .pth."
        raise ValueError(msg) from error
    return AdapterFile(path, weights, metadata)


def _refuse_other_weights(weights: dict[str, torch.Tensor]) -> None:
    others = [name for name in weights if not re.fullmatch(r"fc\.\d+\.(weight|bias)", name)]
    if others or not weights:
        msg = f"it holds {len(others)} other tensors such as {', '.join(others[:2])}" if others else "it is empty"
        raise ValueError(msg)
    if broken := not_finite(weights):
        msg = f"{broken} has NaN or infinite values"
        raise ValueError(msg)


def _read_authors(path: Path) -> tuple[dict[str, torch.Tensor], AdapterMetadata]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    weights = content[AUTHORS_KEY]
    return dict(weights), PUBLISHED.get(git_blob_hash(path), AdapterMetadata())
