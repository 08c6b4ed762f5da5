# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from safetensors.torch import load_file

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.precision import narrow
from anomalib_aprilgan.components.text_encoder import TextEncoder
from anomalib_aprilgan.demo import small_clip
from anomalib_aprilgan.demo.categories import CLIP_TRAINING
from anomalib_aprilgan.demo.clip_batches import GENERAL_NAMES, PairBatch, PairBatches
from anomalib_aprilgan.demo.picture_pool import PicturePool
from anomalib_aprilgan.demo.small_clip import SmallCLIP, WordTable


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> PicturePool:
    pool = PicturePool(tmp_path_factory.mktemp("pool"), pairs=40, size=32, seed=0, shares={})
    pool.draw(processes=1)
    return pool


@pytest.fixture(scope="module")
def batch(pool) -> PairBatch:
    return PairBatches(pool, sizes=[32, 32], pairs=3, nouns=("apple", "bridge"), seed=0)[1]


@pytest.fixture(scope="module")
def model() -> SmallCLIP:
    torch.manual_seed(0)
    return SmallCLIP(["apple", "bridge", *CLIP_TRAINING], steps=10, learning_rate=5e-4, first_scale=30.0).eval()


def test_batch_holds_good_and_defective_parts(batch):
    assert batch.images.shape == (6, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert not batch.masks[:3].any()
    assert batch.masks[3:].flatten(1).any(dim=1).all()
    assert len(batch.names) == len(batch.is_true_name) == 3


def test_a_step_has_its_own_batch_whoever_asks(pool, batch):
    again = PairBatches(pool, sizes=[32, 32], pairs=3, nouns=("apple", "bridge"), seed=0)
    assert len(again) == 2
    assert torch.equal(again[1].images, batch.images)
    assert not torch.equal(again[0].images, batch.images)


def test_untrue_names_are_marked_and_inventions_have_no_other(pool):
    batches = PairBatches(pool, [16] * 60, 1, ("apple",), seed=1)
    shots = [batches[step] for step in range(60)]
    for shot in shots:
        assert bool(shot.is_true_name) == (shot.names[0] not in {"apple", *GENERAL_NAMES})
        assert "invented" not in shot.names[0]
    assert {bool(shot.is_true_name) for shot in shots} == {True, False}


def test_unknown_words_share_a_row_of_zeros():
    table = WordTable(["apple"], width=4)
    known, unknown = table.rows.nonzero().flatten(), (table.rows == 0).nonzero().flatten()
    assert table.full().shape == (49408, 4)
    assert table.full()[known].abs().sum(dim=1).all()
    assert not table.full()[unknown].any()


def test_loss_teaches_image_and_text_tower_and_heads(model, batch, monkeypatch):
    monkeypatch.setattr(model, "log_dict", lambda *_args, **_kwargs: None)
    model.zero_grad()
    loss = model.loss(batch)
    loss.backward()
    assert loss.isfinite()
    taught = {
        name.split(".")[0] + "." + name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None
    }
    assert taught >= {"clip.visual", "clip.transformer", "clip.text_projection", "words.table", "heads.2", "heads.5"}


def test_loss_is_the_same_however_many_images_go_at_once(model, batch, monkeypatch):
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    losses = []
    for at_once in (16, 4):  # of 6 images: all, then 4 and 2
        monkeypatch.setattr(small_clip, "IMAGES_AT_ONCE", at_once)
        losses.append(model.loss(batch))
    torch.testing.assert_close(*losses)


def test_saved_weights_are_open_clips_and_give_the_same_text_features(model, tmp_path):
    model.save(str(tmp_path / "model.safetensors"))
    (tmp_path / "config.json").write_text(small_clip.json_config(), encoding="utf-8")
    source = CLIPSource.resolve(str(tmp_path / "config.json"), str(tmp_path / "model.safetensors"))
    sentences = ["a photo of a damaged apple.", "a photo of a grid without flaw."]
    features = torch.nn.functional.normalize(TextEncoder(source)(sentences), dim=-1)
    with torch.no_grad():
        torch.testing.assert_close(features, model.encode_text(sentences), atol=5e-3, rtol=0)  # saved in half precision


def test_saved_weights_are_the_same_in_bfloat16(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.save(str(path))
    tower = SmallCLIP(["apple"], steps=10, learning_rate=5e-4, first_scale=30.0).clip.visual
    saved = {name.removeprefix("visual."): weight.float() for name, weight in load_file(path).items()}
    tower.load_state_dict({name: weight for name, weight in saved.items() if name in tower.state_dict()})
    narrow(tower, torch.bfloat16)
    narrowed = {name: weight for name, weight in tower.state_dict().items() if weight.dtype == torch.bfloat16}
    assert len(narrowed) == 8 * 6  # of six blocks
    for name, weight in narrowed.items():
        assert torch.equal(weight.float(), saved[name]), name


def test_patches_look_at_their_neighbours_at_the_start(model):
    visual = model.clip.visual
    block = visual.transformer.resblocks[0]
    positions = block.ln_1(visual.positional_embedding[1:])  # (g*g, W)
    query, key, _ = (positions @ block.attn.in_proj_weight.T).chunk(3, dim=-1)
    near = (query @ key.T).unflatten(0, (16, 16)).unflatten(2, (16, 16))
    assert near[8, 8, 8, 8] > near[8, 8, 8, 9] > near[8, 8, 8, 14]
