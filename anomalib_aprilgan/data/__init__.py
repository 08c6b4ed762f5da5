# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Data around anomalib's datamodules; knows nothing of the models."""

from .auxiliary import AuxiliaryData
from .masked_images import MaskedImages

__all__ = ["AuxiliaryData", "MaskedImages"]
