# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

from copy import deepcopy

import pytest
import torch
from open_clip.model import CLIP
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from anomalib_aprilgan.components.clip_tower import residual_stream
from anomalib_aprilgan.demo import plain_attention
from anomalib_aprilgan.demo.plain_attention import plain_stream
from anomalib_aprilgan.demo.small_clip import CONFIG


@pytest.fixture
def blocks() -> nn.ModuleList:
    """The small CLIP's image blocks, with biases that are not zero."""
    torch.manual_seed(0)
    blocks = CLIP(**CONFIG).visual.transformer.resblocks
    for block in blocks:
        nn.init.normal_(block.attn.in_proj_bias)
        nn.init.normal_(block.attn.out_proj.bias)
    return blocks


@pytest.mark.parametrize("tokens_at_once", [1, 15, 100], ids=["one image", "two and one", "all"])
def test_streams_and_gradients_are_those_of_torchs_attention(blocks, monkeypatch, tokens_at_once):
    monkeypatch.setattr(plain_attention, "TOKENS_AT_ONCE", tokens_at_once)
    tokens, theirs = torch.randn(3, 7, 128), deepcopy(blocks)
    streams, expected = list(plain_stream(blocks, tokens)), list(residual_stream(theirs, tokens))
    assert len(streams) == len(expected) == 6
    for stream, other in zip(streams, expected, strict=True):
        assert_close(stream, other, atol=1e-5, rtol=1e-5)
    streams[-1].square().mean().backward()
    expected[-1].square().mean().backward()
    for parameter, other in zip(blocks.parameters(), theirs.parameters(), strict=True):
        assert_close(parameter.grad, other.grad, atol=1e-5, rtol=1e-4)


class Products(TorchDispatchMode):
    """Notes what the products of batches of matrices are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.of: list[torch.dtype] = []

    def __torch_dispatch__(self, function, _types, args=(), kwargs=None):  # ruff: ignore[bad-dunder-method-name] - torch's name
        if function is torch.ops.aten.bmm.default:
            self.of.extend(factor.dtype for factor in args)
        return function(*args, **(kwargs or {}))


def test_attention_stays_in_bfloat16_under_autocast_forwards_and_backwards(blocks):
    tokens = torch.randn(2, 5, 128)
    with Products() as products:
        with torch.autocast("cpu", torch.bfloat16):
            *_, last = plain_stream(blocks, tokens)
        last.square().mean().backward()
    # A block: two products forwards, and four backwards, of two factors each.
    assert products.of == [torch.bfloat16] * 6 * (2 + 4) * 2
