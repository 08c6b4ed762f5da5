# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Images that a model cannot judge are refused."""

import pytest
import torch

from anomalib_aprilgan.components.image_checks import check_images


@pytest.mark.parametrize("shape", [(3, 8, 8), (0, 3, 8, 8), (1, 1, 8, 8), (1, 3, 8, 9)])
def test_shapes(shape):
    with pytest.raises(ValueError, match=r"Expected images \(N, 3, 8, 8\), got .*pre_processor"):
        check_images(torch.zeros(shape), 8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values(value):
    images = torch.zeros(3, 3, 8, 8)
    images[[0, 2], 1, 4, 4] = value
    with pytest.raises(ValueError, match=r"Images \[0, 2\] of the batch hold NaN or infinite values"):
        check_images(images, 8)
