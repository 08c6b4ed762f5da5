# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What leaves for other runtimes: image in, verdict out, and metadata that say which."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib.data import InferenceBatch
from torch import nn

from .checkpoint import describe
from .torch_model import AprilGANModel

# The exporter writes version 18; anomalib would ask for 14, to which it cannot be converted.
ONNX_DEFAULTS = {"opset_version": 18}


class ExportedModel(nn.Module):
    """All that a verdict needs and no more: no text tower, metrics or pictures.

    Args:
        pre_processor (nn.Module | None): Makes the model's input of images (N, 3, H, W) in [0, 1].
        model (AprilGANModel): Image tower, adapters, text vectors and memory banks.
        post_processor (nn.Module | None): Rescales scores and finds labels.
    """

    def __init__(
        self,
        pre_processor: nn.Module | None,
        model: AprilGANModel,
        post_processor: nn.Module | None,
    ) -> None:
        super().__init__()
        self.pre_processor = pre_processor or nn.Identity()
        self.model = model
        self.post_processor = post_processor or nn.Identity()

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Judge images (N, 3, H, W) in [0, 1]."""
        verdict: InferenceBatch = self.post_processor(self.model(self.pre_processor(images)))
        return verdict


def metadata(model: AprilGANModel, reference_paths: Sequence[str]) -> dict[str, str]:
    """What an exported model was made from.

    Args:
        model (AprilGANModel): The model, set up.
        reference_paths (Sequence[str]): Its references' files.

    Returns:
        dict[str, str]: Values are JSON; ``adapters`` and ``references`` are the SHA-256 of the tensors' bytes, null
        where there are none.
    """
    entries: dict[str, Any] = {
        **describe(model),
        "model": "AprilGAN",
        "backbone": model.source.backbone,
        "pretrained": model.source.pretrained,
        "adapters": _digest(model.adapters.state_dict().values()),
        "references": _digest(model.memory_banks.state_dict().values()),
        "reference_files": [Path(path).name for path in reference_paths],
    }
    return {key: json.dumps(value) for key, value in entries.items()}


def _digest(tensors: Iterable[torch.Tensor]) -> str | None:
    contents = [tensor.cpu().contiguous().numpy().tobytes() for tensor in tensors if tensor.numel()]
    return hashlib.sha256(b"".join(contents)).hexdigest() if contents else None


def save_torch(exported: ExportedModel, entries: dict[str, str], path: Path) -> Path:
    """Write a file for ``TorchInferencer``; it is pickled, so whoever loads it needs this package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": exported.eval(), "metadata": entries}, path)
    return path


def add_metadata(path: Path, entries: dict[str, str]) -> Path:
    """Write metadata into an ONNX file; OpenVINO's converter takes them over as ``rt_info["framework"]``."""
    import onnx

    model = onnx.load(path, load_external_data=False)  # weights lie in a file of their own and stay there
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
    return path
