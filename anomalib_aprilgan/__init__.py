# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""APRIL-GAN, zero- and few-shot anomaly detection with CLIP, as a model of anomalib."""

from .anomaly_clip import AnomalyCLIP, AnomalyCLIPModel, AnomalyCLIPPrompts
from .april_gan import AprilGAN, AprilGANAdapters, AprilGANModel
from .components.prompts import PromptEnsemble
from .data import AuxiliaryData
from .host import register

__all__ = [
    "AnomalyCLIP",
    "AnomalyCLIPModel",
    "AnomalyCLIPPrompts",
    "AprilGAN",
    "AprilGANAdapters",
    "AprilGANModel",
    "AuxiliaryData",
    "PromptEnsemble",
]

# Serves imports that come before the start-up hook's turn, and interpreters that run without it.
register(AprilGAN, __name__)
register(AprilGANAdapters, __name__)
register(AnomalyCLIP, __name__)
register(AnomalyCLIPPrompts, __name__)
