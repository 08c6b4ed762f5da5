# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What checkpoints and exports note of AnomalyCLIP, and how a model takes it over."""

import json
from typing import Any

from anomalib_aprilgan.detection.checkpoint import check_fingerprint
from anomalib_aprilgan.detection.export import digest, portable_entries

from .torch_model import AnomalyCLIPModel


def describe(model: AnomalyCLIPModel) -> dict[str, Any]:
    """What a checkpoint notes, as plain data: what prompts were trained on, and what all verdicts depend on."""
    return {
        "trained_on": model.trained_on,
        "fingerprint": {
            **model.source.fingerprint(),
            "image_size": model.image_size,
            "layers": list(model.layers),
            "dpam_layers": model.dpam_layers,
            "sigma": model.sigma,
            "prompts": [list(tensor.shape) for tensor in model.prompts.state_dict().values()],
        },
    }


def adopt(model: AnomalyCLIPModel, saved: dict[str, Any]) -> None:
    """Let a model take over what a checkpoint notes, if it is one of this CLIP; of the activation it has the say.

    Args:
        model (AnomalyCLIPModel): The model.
        saved (dict[str, Any]): What :func:`describe` said.

    Raises:
        ValueError: If the checkpoint is of another CLIP, or of prompts of other lengths; both sides are named.
    """
    activation = saved["fingerprint"]["quick_gelu"]
    check_fingerprint(saved["fingerprint"], {**describe(model)["fingerprint"], "quick_gelu": activation})
    model.use_activation(quick_gelu=activation)
    model.trained_on = saved["trained_on"]


def metadata(model: AnomalyCLIPModel) -> dict[str, str]:
    """What an exported model was made from.

    Args:
        model (AnomalyCLIPModel): The model, its prompts settled.

    Returns:
        dict[str, str]: Values are JSON; files are named without folders; ``prompts`` is the SHA-256 of their bytes.
    """
    entries: dict[str, Any] = {
        **portable_entries(describe(model), model.source, model.clip.dtype),
        "model": "AnomalyCLIP",
        "prompts": digest(model.prompts.state_dict().values()),
    }
    return {key: json.dumps(value) for key, value in entries.items()}
