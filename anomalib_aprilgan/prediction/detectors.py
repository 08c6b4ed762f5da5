# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The models that judge folders, as a command line or a checkpoint names them."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import torch

from anomalib_aprilgan.anomaly_clip import AnomalyCLIP
from anomalib_aprilgan.anomaly_clip.lightning_model import CHECKPOINT_KEY as ANOMALY_CLIP_KEY
from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.april_gan.lightning_model import CHECKPOINT_KEY as APRIL_GAN_KEY

Detector: TypeAlias = AprilGAN | AnomalyCLIP

# By what only their checkpoints hold. The first is taken where none is named.
DETECTORS: dict[str, type[Detector]] = {APRIL_GAN_KEY: AprilGAN, ANOMALY_CLIP_KEY: AnomalyCLIP}


def build_detector(model: Mapping[str, Any] | None, ckpt_path: str | Path | None) -> Detector:
    """Build a model, or load it from a checkpoint, which knows its class and arguments.

    Args:
        model (Mapping[str, Any] | None): ``class_path`` and perhaps ``init_args``, those that are given; they overrule
            the checkpoint's, but for adapters, prompts and references, which lie in it.
        ckpt_path (str | Path | None): A checkpoint.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is of another model.
    """
    known = _class_in(ckpt_path) if ckpt_path else AprilGAN
    detector: Any
    if model is not None:
        module, _, name = model["class_path"].rpartition(".")
        detector, arguments = getattr(import_module(module), name), model.get("init_args", {})
    else:
        detector, arguments = known, {}
    built: Detector = detector.load_from_checkpoint(ckpt_path, **arguments) if ckpt_path else detector(**arguments)
    return built


def _class_in(ckpt_path: str | Path) -> type[Detector]:
    """Whose checkpoint it is; that of any other model is left to AprilGAN, which refuses it."""
    remedy = "Give a run's weights/lightning/model.ckpt."
    if not Path(ckpt_path).is_file():
        msg = f"ckpt_path={str(ckpt_path)!r} is no file. {remedy}"
        raise FileNotFoundError(msg)
    try:
        content = torch.load(ckpt_path, map_location="meta", weights_only=True)
        return next((detector for entry, detector in DETECTORS.items() if entry in content), AprilGAN)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the unpickler stumbles over other files in many ways
        msg = f"ckpt_path={str(ckpt_path)!r} is no checkpoint of ours ({type(error).__name__}). {remedy}"
        raise ValueError(msg) from error
