# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What leaves for other runtimes: image in, verdict out, and metadata that say which."""

import hashlib
import logging
from collections.abc import Iterable, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from anomalib.data import AnomalibDataModule, InferenceBatch
from torch import nn

from anomalib_aprilgan.components.clip_source import CLIPSource

from .int8 import quantize_tower
from .quiet import quiet

if TYPE_CHECKING:
    from openvino import Model

logger = logging.getLogger(__name__)

# The exporter writes version 18; anomalib would ask for 14, to which it cannot be converted.
ONNX_DEFAULTS = {"opset_version": 18}
# Anything but None; the parent knows which axes.
DYNAMIC = "by default"
# Methods of the whole detector that a trainer lends to callbacks, as pre- and post-processor are.
LENT_METHODS = ("log", "log_dict")


class ExportedModel(nn.Module):
    """All that a verdict needs and no more: no text tower, metrics or pictures.

    Args:
        pre_processor (nn.Module | None): Makes the model's input of images (N, 3, H, W) in [0, 1].
        model (nn.Module): Makes a verdict of its input.
        post_processor (nn.Module | None): Rescales scores and finds labels.
    """

    def __init__(
        self,
        pre_processor: nn.Module | None,
        model: nn.Module,
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


class SelfDescribingExport:
    """Exports of a detector whose files say what they were made from; a class has it before ``AnomalibModule``."""

    def export_metadata(self) -> dict[str, str]:
        """What all verdicts depend on, with JSON for values; the detector must be set up."""
        raise NotImplementedError

    def to_torch(self: Any, export_root: Path | str, model_file_name: str = "model") -> Path:
        """Export for anomalib's ``TorchInferencer``, with metadata; what only training and tests need stays behind.

        The file names no folder of this machine. It judges as it is: CLIP's weights, which another class name would
        need, do not lie where it is loaded.
        """
        self._settle(keeps_references=True)
        model = copy(self.model)  # tensors are shared
        model.source = self.model.source.without_folders()
        exported = ExportedModel(_by_itself(self.pre_processor), model, _by_itself(self.post_processor))
        path = Path(export_root) / "weights" / "torch" / f"{model_file_name}.pt"
        return save_torch(exported, self.export_metadata(), path)

    def to_onnx(
        self: Any,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,  # ruff: ignore[any-type] - of torch.onnx.export
    ) -> Path:
        """Export as ONNX, with metadata; OpenVINO's model is made of it. Arguments are the parent's.

        Raises:
            ValueError: If the batch is fixed, and so the size, but no size is given.
        """
        if input_size is None and kwargs.get("dynamic_axes", DYNAMIC) is None:
            msg = "dynamic_axes=None fixes batch and size of the images. Name the size, too: input_size=(1024, 1024)."
            raise ValueError(msg)
        self._settle(keeps_references=True)
        if self.model.clip.dtype == torch.bfloat16:
            logger.warning(
                "ONNX Runtime cannot run bf16 on CPUs. Export %s.load_from_checkpoint(PATH, precision='fp32') in "
                "Python; on the command line a checkpoint keeps its precision.",
                type(self).__name__,
            )
        options = {**ONNX_DEFAULTS, **kwargs}
        with quiet("onnx_ir", "onnxscript"):  # a line for every constant
            path: Path = super().to_onnx(export_root, model_file_name, input_size, **options)  # type: ignore[misc]
        return add_metadata(path, self.export_metadata())

    @staticmethod
    def _post_training_quantization_ov(model: "Model", datamodule: AnomalibDataModule | None = None) -> "Model":
        """Quantise for ``INT8_PTQ``, calibrated on the validation images; the parent's would quantise cosines, too.

        Raises:
            ValueError: If there is no datamodule, or it has no validation images.
        """
        if datamodule is None:
            msg = "compression_type='INT8_PTQ' is calibrated on images: give a datamodule, --data on the command line."
            raise ValueError(msg)
        datamodule.setup("fit")
        images = getattr(datamodule, "val_data", None)
        if images is None:
            msg = (
                f"compression_type='INT8_PTQ' is calibrated on validation images, and {datamodule.name} has none: give "
                "it another val_split_mode than none."
            )
            raise ValueError(msg)
        return quantize_tower(model, images)


def digest(tensors: Iterable[torch.Tensor]) -> str | None:
    """SHA-256 of the tensors' bytes; None where there are none."""
    # As bytes: NumPy has no bfloat16.
    contents = [tensor.cpu().flatten().view(torch.uint8).numpy().tobytes() for tensor in tensors if tensor.numel()]
    return hashlib.sha256(b"".join(contents)).hexdigest() if contents else None


def portable_entries(description: Mapping[str, Any], source: CLIPSource, dtype: torch.dtype) -> dict[str, Any]:
    """Metadata of any export: what a checkpoint notes of the model, and its CLIP, files by their names alone."""
    bare = source.without_folders()
    return {
        **description,
        "fingerprint": {**description["fingerprint"], "backbone": bare.backbone},
        "backbone": bare.backbone,
        "pretrained": bare.pretrained,
        "precision": str(dtype).removeprefix("torch."),
    }


def _by_itself(processor: nn.Module | None) -> nn.Module | None:
    """A copy, tensors shared, that does not take the detector along into a pickle."""
    if processor is None:
        return None
    alone = copy(processor)
    for name in LENT_METHODS:
        vars(alone).pop(name, None)
    return alone


def save_torch(exported: ExportedModel, entries: dict[str, str], path: Path) -> Path:
    """Write a file for ``TorchInferencer``; it is pickled, so whoever loads it needs this package."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": exported.eval(), "metadata": entries}, path)
    return path


def add_metadata(path: Path, entries: dict[str, str]) -> Path:
    """Write metadata into an ONNX file, in place of the exporter's, which tell where packages lie on this machine.

    OpenVINO's converter takes them over as ``rt_info["framework"]``.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)  # weights lie in a file of their own and stay there
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, path)
    return path
