# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Losses on anomaly maps: pure functions, a mean over images.

Source: paper section 2.2; ``loss.py`` of github.com/ByChelsea/VAND-APRIL-GAN.
"""

import torch

# Keeps logarithms finite where a probability is exactly 0 or 1 (loss.py).
SMOOTHING = 1e-5
# Weight of hard pixels in the focal loss (arXiv 1708.02002).
GAMMA = 2
# Added to both sides of the Dice fraction, so that an empty mask has a gradient (loss.py).
DICE_SMOOTHING = 1.0


def focal_loss(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Focal loss on probabilities.

    Args:
        probabilities (torch.Tensor): Of normal and anomalous, softmax done, (N, 2, H, W), in [0, 1].
        target (torch.Tensor): 0 normal, 1 anomalous, (N, H, W).

    Returns:
        torch.Tensor: Mean over all pixels, a scalar.

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> focal_loss(torch.tensor([[[[0.5]], [[0.5]]]]), torch.zeros(1, 1, 1))  # -(1 - 0.5)^2 * log(0.5)
        tensor(0.1733)
    """
    if probabilities.shape[1:2] != (2,) or probabilities[:, 0].shape != target.shape:
        msg = f"Expected probabilities (N, 2, H, W) and target (N, H, W), got {_shapes(probabilities, target)}."
        raise ValueError(msg)
    anomalous = target.to(probabilities.dtype)
    one_hot = torch.stack([1 - anomalous, anomalous], dim=1).clamp(SMOOTHING, 1 - SMOOTHING)  # (N, 2, H, W)
    likelihood = (one_hot * probabilities).sum(dim=1) + SMOOTHING  # (N, H, W)
    return (-((1 - likelihood) ** GAMMA) * likelihood.log()).mean()


def dice_loss(probabilities: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Binary Dice loss: one minus the overlap of map and mask, per image.

    Args:
        probabilities (torch.Tensor): Of anomalous, (N, H, W), in [0, 1].
        target (torch.Tensor): 0 normal, 1 anomalous, (N, H, W).

    Returns:
        torch.Tensor: Mean over images, a scalar in [0, 1).

    Raises:
        ValueError: If the shapes do not fit.

    Example:
        >>> dice_loss(torch.ones(1, 2, 2), torch.tensor([[[1, 1], [0, 0]]]))  # 1 - (2 * 2 + 1) / (4 + 2 + 1)
        tensor(0.2857)
    """
    if probabilities.ndim != 3 or probabilities.shape != target.shape:
        msg = f"Expected probabilities (N, H, W) and target (N, H, W), got {_shapes(probabilities, target)}."
        raise ValueError(msg)
    predicted, actual = probabilities.flatten(1), target.to(probabilities.dtype).flatten(1)  # (N, H*W)
    overlap = (predicted * actual).sum(dim=1)  # (N,)
    total = predicted.sum(dim=1) + actual.sum(dim=1)  # (N,)
    return (1 - (2 * overlap + DICE_SMOOTHING) / (total + DICE_SMOOTHING)).mean()


def _shapes(probabilities: torch.Tensor, target: torch.Tensor) -> str:
    return f"{tuple(probabilities.shape)} and {tuple(target.shape)}"
