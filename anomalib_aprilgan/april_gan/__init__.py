# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""APRIL-GAN: adapters and their training, memory banks, torch model and anomalib's modules."""

from .adapter_training import AprilGANAdapters
from .lightning_model import AprilGAN
from .torch_model import AprilGANModel

__all__ = ["AprilGAN", "AprilGANAdapters", "AprilGANModel"]
