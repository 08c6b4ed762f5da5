# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What a checkpoint of AprilGAN holds: all but the frozen CLIP, and a fingerprint of that."""

from typing import Any

import torch

from .adapters import ProjectionAdapters, StageAdapters
from .plain_data import plain_prompts
from .torch_model import AprilGANModel, as_prompts

CLIP_PREFIX = "model.clip."
ADAPTERS_PREFIX = "model.adapters."


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


def fingerprint(model: AprilGANModel) -> dict[str, Any]:
    """What a checkpoint depends on: CLIP (architecture, weights, activation), size and stages, as plain data."""
    return {
        **model.source.fingerprint(),
        "image_size": model.image_size,
        "layers": list(model.layers),
        "few_shot_layers": list(model.few_shot_layers),
    }


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


def describe(model: AprilGANModel) -> dict[str, Any]:
    """What a checkpoint notes of a model besides its tensors, as plain data."""
    return {
        "class_name": model.class_name,
        "prompts": plain_prompts(model.prompts),
        "trained_on": model.trained_on,
        "fingerprint": fingerprint(model),
    }


def adopt(model: AprilGANModel, saved: dict[str, Any], given: dict[str, Any]) -> None:
    """Let a model take over what a checkpoint notes, if it is one of this CLIP; of the activation it has the say.

    Args:
        model (AprilGANModel): The model.
        saved (dict[str, Any]): What :func:`describe` said, and whatever else ``given`` names.
        given (dict[str, Any]): The user's arguments, ``quick_gelu`` among them; None where there is none.

    Raises:
        ValueError: If the checkpoint is of another CLIP, or contradicts an argument; both sides are named.
    """
    activation = saved["fingerprint"]["quick_gelu"]
    check_not_contradicted(given, {**saved, "quick_gelu": activation})
    check_fingerprint(saved["fingerprint"], {**fingerprint(model), "quick_gelu": activation})
    model.use_activation(quick_gelu=activation)
    model.class_name = saved["class_name"]
    model.prompts = as_prompts(saved["prompts"])
    model.trained_on = saved["trained_on"]


def without_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A module's state without the frozen CLIP."""
    return {name: value for name, value in state.items() if not name.startswith(CLIP_PREFIX)}


def only_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The frozen CLIP's part of a module's state."""
    return {name: value for name, value in state.items() if name.startswith(CLIP_PREFIX)}


def make_room_for_adapters(model: AprilGANModel, state: dict[str, torch.Tensor], *, is_free: bool) -> None:
    """Prepare a model for the adapters of a checkpoint, whatever it was built with.

    Args:
        model (AprilGANModel): The model.
        state (dict[str, torch.Tensor]): The checkpoint's tensors.
        is_free (bool): Whether the model's own adapters are nobody's choice, and may be dropped.

    Raises:
        ValueError: If the model has trained adapters and the checkpoint has none: the verdicts would differ.
    """
    has_adapters = any(name.startswith(ADAPTERS_PREFIX) for name in state)
    if not has_adapters and is_free:
        model.adapters = ProjectionAdapters(model.clip)
    elif not has_adapters and isinstance(model.adapters, StageAdapters):
        msg = "The checkpoint was made without trained adapters, the model has some. Leave adapters out."
        raise ValueError(msg)
    elif has_adapters:
        model.await_adapters()
    else:
        pass  # neither has any
