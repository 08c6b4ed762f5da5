# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What AnomalyCLIP's prompts are trained to make small: pure functions of logits.

Source: paper section 3.4; ``train.py`` of github.com/zqhang/AnomalyCLIP.
"""

import torch
from torch.nn import functional

from anomalib_aprilgan.components.losses import dice_loss, focal_loss


def image_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the images' scores.

    Args:
        logits (torch.Tensor): Logit of anomalous minus that of normal, (N,).
        labels (torch.Tensor): 0 normal, 1 anomalous, (N,).

    Returns:
        torch.Tensor: Mean over images, a scalar.

    Example:
        >>> image_loss(torch.zeros(2), torch.tensor([0, 1]))  # log 2
        tensor(0.6931)
    """
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def pixel_loss(logits: torch.Tensor, target: torch.Tensor, upsampling: torch.Tensor) -> torch.Tensor:
    """Focal loss, and Dice losses of anomalous and of normal, summed over stages.

    Probabilities, not logits, are up-sampled, as in the authors' code.

    Args:
        logits (torch.Tensor): Logit of anomalous minus that of normal, (N, L, g, g).
        target (torch.Tensor): 0 normal, 1 anomalous, (N, S, S).
        upsampling (torch.Tensor): Weights that bring a side of g patches to S pixels, (S, g).

    Returns:
        torch.Tensor: Sum of means over images, a scalar.
    """
    # Not 1 - anomalous: near saturation that would round to 0, and so would its gradient.
    pair = torch.sigmoid(torch.stack([-logits, logits], dim=2))  # (N, L, 2, g, g)
    anomalous = target.to(pair.dtype)  # (N, S, S)
    loss = logits.new_zeros(())
    for stage in pair.unbind(dim=1):  # (N, 2, g, g)
        probabilities = upsampling @ stage @ upsampling.T  # (N, 2, S, S)
        loss = loss + focal_loss(probabilities, anomalous)
        loss = loss + dice_loss(probabilities[:, 1], anomalous) + dice_loss(probabilities[:, 0], 1 - anomalous)
    return loss
