# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""CLIP's preprocessing: Pillow's result up to rounding, nothing out of range, masks left alone."""

import json

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision.tv_tensors import Mask

from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor

MEAN, STD = (torch.tensor(values)[:, None, None] for values in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))


@pytest.mark.parametrize("shape", [(56, 56), (20, 100), (300, 40)])
def test_images_are_squashed_as_pillow_does_it(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    theirs = np.array(Image.fromarray(pixels).resize((56, 56), Image.Resampling.BICUBIC))
    ours = CLIPPreProcessor(56).transform(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    levels = ((ours * STD + MEAN) * 255).permute(1, 2, 0)
    assert np.abs(levels.numpy() - theirs).max() < 1e-3


@pytest.mark.parametrize("size", [1, 30, 56])
def test_image_of_one_colour_stays_one_colour(size):
    ours = CLIPPreProcessor(14).transform(torch.full((3, size, size), 64 / 255))
    torch.testing.assert_close(ours, ((64 / 255 - MEAN) / STD).expand(3, 14, 14))


def test_values_do_not_leave_the_range_of_images():
    checkerboard = (torch.arange(9)[:, None] + torch.arange(9)).remainder(2).float().expand(3, 9, 9)
    ours = CLIPPreProcessor(28).transform(checkerboard) * STD + MEAN
    torch.testing.assert_close(ours.amin(), torch.tensor(0.0), rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.amax(), torch.tensor(1.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
def test_masks_keep_type_and_values(dtype):
    mask = Mask(torch.zeros(1, 6, 6, dtype=dtype))
    mask[:, 2:4, 2:4] = 1
    _, resized = CLIPPreProcessor(12).transform(torch.zeros(3, 6, 6), mask)
    assert resized.dtype == dtype
    expected = torch.zeros(1, 12, 12, dtype=dtype)
    expected[:, 4:8, 4:8] = 1
    assert torch.equal(torch.as_tensor(resized), expected)


@pytest.mark.parametrize("stage", ["validation", "test", "predict"])
@pytest.mark.parametrize("with_mask", [True, False])
def test_batches_are_transformed_before_every_step(stage, with_mask):
    batch = ImageBatch(image=torch.rand(2, 3, 20, 30), gt_mask=Mask(torch.ones(2, 20, 30)) if with_mask else None)
    expected = CLIPPreProcessor(14).transform(batch.image)
    getattr(CLIPPreProcessor(14), f"on_{stage}_batch_start")(None, None, batch, 0)
    torch.testing.assert_close(torch.as_tensor(batch.image), torch.as_tensor(expected))
    assert (batch.gt_mask is None) != with_mask
    assert not with_mask or batch.gt_mask.shape == (2, 14, 14)


def test_exported_transform_is_the_same():
    pre_processor = CLIPPreProcessor(14)
    images = torch.rand(2, 3, 40, 30)
    assert torch.equal(pre_processor(images), pre_processor.transform(images))


def test_checkpoint_holds_plain_data_that_restore_the_size():
    config = json.loads(json.dumps(CLIPPreProcessor(28).checkpoint_config()))
    restored = CLIPPreProcessor(14)
    restored.load_checkpoint_config(config)
    images = torch.rand(1, 3, 40, 30)
    assert restored.image_size == 28
    assert torch.equal(restored.transform(images), CLIPPreProcessor(28).transform(images))
    assert torch.equal(restored(images), restored.transform(images))
