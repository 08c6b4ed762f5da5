# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""APRIL-GAN: adapters, memory banks, torch model and anomalib's module."""

from .lightning_model import AprilGAN
from .torch_model import AprilGANModel

__all__ = ["AprilGAN", "AprilGANModel"]
