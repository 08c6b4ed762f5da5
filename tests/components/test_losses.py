# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Losses: the authors' values and gradients, numbers made by hand, and shapes that do not fit."""

import math

import pytest
import torch

from anomalib_aprilgan.components.losses import dice_loss, focal_loss

CASES = ["random", "allzero", "allone", "mixed", "saturated_right", "saturated_wrong"]


class TestParity:
    @staticmethod
    def assert_equal(loss: torch.Tensor, probabilities: torch.Tensor, arrays, name: str) -> None:
        """Value and gradient of a loss are the stored ones."""
        assert loss.item() == pytest.approx(arrays[name].item(), abs=1e-5)
        loss.backward()
        expected = torch.from_numpy(arrays[f"{name}_grad"])
        torch.testing.assert_close(probabilities.grad, expected, rtol=1e-5, atol=1e-5)

    @pytest.fixture(params=CASES)
    def case(self, request, golden_arrays):
        arrays = golden_arrays("losses")
        name = request.param
        probabilities = torch.from_numpy(arrays[f"{name}.prob"]).requires_grad_()
        return name, probabilities, torch.from_numpy(arrays[f"{name}.target"]), arrays

    def test_focal_is_the_authors(self, case):
        name, probabilities, target, arrays = case
        self.assert_equal(focal_loss(probabilities, target), probabilities, arrays, f"{name}.focal")

    def test_dice_is_the_authors(self, case):
        name, probabilities, target, arrays = case
        self.assert_equal(dice_loss(probabilities[:, 1], target), probabilities, arrays, f"{name}.dice")


class TestBatchOfOne:
    """The authors squeeze its mask to (H, W), and their Dice loss takes the rows for images. We do not."""

    @pytest.fixture
    def arrays(self, golden_arrays):
        arrays = golden_arrays("losses")
        return {name: torch.from_numpy(arrays[f"batch1_squeezed.{name}"]) for name in ("prob", "target", "dice")}

    def test_a_squeezed_mask_is_refused(self, arrays):
        with pytest.raises(ValueError, match=r"\(N, H, W\) and target \(N, H, W\), got \(1, 8, 6\) and \(8, 6\)"):
            dice_loss(arrays["prob"][:, 1], arrays["target"])
        with pytest.raises(ValueError, match=r"\(N, 2, H, W\) and target \(N, H, W\), got \(1, 2, 8, 6\) and \(8, 6\)"):
            focal_loss(arrays["prob"], arrays["target"])

    def test_the_authors_take_rows_for_images(self, arrays):
        rows = arrays["prob"][0, 1].unsqueeze(1), arrays["target"].unsqueeze(1)  # (8, 1, 6)
        assert dice_loss(*rows).item() == pytest.approx(arrays["dice"].item(), abs=1e-5)

    def test_we_count_one_image(self, arrays):
        predicted, actual = arrays["prob"][0, 1], arrays["target"]
        expected = 1 - (2 * (predicted * actual).sum() + 1) / (predicted.sum() + actual.sum() + 1)
        ours = dice_loss(predicted[None], actual[None]).item()
        assert ours == pytest.approx(expected.item(), abs=1e-6)
        assert ours != pytest.approx(arrays["dice"].item(), abs=1e-3)


class TestByHand:
    def test_focal_of_one_half(self):
        # -(1 - 1/2)^2 log(1/2), whatever the target.
        for target in (0, 1):
            loss = focal_loss(torch.full((1, 2, 3, 4), 0.5), torch.full((1, 3, 4), target))
            assert loss.item() == pytest.approx(math.log(2) / 4, abs=1e-4)

    def test_focal_is_a_mean_over_pixels(self):
        # Likelihoods 0.8 and 0.1: -(0.2^2 log 0.8 + 0.9^2 log 0.1) / 2.
        anomalous = torch.tensor([[[0.2, 0.1]]])
        loss = focal_loss(torch.stack([1 - anomalous, anomalous], dim=1), torch.tensor([[[0, 1]]]))
        assert loss.item() == pytest.approx(-(0.04 * math.log(0.8) + 0.81 * math.log(0.1)) / 2, abs=2e-4)

    @pytest.mark.parametrize(
        ("predicted", "mask", "expected"),
        [
            ([1, 1, 0, 0], [1, 1, 0, 0], 0.0),
            ([0, 0, 0, 0], [0, 0, 0, 0], 0.0),
            ([1, 1, 1, 1], [0, 0, 0, 0], 1 - 1 / 5),
            ([0, 0, 0, 0], [1, 1, 1, 1], 1 - 1 / 5),
            ([0.5, 0.5, 0, 0], [1, 0, 0, 0], 1 - (2 * 0.5 + 1) / (1 + 1 + 1)),
        ],
    )
    def test_dice_of_an_image(self, predicted, mask, expected):
        loss = dice_loss(torch.tensor(predicted).float().view(1, 2, 2), torch.tensor(mask).view(1, 2, 2))
        assert loss.item() == pytest.approx(expected, abs=1e-6)

    def test_dice_is_a_mean_over_images(self):
        # An image that is right, and one all wrong: (0 + 4/5) / 2. One fraction over both would give 1 - 5/9.
        predicted = torch.tensor([[[1.0, 1], [0, 0]], [[1, 1], [1, 1]]])
        assert dice_loss(predicted, torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 0]]])).item() == pytest.approx(0.4)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float64])
    def test_masks_of_any_type(self, dtype):
        target = torch.tensor([[[1, 1], [0, 0]]])
        anomalous = torch.rand(1, 2, 2)
        probabilities = torch.stack([1 - anomalous, anomalous], dim=1)
        assert torch.equal(dice_loss(anomalous, target.to(dtype)), dice_loss(anomalous, target.float()))
        assert torch.equal(focal_loss(probabilities, target.to(dtype)), focal_loss(probabilities, target.float()))


class TestSaturation:
    @pytest.mark.parametrize(("anomalous", "mask"), [(0.0, 0), (0.0, 1), (1.0, 0), (1.0, 1)])
    def test_losses_and_gradients_stay_finite(self, anomalous, mask):
        probabilities = torch.tensor([1 - anomalous, anomalous]).view(1, 2, 1, 1).requires_grad_()
        target = torch.full((1, 1, 1), mask)
        loss = focal_loss(probabilities, target) + dice_loss(probabilities[:, 1], target)
        loss.backward()
        assert loss.isfinite()
        assert probabilities.grad.isfinite().all()

    def test_largest_focal_loss(self):
        # Likelihood 2e-5: 1e-5 of the clamped one-hot target and 1e-5 of smoothing.
        loss = focal_loss(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1), torch.ones(1, 1, 1))
        assert loss.item() == pytest.approx(-((1 - 2e-5) ** 2) * math.log(2e-5), abs=1e-3)


class TestShapes:
    @pytest.mark.parametrize(
        ("probabilities", "target"),
        [((2, 4, 4), (2, 4, 4)), ((2, 1, 4, 4), (2, 4, 4)), ((2, 2, 4, 4), (2, 1, 4, 4)), ((2, 2, 4, 4), (2, 4, 5))],
    )
    def test_focal_refuses(self, probabilities, target):
        with pytest.raises(ValueError, match=r"Expected probabilities \(N, 2, H, W\) and target \(N, H, W\), got"):
            focal_loss(torch.zeros(probabilities), torch.zeros(target))

    @pytest.mark.parametrize(
        ("probabilities", "target"),
        [((2, 2, 4, 4), (2, 4, 4)), ((4, 4), (4, 4)), ((2, 4, 4), (1, 4, 4)), ((2, 4, 4), (2, 1, 4, 4))],
    )
    def test_dice_refuses(self, probabilities, target):
        with pytest.raises(ValueError, match=r"Expected probabilities \(N, H, W\) and target \(N, H, W\), got"):
            dice_loss(torch.zeros(probabilities), torch.zeros(target))
