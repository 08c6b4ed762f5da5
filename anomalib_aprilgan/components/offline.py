# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Whether the user forbids the network."""

import os

from huggingface_hub import constants

OFFLINE_VARIABLE = "ANOMALIB_APRILGAN_OFFLINE"
HUB_OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
# The last one means the same to the hub's client.
VARIABLES = (OFFLINE_VARIABLE, HUB_OFFLINE_VARIABLE, "TRANSFORMERS_OFFLINE")
REMEDY = f"unset {', '.join(VARIABLES)} where the network may be used."


def forbidden_by() -> str | None:
    """The environment variable that forbids all downloads, or None if they are allowed."""
    for variable in VARIABLES:
        if os.environ.get(variable, "").strip().lower() in {"1", "true", "yes", "on"}:
            return variable
    return HUB_OFFLINE_VARIABLE if constants.HF_HUB_OFFLINE else None  # as the hub's client understands it
