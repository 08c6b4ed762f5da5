# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What the adapters are trained to make small: pure functions of logits.

Source: paper section 2.2; ``train.py`` of github.com/ByChelsea/VAND-APRIL-GAN.
"""

import torch

from anomalib_aprilgan.components.anomaly_maps import probability
from anomalib_aprilgan.components.losses import dice_loss, focal_loss


def stage_losses(differences: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Focal and Dice loss, each summed over stages.

    Args:
        differences (torch.Tensor): Logit differences, (N, L, S, S).
        target (torch.Tensor): 0 normal, 1 anomalous, (N, S, S).

    Returns:
        tuple[torch.Tensor, torch.Tensor]: Two scalars.
    """
    focal, dice = differences.new_zeros(()), differences.new_zeros(())
    for difference in differences.unbind(dim=1):  # (N, S, S)
        anomalous = probability(difference)
        # Not 1 - anomalous: near saturation that would round to 0, and so would its gradient.
        focal = focal + focal_loss(torch.stack([probability(-difference), anomalous], dim=1), target)
        dice = dice + dice_loss(anomalous, target)
    return focal, dice
