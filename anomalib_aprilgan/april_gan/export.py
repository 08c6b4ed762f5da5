# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What an exported AprilGAN says of itself."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalib_aprilgan.detection.export import digest, portable_entries

from .checkpoint import describe
from .torch_model import AprilGANModel


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
