# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints of detectors hold all but the frozen CLIP; what they note tells whether they fit a model."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

logger = logging.getLogger(__name__)

CLIP_PREFIX = "model.clip."


def own_entry(checkpoint: dict[str, Any], key: str, model_name: str) -> dict[str, Any]:
    """What a model noted in its checkpoint.

    Raises:
        ValueError: If the checkpoint is of another model.
    """
    if key not in checkpoint:
        msg = f"The checkpoint is not one of {model_name}. Load it with the model that it was made with."
        raise ValueError(msg)
    entry: dict[str, Any] = checkpoint[key]
    return entry


def check_fingerprint(saved: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse a checkpoint that was made with another CLIP or other stages.

    Raises:
        ValueError: If any entry differs; both sides are named.
    """
    # The backbone's name may be a path, which differs between machines; its config is compared.
    different = [key for key in own if key != "backbone" and own[key] != saved.get(key)]
    if different:
        theirs, ours = ({key: side.get(key) for key in ("backbone", *different)} for side in (saved, own))
        msg = f"The checkpoint was made with {theirs}, the model has {ours}. Build the model with the former."
        raise ValueError(msg)


def check_not_contradicted(arguments: dict[str, Any], saved: dict[str, Any]) -> None:
    """Refuse arguments that a checkpoint would overrule.

    Args:
        arguments (dict[str, Any]): The model's arguments; None where the user gave none.
        saved (dict[str, Any]): What the checkpoint says of the same.

    Raises:
        ValueError: If an argument differs; both sides are named.
    """
    for name, value in arguments.items():
        if value is not None and value != saved[name]:
            msg = f"{name}={value!r}, but the checkpoint was made with {saved[name]!r}. Leave {name} out."
            raise ValueError(msg)


def warn_of_unused(arguments: Mapping[str, Any]) -> None:
    """Tell which arguments are of no use, because a checkpoint brings what they would make."""
    if arguments:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        logger.warning("Not used, since the checkpoint brings others: %s. They need a model without it.", given)


def holds_others(state: Mapping[str, torch.Tensor], prefix: str, part: nn.Module) -> bool:
    """Whether a state has other values, or none, for a part of the module that it is for."""
    own = {f"{prefix}{name}": tensor.cpu() for name, tensor in part.state_dict().items()}
    return not all(name in state and torch.equal(state[name].cpu(), tensor) for name, tensor in own.items())


def without_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A module's state without the frozen CLIP."""
    return {name: value for name, value in state.items() if not name.startswith(CLIP_PREFIX)}


def only_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The frozen CLIP's part of a module's state."""
    return {name: value for name, value in state.items() if name.startswith(CLIP_PREFIX)}
