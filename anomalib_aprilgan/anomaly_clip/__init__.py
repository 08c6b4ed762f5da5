# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AnomalyCLIP: learned prompts and their training, torch model and anomalib's modules."""

from .lightning_model import AnomalyCLIP
from .prompt_training import AnomalyCLIPPrompts
from .torch_model import AnomalyCLIPModel

__all__ = ["AnomalyCLIP", "AnomalyCLIPModel", "AnomalyCLIPPrompts"]
