# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Losses of the adapters, on numbers worked out by hand."""

import numpy as np
import pytest
import torch

from anomalib_aprilgan.april_gan.adapter_losses import stage_losses


def test_stages_are_summed():
    # Probability 1/2 everywhere: focal 1/4 log 2 a stage; dice 1 - (2 * 1 + 1) / (2 + 2 + 1) with half a mask.
    target = torch.tensor([[[1, 1], [0, 0]]])
    focal, dice = stage_losses(torch.zeros(1, 3, 2, 2), target)
    assert focal.item() == pytest.approx(3 * 0.25 * np.log(2), abs=1e-4)
    assert dice.item() == pytest.approx(3 * 0.4)


def test_gradient_reaches_saturated_pixels():
    # One logit 30 says anomalous; 1 - sigmoid(30) is 0 in float32, sigmoid(-30) is not.
    differences = torch.full((1, 1, 1, 1), 30.0, requires_grad=True)
    focal, _ = stage_losses(differences, torch.zeros(1, 1, 1))
    focal.backward()
    assert differences.grad.item() > 0
