# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The image tower gives what open_clip's own model gives, and its stages besides."""

import json
import re

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower, patch_tokens, residual_stream

# Deviations from the tiny models that occur among open_clip's registered architectures.
VARIANTS = {
    "vit": ("tiny_vit", {}),
    "vit with QuickGELU": ("tiny_vit_quickgelu", {}),
    "vit with layer scale": ("tiny_vit", {"ls_init_value": 0.1}),
    "vit with wider mlp": ("tiny_vit", {"mlp_ratio": 4.3637}),
    "resnet": ("tiny_rn", {}),
    "resnet with two blocks a stage": ("tiny_rn", {"layers": [2, 1, 2, 1]}),
}


@pytest.fixture(params=VARIANTS)
def original(request, golden_dir, tmp_path) -> tuple[CLIP, CLIPSource]:
    """One of open_clip's own models with random weights, and the same as a source."""
    name, deviations = VARIANTS[request.param]
    config = json.loads((golden_dir / f"{name}.json").read_text(encoding="utf-8"))
    config["vision_cfg"].update(deviations)
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(1)
    clip = CLIP(**config).eval()
    save_file(clip.state_dict(), tmp_path / "weights.safetensors")
    return clip, CLIPSource.resolve(str(tmp_path / "config.json"), str(tmp_path / "weights.safetensors"))


def build_tower(backbone: str, **arguments) -> CLIPTower:
    defaults = {"image_size": 56, "layers": [1, 2, 3, 4]}
    return CLIPTower(CLIPSource.resolve(backbone, None), **{**defaults, **arguments})


@torch.no_grad()
def test_pooled_feature_is_that_of_encode_image(original):
    clip, source = original
    images = torch.randn(2, 3, source.image_size, source.image_size)
    ours = CLIPTower(source, source.image_size, [1]).forward(images).pooled
    torch.testing.assert_close(ours, clip.encode_image(images), rtol=0, atol=1e-6)


@torch.no_grad()
def test_stages_are_the_outputs_of_the_blocks(original):
    clip, source = original
    visual = clip.visual
    blocks = visual.transformer.resblocks if source.is_vit else [getattr(visual, f"layer{i}") for i in range(1, 5)]
    recorded = []
    for block in blocks:
        block.register_forward_hook(lambda _block, _inputs, output: recorded.append(output))
    images = torch.randn(2, 3, source.image_size, source.image_size)
    clip.encode_image(images)

    stages = CLIPTower(source, source.image_size, [1, 2, 3, 4])(images).stages
    assert len(recorded) == len(stages) == 4
    for theirs, ours in zip(recorded, stages, strict=True):
        # open_clip 2.24.0 hands (T, N, W) from block to block, later versions (N, T, W).
        by_image = theirs if theirs.shape[0] == 2 else theirs.transpose(0, 1)
        torch.testing.assert_close(ours, by_image, rtol=0, atol=1e-5)


def test_first_token_of_a_stage_is_the_class_token(tiny_backbone):
    tower = build_tower(tiny_backbone, layers=[4])
    features = tower(torch.randn(3, 3, 56, 56))
    class_token = features.stages[0][:, :1]
    torch.testing.assert_close(tower.project(class_token)[:, 0], features.pooled)


def test_patch_tokens_drop_the_class_token():
    stage = torch.arange(6.0).reshape(1, 3, 2)
    assert patch_tokens(stage).tolist() == [[[2.0, 3.0], [4.0, 5.0]]]


def test_patch_tokens_of_a_map_go_row_by_row():
    channels = torch.tensor([[[[0, 1], [2, 3]], [[10, 11], [12, 13]]]])  # (1, 2, 2, 2)
    assert patch_tokens(channels).tolist() == [[[0, 10], [1, 11], [2, 12], [3, 13]]]


def test_patches_are_numbered_row_by_row(tiny_backbone):
    # Zero attention and mlp leave what the patch embedding made of each patch.
    tower = build_tower(tiny_backbone, layers=[1])
    block = tower.visual.transformer.resblocks[0]
    for weight in (block.attn.out_proj.weight, block.mlp.c_proj.weight):
        weight.zero_()
    tower.visual.positional_embedding.zero_()
    dark, lit = torch.zeros(1, 3, 56, 56), torch.zeros(1, 3, 56, 56)
    lit[..., 14:28, 42:56] = 1  # second row, fourth column
    changed = (tower(lit).stages[0] - tower(dark).stages[0]).abs().amax(dim=-1)[0] > 1e-6
    assert changed.nonzero().flatten().tolist() == [1 + 1 * 4 + 3]


@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("tiny_vit", 70, [(2, 26, 64)] * 4),
        ("tiny_vit", 14, [(2, 2, 64)] * 4),
        ("tiny_rn", 64, [(2, 64, 16, 16), (2, 128, 8, 8), (2, 256, 4, 4), (2, 512, 2, 2)]),
        ("tiny_rn", 96, [(2, 64, 24, 24), (2, 128, 12, 12), (2, 256, 6, 6), (2, 512, 3, 3)]),
    ],
)
def test_shapes_and_widths_follow_the_image_size(golden_dir, name, size, shapes):
    tower = build_tower(str(golden_dir / f"{name}.json"), image_size=size)
    features = tower(torch.zeros(2, 3, size, size))
    assert features.pooled.shape == (2, tower.embed_dim) == (2, 32)
    assert [tuple(stage.shape) for stage in features.stages] == shapes
    assert tower.widths == [patch_tokens(stage).shape[-1] for stage in features.stages]


def test_only_the_stages_asked_for_are_handed_out(tiny_backbone):
    images = torch.randn(1, 3, 56, 56)
    everything = build_tower(tiny_backbone)(images).stages
    some = build_tower(tiny_backbone, layers=(2, 4))(images).stages
    assert len(some) == 2
    assert torch.equal(some[0], everything[1])
    assert torch.equal(some[1], everything[3])


@pytest.mark.parametrize(("name", "size"), [("tiny_vit", 56), ("tiny_rn", 64)])
def test_heads_are_handed_out_in_their_order_instead_of_the_stages(golden_dir, name, size):
    tower = build_tower(str(golden_dir / f"{name}.json"), image_size=size, layers=[1, 3])
    images = torch.randn(2, 3, size, size)
    first, third = tower(images).stages
    heads = [(3, torch.sum), (1, torch.sum), (3, torch.amax)]
    features = tower(images, heads)
    assert features.stages == [third.sum(), first.sum(), third.amax()]
    assert torch.equal(features.pooled, tower(images).pooled)


def test_heads_of_other_layers_are_refused(tiny_backbone):
    tower = build_tower(tiny_backbone, layers=[2, 4])
    expected = r"There are heads for layers \[3\], the tower was built with layers=\[2, 4\]"
    with pytest.raises(ValueError, match=expected):
        tower(torch.zeros(1, 3, 56, 56), [(2, torch.sum), (3, torch.sum)])


@pytest.mark.parametrize(
    ("name", "size", "changes"),
    [
        ("tiny_vit", 56, {}),
        ("tiny_vit", 56, {"value_blocks": 2}),
        ("tiny_vit", 56, {"value_blocks": 4}),
        ("tiny_rn", 64, {}),
    ],
)
def test_a_stage_is_gone_when_the_next_is_there(golden_dir, name, size, changes):
    tower = build_tower(str(golden_dir / f"{name}.json"), image_size=size, **changes)
    earlier = []

    def look(stage: torch.Tensor) -> torch.Tensor:
        assert all(storage.expired() for storage in earlier)
        earlier.append(StorageWeakRef(stage.untyped_storage()))
        return stage.sum()

    first = tower.visual.ln_pre if name == "tiny_vit" else tower.visual.avgpool
    first.register_forward_hook(
        lambda _module, _inputs, output: earlier.append(StorageWeakRef(output.untyped_storage()))
    )
    tower(torch.randn(2, 3, size, size), [(layer, look) for layer in tower.layers])
    assert len(earlier) == 5


@pytest.mark.parametrize("batch_first", [True, False])
def test_residual_stream_serves_blocks_of_either_layout(batch_first):
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(2, 1, batch_first=batch_first)

        def forward(self, stream: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
            assert stream.shape == ((3, 5, 2) if batch_first else (5, 3, 2))
            return stream + attn_mask

    tokens = torch.zeros(3, 5, 2)
    streams = list(residual_stream(nn.ModuleList([Block(), Block()]), tokens, torch.tensor(1.0)))
    assert [stream.shape for stream in streams] == [(3, 5, 2)] * 2
    assert [stream.mean().item() for stream in streams] == [1.0, 2.0]


def test_blocks_without_a_word_on_layout_take_images_first():
    class Block(nn.Module):
        attn = object()

        def forward(self, stream: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
            return stream

    tokens = torch.zeros(3, 5, 2)
    (stream,) = residual_stream([Block()], tokens)
    assert stream is tokens


def test_nothing_in_the_tower_wants_gradients(tiny_backbone):
    tower = build_tower(tiny_backbone)
    images = torch.randn(1, 3, 56, 56, requires_grad=True)
    features = tower(images)
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not features.pooled.requires_grad
    assert not any(stage.requires_grad for stage in features.stages)
    assert not tower.project(features.stages[0]).requires_grad


def test_tower_stays_in_eval_mode_when_its_owner_trains(golden_dir):
    tower = build_tower(str(golden_dir / "tiny_rn.json"), image_size=64)
    owner = nn.Sequential(tower).train()
    assert owner.training
    assert not any(module.training for module in tower.modules())
    assert tower.train() is tower


def test_batches_do_not_change_features(golden_dir):
    images = torch.randn(3, 3, 64, 64)
    tower = build_tower(str(golden_dir / "tiny_rn.json"), image_size=64)
    alone = torch.cat([tower(image[None]).pooled for image in images])
    torch.testing.assert_close(tower(images).pooled, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("name", "size"), [("tiny_vit", 56), ("tiny_rn", 64)])
def test_half_precision_stays_close_and_comes_out_in_float32(golden_dir, golden_weights, name, size, precision):
    source = CLIPSource.resolve(str(golden_dir / f"{name}.json"), str(golden_weights(name)))
    images = torch.randn(2, 3, size, size)
    exact = CLIPTower(source, size, [2, 4])(images)
    half = CLIPTower(source, size, [2, 4], precision)
    features = half(images)
    for ours, theirs in zip([features.pooled, *features.stages], [exact.pooled, *exact.stages], strict=True):
        assert ours.dtype == torch.float32
        assert functional.cosine_similarity(ours.flatten(1), theirs.flatten(1)).min() > 0.999
        assert not torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "layers",
    [[], [0], [-1], [5], [1, 5], [2, 2], [2, 1], [1.0], ["1"], [True, 2]],
    ids=str,
)
@pytest.mark.parametrize(("name", "size"), [("tiny_vit", 56), ("tiny_rn", 64)])
def test_bad_layers_are_refused(golden_dir, name, size, layers):
    expected = f"layers={layers} must be ascending, without duplicates and between 1 and 4"
    with pytest.raises(ValueError, match=re.escape(expected)):
        build_tower(str(golden_dir / f"{name}.json"), image_size=size, layers=layers)


@pytest.mark.parametrize(
    ("name", "size", "stride", "nearest"),
    [
        ("tiny_vit", 57, 14, 56),
        ("tiny_vit", 69, 14, 70),
        ("tiny_vit", 1, 14, 14),
        ("tiny_vit", 0, 14, 14),
        ("tiny_vit", -14, 14, 14),
        ("tiny_vit", 56.0, 14, 56),
        ("tiny_vit", float("nan"), 14, 518),
        ("tiny_vit", float("inf"), 14, 518),
        ("tiny_rn", 70, 32, 64),
    ],
)
def test_image_size_that_is_no_multiple_is_refused_with_the_nearest_that_is(golden_dir, name, size, stride, nearest):
    expected = f"image_size={size} must be a positive multiple of {stride} for this backbone, such as {nearest}."
    with pytest.raises(ValueError, match=re.escape(expected)):
        build_tower(str(golden_dir / f"{name}.json"), image_size=size)


def test_unknown_precision_is_refused(tiny_backbone):
    with pytest.raises(ValueError, match="precision='int8' is unknown, expected one of fp32, bf16, fp16"):
        build_tower(tiny_backbone, precision="int8")
