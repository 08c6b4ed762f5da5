# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The second stream of value-value attention, and what else the image tower does in its company."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower
from anomalib_aprilgan.components.value_attention import check_attention, value_streams

LAYERS = [1, 2, 3, 4]


def build_tower(backbone: str, **changes) -> CLIPTower:
    arguments = {"image_size": 56, "layers": LAYERS}
    return CLIPTower(CLIPSource.resolve(backbone, None), **{**arguments, **changes})


@torch.no_grad()
def values_added(block: nn.Module, stream: torch.Tensor) -> torch.Tensor:
    """Head by head: softmax(s * v v') v of the normalised stream, through the output projection."""
    attention = block.attn
    weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
    heads = (block.ln_1(stream) @ weight.T + bias).chunk(attention.num_heads, dim=-1)  # H x (N, T, W/H)
    attended = [torch.softmax(v @ v.transpose(1, 2) / math.sqrt(v.shape[-1]), dim=-1) @ v for v in heads]
    return attention.out_proj(torch.cat(attended, dim=-1))


@torch.no_grad()
def test_second_stream_adds_value_attention_of_the_usual_one(tiny_backbone):
    plain = build_tower(tiny_backbone)
    images = torch.randn(2, 3, 56, 56)
    streams = plain(images).stages
    blocks = plain.visual.transformer.resblocks
    expected = streams[1]  # the input of the third block begins both streams
    for index, (stream, values) in enumerate(value_streams(blocks[2:], streams[1]), start=2):
        expected = expected + values_added(blocks[index], streams[index - 1])
        needed = 1 if index == len(blocks) - 1 else None  # after the last block the class token alone
        torch.testing.assert_close(stream, streams[index][:, :needed], rtol=0, atol=1e-5)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-5)


def test_stages_come_from_the_second_stream_once_it_begins(tiny_backbone):
    images = torch.randn(2, 3, 56, 56)
    plain, doubled = build_tower(tiny_backbone)(images), build_tower(tiny_backbone, value_blocks=2)(images)
    assert torch.equal(plain.stages[1], doubled.stages[1])
    assert (plain.stages[2] - doubled.stages[2]).abs().max() > 0.1
    torch.testing.assert_close(plain.pooled, doubled.pooled, rtol=0, atol=1e-5)


@torch.no_grad()
def test_layer_scale_counts_in_both_streams(golden_dir, tmp_path):
    config = json.loads((golden_dir / "tiny_vit.json").read_text(encoding="utf-8"))
    config["vision_cfg"]["ls_init_value"] = 0.0
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stages = build_tower(str(tmp_path / "config.json"), value_blocks=4)(torch.randn(1, 3, 56, 56)).stages
    assert all(torch.equal(stage, stages[0]) for stage in stages)


def test_pooled_feature_without_the_final_norm(tiny_backbone):
    images = torch.randn(2, 3, 56, 56)
    tower = build_tower(tiny_backbone, norm_pooled=False)
    features = tower(images)
    torch.testing.assert_close(features.pooled, features.stages[-1][:, 0] @ tower.visual.proj)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_positional_embedding_is_resized_as_asked(tiny_backbone, interpolation):
    native = build_tower(tiny_backbone, image_size=CLIPSource.resolve(tiny_backbone, None).image_size)
    side = native.image_size // 14
    grid = native.visual.positional_embedding[1:].T.reshape(1, -1, side, side)
    for new_side in (side - 1, side + 2):
        tower = build_tower(tiny_backbone, image_size=new_side * 14, interpolation=interpolation)
        resized = functional.interpolate(
            grid, size=(new_side, new_side), mode=interpolation, antialias=interpolation == "bicubic"
        )
        ours = tower.visual.positional_embedding
        assert torch.equal(ours[0], native.visual.positional_embedding[0])
        torch.testing.assert_close(ours[1:], resized[0].flatten(1).T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [-1, 5, 1.5, True, False])
def test_impossible_number_of_value_blocks(tiny_backbone, number):
    with pytest.raises(ValueError, match=rf"value_blocks={number!r} must be .* 0 to 4 for this backbone"):
        build_tower(tiny_backbone, value_blocks=number)


def test_resnets_have_no_such_blocks(golden_dir):
    with pytest.raises(ValueError, match=r"value_blocks=1 must be .* 0 to 0 for this backbone"):
        build_tower(str(golden_dir / "tiny_rn.json"), image_size=64, value_blocks=1)


def test_other_attention_is_refused():
    blocks = nn.ModuleList([nn.Linear(2, 2)])
    with pytest.raises(ValueError, match=r"this backbone has Linear\. Choose a plain ViT"):
        check_attention(blocks)
