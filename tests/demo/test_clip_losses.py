# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch

from anomalib_aprilgan.demo.clip_losses import name_loss, patch_loss, rank_loss, state_loss

NORMAL, ANOMALOUS = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
TEXTS = torch.stack([NORMAL, ANOMALOUS])  # (2, E) of one product


def test_state_loss_by_hand():
    pooled = torch.stack([NORMAL, ANOMALOUS])  # one pair, both right
    right = state_loss(pooled, TEXTS.expand(2, 2, 2), scale=1.0)
    wrong = state_loss(pooled.flip(0), TEXTS.expand(2, 2, 2), scale=1.0)
    # Cross entropy of logits (1, 0) with targets 0.99 and 0.01: label smoothing 0.02 over two classes.
    loss = math.log(1 + math.e) - 0.99
    assert right.item() == pytest.approx(loss, abs=1e-6)
    assert wrong.item() == pytest.approx(loss + 0.98, abs=1e-6)


def test_rank_loss_by_hand():
    good, bad = NORMAL, ANOMALOUS
    texts = TEXTS.expand(2, 2, 2)
    right = rank_loss(torch.stack([good, bad]), texts, scale=1.0)
    alike = rank_loss(torch.stack([bad, bad]), texts, scale=1.0)  # both look anomalous: only their order counts
    assert right.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)
    assert alike.item() == pytest.approx(math.log(2), abs=1e-6)


def test_name_loss_by_hand():
    texts = torch.stack([TEXTS, TEXTS.flip(0)])  # two products with exchanged vectors, (P, 2, E)
    pooled = torch.stack([NORMAL, ANOMALOUS, ANOMALOUS, NORMAL])  # each image equals its own sentence
    both = torch.tensor([True, True])
    expected = math.log(1 + math.exp(-1))
    assert name_loss(pooled, texts, ["a", "b"], both, 1.0).item() == pytest.approx(expected, abs=1e-6)
    assert name_loss(pooled, texts, ["a", "a"], both, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert name_loss(pooled, texts, ["a", "b"], ~both, 1.0).item() == 0
    only_first = name_loss(pooled, texts, ["a", "b"], torch.tensor([True, False]), 1.0)
    assert only_first.item() == pytest.approx(0, abs=1e-6)  # nothing else to be mistaken for


def test_patch_loss_by_hand():
    patches = torch.stack([NORMAL, ANOMALOUS])[None]  # (1, 2, E)
    loss = patch_loss(patches, TEXTS[None], torch.tensor([[0.0, 1.0]]), scale=1.0)
    sure = 1 / (1 + math.exp(-1))
    entropy, dice = -math.log(sure), 1 - (2 * sure + 1) / (1 + 1 + 1)  # probabilities 1 - sure and sure make up 1
    assert loss.item() == pytest.approx(entropy + 0.2 * dice, abs=1e-6)
