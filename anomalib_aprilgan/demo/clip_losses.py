# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What the small CLIP is trained to make small: pure functions of unit vectors."""

from collections.abc import Sequence

import torch
from torch.nn import functional


def state_loss(pooled: torch.Tensor, texts: torch.Tensor, scale: float) -> torch.Tensor:
    """Cross entropy of normal against anomalous; the second half of the images is anomalous.

    Args:
        pooled (torch.Tensor): Unit vectors of images, (2P, E).
        texts (torch.Tensor): The two sentences of each image, (2P, 2, E).
        scale (float): Of the cosines.

    Returns:
        torch.Tensor: Loss, ().
    """
    logits = scale * torch.einsum("ne,nce->nc", pooled, texts)
    target = torch.arange(len(pooled), device=pooled.device) * 2 // len(pooled)
    return functional.cross_entropy(logits, target, label_smoothing=0.02)


def rank_loss(pooled: torch.Tensor, texts: torch.Tensor, scale: float) -> torch.Tensor:
    """Cross entropy of each pair's order: the defective part must look more anomalous than the good one of its line.

    RankNet (Burges et al., ICML 2005). Unlike ``state_loss`` it leaves open how anomalous a design looks by itself, and
    an AUROC within a product line asks for no more.

    Args:
        pooled (torch.Tensor): Unit vectors of images, good parts first, (2P, E).
        texts (torch.Tensor): The two sentences of each image, (2P, 2, E).
        scale (float): Of the cosines.

    Returns:
        torch.Tensor: Loss, ().
    """
    good, bad = (scale * torch.einsum("ne,ne->n", pooled, texts[:, 1] - texts[:, 0])).chunk(2)  # (P,) each
    return functional.softplus(good - bad).mean()


def name_loss(
    pooled: torch.Tensor, texts: torch.Tensor, names: Sequence[str], is_true_name: torch.Tensor, scale: float
) -> torch.Tensor:
    """Cross entropy of each image against the sentences of its own state of all pairs; equal names share the target.

    Args:
        pooled (torch.Tensor): Unit vectors of images, (2P, E).
        texts (torch.Tensor): Two sentences of each pair, (P, 2, E).
        names (Sequence[str]): Name of each pair.
        is_true_name (torch.Tensor): Pairs that count, (P,), bool.
        scale (float): Of the cosines.

    Returns:
        torch.Tensor: Loss, ().
    """
    logits = scale * torch.einsum("cpe,qce->cpq", pooled.unflatten(0, (2, -1)), texts)  # (2, P, P)
    logits = logits.masked_fill(~is_true_name, float("-inf"))
    equal = torch.tensor([[a == b for b in names] for a in names], device=pooled.device)  # (P, P)
    shared = logits.masked_fill(~equal, float("-inf")).logsumexp(-1)  # (2, P)
    losses = logits.logsumexp(-1) - shared  # (2, P)
    counted = losses[:, is_true_name]  # (2, those with a true name)
    return counted.sum() / max(1, counted.numel())


def patch_loss(patches: torch.Tensor, texts: torch.Tensor, target: torch.Tensor, scale: float) -> torch.Tensor:
    """Binary cross entropy of patches, and the Dice loss of their whole, which weighs small defects like large ones.

    Args:
        patches (torch.Tensor): Unit vectors, (N, T, E).
        texts (torch.Tensor): The two sentences of each image, (N, 2, E).
        target (torch.Tensor): How anomalous each patch is, 0 to 1, (N, T).
        scale (float): Of the cosines.

    Returns:
        torch.Tensor: Loss, ().
    """
    difference = scale * torch.einsum("nte,ne->nt", patches, texts[:, 1] - texts[:, 0])
    entropy = functional.binary_cross_entropy_with_logits(difference, target)
    probability = difference.sigmoid()
    overlap, total = (probability * target).sum(1), (probability + target).sum(1)
    return entropy + 0.2 * (1 - (2 * overlap + 1) / (total + 1)).mean()
