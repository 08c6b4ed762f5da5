# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Files of small trained parts, such as prompts: safetensors that say which frozen CLIP they belong to."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from .cache import write_atomically
from .clip_config import architecture_of
from .clip_source import known_tag


@dataclass(frozen=True)
class TrainedWith:
    """What a part was trained with; None where its file does not say.

    Attributes:
        backbone (str | None): open_clip architecture.
        pretrained (str | None): Tag or source of CLIP's weights.
        quick_gelu (bool | None): Activation of both towers.
        layers (tuple[int, ...] | None): Stages, 1-based.
        image_size (int | None): Side in pixels.
        trained_on (str | None): Data.
        dpam_layers (int | None): How many of the last blocks had value-value attention; adapters know none.
    """

    backbone: str | None = None
    pretrained: str | None = None
    quick_gelu: bool | None = None
    layers: tuple[int, ...] | None = None
    image_size: int | None = None
    trained_on: str | None = None
    dpam_layers: int | None = None

    def check_backbone(self, backbone: str, path: Path) -> None:
        """Refuse parts of another architecture, whose shapes may fit by chance.

        Raises:
            ValueError: If the file names another backbone.
        """
        theirs = self.backbone
        if theirs is None or ".json" in {Path(theirs).suffix, Path(backbone).suffix}:
            return  # the name of a config file says nothing about what is in it
        if architecture_of(theirs) != architecture_of(backbone):  # of the activation, ``quick_gelu`` has the say
            msg = f"{path} was trained with backbone {theirs!r}, the model uses {backbone!r}. Take the same for both."
            raise ValueError(msg)

    def warn_of_weights(self, path: Path, backbone: str, pretrained: str | None) -> None:
        """Warn if a part was trained with other weights of the CLIP, as far as both sides say.

        Args:
            path (Path): Its file.
            backbone (str): Architecture of the model.
            pretrained (str | None): Weights of the model.
        """
        theirs = self.pretrained
        if None not in {theirs, pretrained} and known_tag(backbone, theirs) != known_tag(backbone, pretrained):
            msg = f"{path} was trained with pretrained={theirs!r}, the model uses {pretrained!r}: is it the same CLIP?"
            warnings.warn(msg, UserWarning, stacklevel=4)

    def warn_of_settings(self, path: Path, **ours: object) -> None:
        """Warn if a part is used with other settings than it was trained with; what its file does not say may be any.

        Args:
            path (Path): Its file.
            **ours (object): What the model uses, by the names of the attributes.
        """
        compared = ((name, getattr(self, name), value) for name, value in ours.items())
        others = [(name, theirs, value) for name, theirs, value in compared if theirs not in {None, value}]
        if others:
            trained = ", ".join(f"{name}={_plain(theirs)}" for name, theirs, _ in others)
            used = ", ".join(f"{name}={_plain(value)}" for name, _, value in others)
            msg = f"{path} was trained with {trained}, the model uses {used}: its verdicts may be worse."
            warnings.warn(msg, UserWarning, stacklevel=4)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or infinite values, if any does."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), None)


def write_trained(path: str | Path, tensors: Mapping[str, torch.Tensor], trained_with: TrainedWith) -> None:
    """Write tensors and what they belong to as safetensors, all or nothing.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If a tensor holds NaN or infinite values.
    """
    if broken := not_finite(tensors):
        msg = f"{broken} holds NaN or infinity and is not written: the training diverged. Lower learning_rate."
        raise ValueError(msg)
    described = {key: json.dumps(value) for key, value in asdict(trained_with).items() if value is not None}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(Path(path), save(plain, metadata=described))


def read_trained(path: Path) -> tuple[dict[str, torch.Tensor], TrainedWith]:
    """Read what :func:`write_trained` wrote.

    Raises:
        OSError: If the file cannot be read.
        SafetensorError: If it is no safetensors file.
        ValueError: If its metadata are damaged.
    """
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # ruff: ignore[in-dict-keys] - it is no dict
        described = file.metadata() or {}
    known = {field.name for field in fields(TrainedWith)}  # other tools leave remarks of their own
    metadata: dict[str, Any] = {key: json.loads(value) for key, value in described.items() if key in known}
    if layers := metadata.get("layers"):
        metadata["layers"] = tuple(layers)
    return tensors, TrainedWith(**metadata)
