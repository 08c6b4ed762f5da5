# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What checkpoints and exports note of AprilGAN besides its tensors, and how a model takes it over."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from anomalib_aprilgan.components.embedded import AUTO
from anomalib_aprilgan.components.prompts import as_prompts
from anomalib_aprilgan.detection.checkpoint import check_fingerprint, check_not_contradicted, holds_others
from anomalib_aprilgan.detection.export import digest, portable_entries
from anomalib_aprilgan.detection.plain_data import plain_prompts

from .adapters import ProjectionAdapters, StageAdapters
from .torch_model import FROM_CHECKPOINT, AprilGANModel

ADAPTERS_PREFIX = "model.adapters."


def fingerprint(model: AprilGANModel) -> dict[str, Any]:
    """What a checkpoint depends on: CLIP (architecture, weights, activation), size, tiles and stages, as plain data."""
    return {
        **model.source.fingerprint(),
        "image_size": model.image_size,
        "tiles": model.tiles,
        "layers": list(model.layers),
        "few_shot_layers": list(model.few_shot_layers),
    }


def describe(model: AprilGANModel) -> dict[str, Any]:
    """What a checkpoint notes of a model besides its tensors, as plain data."""
    return {
        "class_name": model.class_name,
        "prompts": plain_prompts(model.prompts),
        "trained_on": model.trained_on,
        "coreset_ratio": model.coreset_ratio,
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
    noted = {"tiles": 1, **saved["fingerprint"]}  # checkpoints that are older than tiles have no word of them
    check_fingerprint(noted, {**fingerprint(model), "quick_gelu": activation})
    model.use_activation(quick_gelu=activation)
    model.class_name = saved["class_name"]
    model.prompts = as_prompts(saved["prompts"])
    model.trained_on = saved["trained_on"]


def unused_arguments(
    model: AprilGANModel, given: Mapping[str, Any], saved: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Arguments that change nothing, because a checkpoint brings references and adapters that were made otherwise.

    Args:
        model (AprilGANModel): The model, before it takes the checkpoint over.
        given (Mapping[str, Any]): Arguments that it was built with.
        saved (Mapping[str, Any]): What the checkpoint notes.
        state (Mapping[str, torch.Tensor]): The checkpoint's tensors.

    Returns:
        dict[str, Any]: Those that somebody has set, by name.
    """
    source = given["few_shot_source"]
    entries = [source] if isinstance(source, (str, Path)) else source or []
    folders = [Path(entry).expanduser().resolve() for entry in entries]
    references = [Path(path).expanduser().resolve() for path in saved["reference_paths"]]
    unused = {
        "few_shot_source": source is not None
        and not all(any(path.is_relative_to(folder) for folder in folders) for path in references),
        **{
            name: given[name] not in {default, saved.get(name, default)}
            for name, default in (("reference_seed", 0), ("coreset_ratio", 1.0))
        },
        "adapters": given["adapters"] not in {None, AUTO, FROM_CHECKPOINT}
        and holds_others(state, ADAPTERS_PREFIX, model.adapters),
    }
    return {name: given[name] for name, is_unused in unused.items() if is_unused}


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


def metadata(model: AprilGANModel, reference_paths: Sequence[str]) -> dict[str, str]:
    """What an exported model was made from.

    Args:
        model (AprilGANModel): The model, set up.
        reference_paths (Sequence[str]): Its references' files.

    Returns:
        dict[str, str]: Values are JSON; files are named without folders; ``adapters`` and ``references`` are the
        SHA-256 of the tensors' bytes, null where there are none.
    """
    entries: dict[str, Any] = {
        **portable_entries(describe(model), model.source, model.clip.dtype),
        "model": "AprilGAN",
        "adapters": digest(model.adapters.state_dict().values()),
        "references": digest(model.memory_banks.state_dict().values()),
        "reference_files": [Path(path).name for path in reference_paths],
    }
    return {key: json.dumps(value) for key, value in entries.items()}
