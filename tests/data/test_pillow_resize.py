# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Resizing: Pillow's own numbers on the CPU, its steps in torch elsewhere, masks, and exported graphs."""

import numpy as np
import openvino
import pytest
import torch
from PIL import Image
from torch.export import Dim
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from anomalib_aprilgan.data import pillow_resize
from anomalib_aprilgan.data.float_pair import FloatPair
from anomalib_aprilgan.data.pillow_resize import PillowResize, by_pillows_steps, resize_image, resize_mask

# Heights and widths before and after: smaller, larger, one of each, odd ones.
SIZES = [((40, 60), (28, 28)), ((20, 30), (56, 56)), ((20, 90), (33, 47)), ((17, 31), (31, 17))]


def pixels(size: tuple[int, int], kind: str) -> np.ndarray:
    """Noise, or black and white with hard edges, where bicubic overshoots."""
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    return noise if kind == "noise" else np.where(noise > 127, 255, 0).astype(np.uint8)


def as_tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values).permute(2, 0, 1) / 255


def by_pillow(values: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    return as_tensor(np.array(Image.fromarray(values).resize(size[::-1], Image.Resampling.BICUBIC)))


@pytest.mark.parametrize("kind", ["noise", "edges"])
@pytest.mark.parametrize(("before", "after"), SIZES)
class TestImages:
    def test_are_exactly_pillows_on_the_cpu(self, before, after, kind):
        values = pixels(before, kind)
        assert torch.equal(resize_image(as_tensor(values), after), by_pillow(values, after))

    def test_are_exactly_pillows_in_torch(self, before, after, kind):
        values = pixels(before, kind)
        resized = by_pillows_steps(as_tensor(values), after)
        torch.testing.assert_close(resized, by_pillow(values, after), rtol=0, atol=1e-6)


def test_steps_are_exact_for_photographs_too():
    values = pixels((1200, 900), "edges")
    resized = by_pillows_steps(as_tensor(values), (240, 240))
    torch.testing.assert_close(resized, by_pillow(values, (240, 240)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("old", [37, 192, 654, 990, 4000])
@pytest.mark.parametrize("new", [192, 518])
def test_weights_need_no_float64(old, new):
    pairs, doubles = (pillow_resize._cubic_weights(old, new, number) for number in (FloatPair.of, torch.Tensor.double))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(pairs, doubles, strict=True))


def test_clipping_once_at_the_end_would_not_do():
    values = pixels((40, 60), "edges")
    plain = torch.nn.functional.interpolate(as_tensor(values)[None], (56, 56), mode="bicubic", antialias=True)
    assert ((plain[0].clamp(0, 1) - by_pillow(values, (56, 56))).abs() * 255).max() > 10


class TestShapes:
    @pytest.mark.parametrize("shape", [(3, 10, 12), (2, 3, 10, 12), (2, 1, 3, 10, 12)])
    @pytest.mark.parametrize("function", [resize_image, by_pillows_steps, resize_mask])
    def test_leading_dimensions_stay(self, shape, function):
        resized = function(torch.rand(shape), (5, 7))
        assert resized.shape == (*shape[:-2], 5, 7)
        assert resized.dtype == torch.float32

    def test_each_plane_is_resized_by_itself(self):
        images = torch.rand(2, 3, 10, 12)
        resized = resize_image(images, (5, 7))
        assert torch.equal(resized[1, 2], resize_image(images[1, 2], (5, 7)))

    def test_values_outside_are_clipped_first(self):
        assert resize_image(torch.tensor([[2.0, 2.0], [2.0, 2.0]]), (1, 1)).tolist() == [[1.0]]


class TestMasks:
    def test_are_pillows_bilinear(self):
        values = (pixels((40, 60), "edges")[..., 0] > 0).astype(np.uint8) * 255
        expected = np.array(Image.fromarray(values).resize((28, 14), Image.Resampling.BILINEAR))
        resized = resize_mask(torch.from_numpy(values), (14, 28))
        assert torch.equal(resized, torch.from_numpy(expected) / 255)

    def test_by_hand(self):
        # From 4 to 2 columns, antialiased: weights 3/7, 3/7, 1/7 on columns 0 to 2, rounded to whole grey levels.
        assert resize_mask(torch.tensor([[5, 0, 0, 0]]), (1, 2)).tolist() == [[pytest.approx(109 / 255), 0]]

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
    def test_any_value_above_zero_counts(self, dtype):
        mask = torch.tensor([[1, 0]]).to(dtype)
        assert resize_mask(mask, (1, 2)).tolist() == [[1, 0]]


class TestTransform:
    def test_image_and_mask_together(self):
        image, mask = torch.rand(3, 40, 60), torch.zeros(40, 60, dtype=torch.bool)
        mask[:, :30] = True
        resized, resized_mask = PillowResize(28)(image, Mask(mask))
        assert torch.equal(resized, resize_image(image, (28, 28)))
        assert (type(resized_mask), resized_mask.dtype, resized_mask.shape) == (Mask, torch.bool, (28, 28))
        assert resized_mask.sum().item() == 28 * 14

    def test_the_same_size_changes_nothing(self):
        image, mask = torch.rand(2, 3, 28, 28), torch.rand(2, 28, 28) > 0.5
        resized, resized_mask = PillowResize(28)(image, Mask(mask))
        assert torch.equal(resized, image)  # not even rounded to whole grey levels
        assert torch.equal(resized_mask.as_subclass(torch.Tensor), mask)

    def test_resizing_twice_is_resizing_once(self):
        transform = PillowResize(28)
        once = transform(torch.rand(3, 40, 60))
        assert torch.equal(transform(once), once)

    def test_images_stay_images(self):
        assert type(PillowResize(28)(ImageTensor(torch.rand(3, 40, 60)))) is ImageTensor

    def test_pillows_own_images(self):
        values = pixels((40, 60), "noise")
        resized = PillowResize(28)(Image.fromarray(values))
        assert torch.equal(as_tensor(np.array(resized)), by_pillow(values, (28, 28)))


@pytest.mark.filterwarnings("ignore")
class TestGraphs:
    """Pillow's numbers would be constants there, those of the example image."""

    class Resizer(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return PillowResize(28)(images)

    @pytest.fixture(autouse=True)
    def _no_pillow(self, monkeypatch):
        monkeypatch.setattr(pillow_resize, "_by_pillow", None)

    @pytest.mark.parametrize(
        "compiled",
        [
            lambda module, example: torch.jit.trace(module, example, check_trace=False),
            lambda module, example: torch.export.export(module, (example,)).module(),
            lambda module, example: torch.export.export(
                module, (example,), dynamic_shapes=({0: Dim("n"), 2: Dim("height"), 3: Dim("width")},)
            ).module(),
        ],
        ids=["traced", "exported", "of any size"],
    )
    def test_resize_by_steps(self, compiled):
        module = compiled(self.Resizer(), torch.zeros(2, 3, 40, 60))
        images = torch.rand(2, 3, 40, 60)
        torch.testing.assert_close(module(images), by_pillows_steps(images, (28, 28)), rtol=0, atol=1e-6)

    def test_of_any_size_leave_images_of_the_size_wanted_as_they_are(self):
        images = torch.rand(2, 3, 28, 28)
        torch.testing.assert_close(by_pillows_steps(images, (28, 28)), images, rtol=0, atol=1e-7)

    def test_openvino_gives_pillows_grey_levels_of_any_size(self, tmp_path):
        """It knows no float64, and calculates weights itself where the size is open."""
        sizes = {0: Dim("n"), 2: Dim("height"), 3: Dim("width")}
        path = tmp_path / "resizer.onnx"
        example = (torch.zeros(2, 3, 40, 60),)
        torch.onnx.export(self.Resizer(), example, path, dynamic_shapes=(sizes,), dynamo=True, verbose=False)
        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for size in ((400, 300), (640, 480), (20, 30)):
            values = pixels(size, "noise")
            resized = torch.from_numpy(compiled(as_tensor(values)[None].numpy())[0])
            torch.testing.assert_close(resized[0], by_pillow(values, (28, 28)), rtol=0, atol=1e-6)
