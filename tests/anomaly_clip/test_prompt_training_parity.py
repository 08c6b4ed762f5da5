# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Losses, gradients and trained prompts agree with AnomalyCLIP's authors' own (see tests/golden_anomaly_clip)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anomalib_aprilgan.anomaly_clip import AnomalyCLIPPrompts
from anomalib_aprilgan.anomaly_clip.prompt_losses import image_loss, pixel_loss
from anomalib_aprilgan.components.losses import dice_loss, focal_loss

TOLERANCE = 1e-5
STEPS = 6


@pytest.fixture
def golden(clip_arrays) -> dict[str, np.ndarray]:
    return clip_arrays("training")


@pytest.fixture
def model(clip_arguments) -> AnomalyCLIPPrompts:
    arguments = clip_arguments("tiny_vit")
    arguments["start_from"] = arguments.pop("prompt_weights")
    return AnomalyCLIPPrompts(**arguments)


def batch(golden: dict[str, np.ndarray], index: int) -> SimpleNamespace:
    return SimpleNamespace(
        image=torch.from_numpy(golden["images"][index]),
        gt_mask=torch.from_numpy(golden["masks"][index])[:, 0],  # soft: the step itself cuts at one half
        gt_label=torch.from_numpy(golden["labels"][index]),
    )


def by_authors_names(context: torch.Tensor, deep: torch.Tensor) -> dict[str, torch.Tensor]:
    names = dict(zip(("ctx_pos", "ctx_neg"), context, strict=True))
    return names | {f"compound_prompts_text.{index}": tensor for index, tensor in enumerate(deep)}


def assert_prompts(model: AnomalyCLIPPrompts, golden: dict[str, np.ndarray], moment: str) -> None:
    prompts = model.model.prompts
    for name, tensor in by_authors_names(prompts.context, prompts.deep).items():
        theirs = torch.from_numpy(golden[f"{moment}.{name}"]).reshape(tensor.shape)
        torch.testing.assert_close(tensor.detach(), theirs, rtol=0, atol=TOLERANCE)


def test_losses_and_prompts_of_six_steps(golden, model):
    optimizer = model.configure_optimizers()
    for step in range(STEPS):
        loss = model.training_step(batch(golden, step % 2), 0)
        assert loss.item() == pytest.approx(golden["image_loss"][step] + golden["pixel_loss"][step], abs=5e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 0:
            assert_prompts(model, golden, "after_step1")
    assert_prompts(model, golden, "final")
    for index in (0, 1):
        total = golden["image_loss_final_per_batch"][index] + golden["pixel_loss_final_per_batch"][index]
        assert model.training_step(batch(golden, index), 0).item() == pytest.approx(total, abs=5e-5)


def test_first_gradients(golden, model):
    model.training_step(batch(golden, 0), 0).backward()
    prompts = model.model.prompts
    for name, gradient in by_authors_names(prompts.context.grad, prompts.deep.grad).items():
        theirs = torch.from_numpy(golden[f"grad_step0.{name}"]).reshape(gradient.shape)
        torch.testing.assert_close(gradient, theirs, rtol=0, atol=1e-3 * theirs.abs().max().item())


def test_parts_of_the_loss(golden, model):
    first = batch(golden, 0)
    model.model.read_prompts(model.encoder)
    logits = model.model.logits(*model.model.encode(first.image), model.model.text_features)
    assert image_loss(logits.image, first.gt_label).item() == pytest.approx(golden["image_loss"][0], abs=2e-5)
    target, up = (first.gt_mask > 0.5).float(), model.model.upsampling
    for stage in range(4):
        anomalous = up @ torch.sigmoid(logits.patches[:, stage]) @ up.T
        both = torch.stack([1 - anomalous, anomalous], dim=1)
        theirs = [golden[f"{name}_per_layer"][0, stage] for name in ("focal", "dice_anomalous", "dice_normal")]
        ours = [focal_loss(both, target), dice_loss(anomalous, target), dice_loss(1 - anomalous, 1 - target)]
        assert [value.item() for value in ours] == pytest.approx(theirs, abs=1e-5)
        together = pixel_loss(logits.patches[:, [stage]], target, up)
        assert together.item() == pytest.approx(sum(theirs), abs=1e-5)
    assert 4 * pixel_loss(logits.patches, target, up).item() == pytest.approx(golden["pixel_loss"][0], abs=5e-5)


@pytest.mark.parametrize("case", ["random", "allzero", "allone", "saturated_right", "saturated_wrong"])
def test_losses_on_probabilities(clip_arrays, case):
    arrays = clip_arrays("losses")
    probabilities = torch.from_numpy(arrays[f"{case}.prob"]).requires_grad_()
    target = torch.from_numpy(arrays[f"{case}.target"])
    losses = {
        "focal": focal_loss(probabilities, target),
        "dice_anomalous": dice_loss(probabilities[:, 1], target),
        "dice_normal": dice_loss(probabilities[:, 0], 1 - target),
    }
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(arrays[f"{case}.{name}"], abs=2e-6)
    (4 * sum(losses.values())).backward()
    theirs = torch.from_numpy(arrays[f"{case}.grad"])
    torch.testing.assert_close(probabilities.grad, theirs, rtol=1e-5, atol=1e-6)


def test_optimizer_has_the_authors_settings(model):
    (group,) = model.configure_optimizers().param_groups
    assert {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")} == {
        "lr": 1e-3,
        "betas": (0.5, 0.999),
        "eps": 1e-8,
        "weight_decay": 0,
    }
    assert sum(parameter.numel() for parameter in group["params"]) == (2 * 6 + 2 * 4) * 128
