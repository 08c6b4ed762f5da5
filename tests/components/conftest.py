# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What several tests of the components need."""

import pytest

from anomalib_aprilgan.components.clip_source import CLIPSource


@pytest.fixture
def golden_source(golden_dir, golden_weights):
    """The golden ViT, not yet built."""
    return CLIPSource.resolve(str(golden_dir / "tiny_vit.json"), str(golden_weights("tiny_vit")))
