# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_file
from torch import distributed, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from torchvision.transforms.functional import normalize as with_mean_and_std

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower, patch_tokens
from anomalib_aprilgan.components.precision import narrow
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.text_encoder import TextEncoder
from anomalib_aprilgan.demo import small_clip
from anomalib_aprilgan.demo.categories import CLIP_TRAINING
from anomalib_aprilgan.demo.clip_batches import GENERAL_NAMES, Look, PairBatch, PairBatches, seen_patches
from anomalib_aprilgan.demo.clip_losses import name_loss, patch_loss, rank_loss, state_loss
from anomalib_aprilgan.demo.picture_pool import PicturePool
from anomalib_aprilgan.demo.small_clip import SmallCLIP, WordTable


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> PicturePool:
    pool = PicturePool(tmp_path_factory.mktemp("pool"), pairs=40, size=32, seed=0, shares={})
    pool.draw(processes=1)
    return pool


@pytest.fixture(scope="module")
def batch(pool) -> PairBatch:
    return PairBatches(pool, looks=[Look(32, 1.0)] * 2, pairs=3, nouns=("apple", "bridge"), seed=0)[1]


@pytest.fixture(scope="module")
def model() -> SmallCLIP:
    torch.manual_seed(0)
    return SmallCLIP(["apple", "bridge", *CLIP_TRAINING], steps=10, learning_rate=5e-4, first_scale=30.0).eval()


@pytest.fixture(scope="module")
def source(model, tmp_path_factory) -> CLIPSource:
    """What the model saves, as the package reads it."""
    folder = tmp_path_factory.mktemp("saved")
    model.save(str(folder / "model.safetensors"))
    (folder / "config.json").write_text(small_clip.json_config(), encoding="utf-8")
    return CLIPSource.resolve(str(folder / "config.json"), str(folder / "model.safetensors"))


def test_batch_holds_good_and_defective_parts(batch):
    assert batch.images.shape == (6, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert not batch.masks[:3].any()
    assert batch.masks[3:].flatten(1).any(dim=1).all()
    assert len(batch.names) == len(batch.is_true_name) == 3


def test_a_step_has_its_own_batch_whoever_asks(pool, batch):
    again = PairBatches(pool, looks=[Look(32, 1.0)] * 2, pairs=3, nouns=("apple", "bridge"), seed=0)
    assert len(again) == 2
    assert torch.equal(again[1].images, batch.images)
    assert not torch.equal(again[0].images, batch.images)


def test_processes_have_other_pictures_and_half_of_the_pairs_each(pool, monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    taken, shares = [], []
    read = PicturePool.__getitem__
    monkeypatch.setattr(PicturePool, "__getitem__", lambda self, number: taken.append(number) or read(self, number))
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        shares.append(PairBatches(pool, [Look(32, 1.0)], pairs=8, nouns=("apple",), seed=0)[0])
    assert [len(share.names) for share in shares] == [4, 4]
    assert [len(share.images) for share in shares] == [8, 8]
    assert set(taken[:4]) != set(taken[4:])


@pytest.mark.parametrize(
    ("share", "seen"),
    [(1.0, list(range(16))), (0.25, [5, 6, 11, 15]), (0.1, [6, 15])],
    ids=["all", "those with a defect and others", "not all with a defect"],
)
def test_patches_with_a_defect_are_seen_first(share, seen):
    masks = np.zeros((1, 32, 32), dtype=bool)
    masks[0, 8:16, 15:20] = True  # one column of patch 5, half of patch 6
    masks[0, 31, 31] = True  # one pixel of patch 15
    # By what this generator draws, patch 11 comes first of those without a defect, and patch 5 last of those with one.
    assert seen_patches(masks, share, np.random.default_rng(0)).tolist() == [seen]


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.01, 1), st.floats(0, 1))
def test_seen_patches_are_so_many_in_order_and_no_defect_waits_for_others(seed, side, share, defective):
    rng = np.random.default_rng(seed)
    touched = rng.random((3, side, side)) < defective
    seen = seen_patches(touched.repeat(8, axis=1).repeat(8, axis=2), share, rng)
    assert seen.shape == (3, max(1, round(share * side * side)))
    assert (np.diff(seen, axis=1) > 0).all()
    for places, wanted in zip(seen, touched.reshape(3, -1), strict=True):
        assert wanted[places].sum() == min(len(places), wanted.sum())


def test_every_patch_is_seen_now_and_then():
    rng, masks = np.random.default_rng(0), np.zeros((1000, 16, 16), dtype=bool)
    counts = np.bincount(seen_patches(masks, 0.5, rng).ravel(), minlength=4)
    np.testing.assert_allclose(counts, 500, atol=60)  # four standard deviations


def test_both_parts_of_a_pair_show_the_same_patches(pool):
    batch = PairBatches(pool, [Look(32, 0.5)], pairs=3, nouns=("apple",), seed=0)[0]
    good, bad = batch.seen.chunk(2)
    assert good.shape == (3, 8)
    assert torch.equal(good, bad)
    assert len(good.unique(dim=0)) == 3


def test_untrue_names_are_marked_and_inventions_have_no_other(pool):
    batches = PairBatches(pool, [Look(16, 1.0)] * 60, 1, ("apple",), seed=1)
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


@torch.no_grad()
def test_images_are_seen_as_the_package_sees_them(model, source, batch):
    pooled, patches = model.encode_images(batch.images, batch.seen)
    images = with_mean_and_std(batch.images / 255, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
    tower = CLIPTower(source, image_size=32, layers=[2, 4, 5, 6])
    features = tower(images)
    *inner, last = [patch_tokens(stage) for stage in features.stages]
    taught = [model.heads[block](tokens) for block, tokens in zip("245", inner, strict=True)]
    expected = [normalize(each, dim=-1) for each in (features.pooled, *taught, tower.project(last))]
    for ours, theirs in zip((pooled, *patches), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-3, rtol=0)  # saved in half precision


@torch.no_grad()
def test_what_is_not_seen_has_no_part_and_what_is_keeps_its_place(model, batch):
    model = deepcopy(model)
    seen = torch.tensor([[1, 4, 14]] * 6)
    pooled, patches = model.encode_images(batch.images, seen)
    changed = batch.images.clone()
    changed[:, :, 8:16, 8:16] = 255 - changed[:, :, 8:16, 8:16]  # patch 5
    for ours, theirs in zip((pooled, *patches), _flat(model.encode_images(changed, seen)), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(pooled, model.encode_images(changed, torch.tensor([[1, 4, 5]] * 6))[0])
    for block in model.clip.visual.transformer.resblocks:  # nothing is exchanged any more
        nn.init.zeros_(block.attn.out_proj.weight)
    everywhere = model.encode_images(batch.images, torch.arange(16).expand(6, -1))[1]
    for part, whole in zip(model.encode_images(batch.images, seen)[1], everywhere, strict=True):
        torch.testing.assert_close(part, whole[:, [1, 4, 14]])


def _flat(encoded):
    pooled, patches = encoded
    return pooled, *patches


@torch.no_grad()
@pytest.mark.parametrize("seen", [[*range(16)], [0, 3, 9]], ids=["all patches", "three patches"])
@pytest.mark.parametrize(("global_step", "scale"), [(0, 30.0), (4, 65.0), (20, 100.0)])  # 0, 2 and 10 steps of each
def test_loss_is_the_sum_of_its_parts(model, batch, monkeypatch, global_step, scale, seen):
    monkeypatch.setattr(SmallCLIP, "global_step", global_step)
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    masks, target = torch.zeros(6, 32, 32, dtype=torch.bool), torch.zeros(6, 16)
    for defective, (columns, share) in zip((3, 4, 5), ((1, 0.5), (2, 1), (8, 1)), strict=True):  # of the first patch
        masks[defective, :8, :columns], target[defective, 0] = True, share
    target = target[:, seen]
    batch = batch._replace(
        masks=masks,
        seen=torch.tensor([seen] * 6),
        names=["apple", "bridge", "apple"],
        is_true_name=torch.tensor([True] * 3),
    )
    texts = model._texts(batch.names)
    of_images = torch.cat([texts, texts])
    pooled, patches = model.encode_images(batch.images, batch.seen)
    *inner, last = [patch_loss(each, of_images, target, scale) for each in patches]
    expected = state_loss(pooled, of_images, scale) + rank_loss(pooled, of_images, scale)
    expected += 0.3 * name_loss(pooled, texts, batch.names, batch.is_true_name, scale)
    torch.testing.assert_close(model.loss(batch), expected + 2 * last + 2 * sum(inner) / 3)


def test_each_name_is_called_normal_and_anomalous_in_the_same_words(model, monkeypatch):
    said, encode = [], model.encode_text
    monkeypatch.setattr(model, "encode_text", lambda sentences: said.extend(sentences) or encode(sentences))
    texts = model._texts(["apple", "bridge"])
    for name, normal, anomalous in zip(["apple", "bridge"], said[::2], said[1::2], strict=True):
        possible = PromptEnsemble().sentences(name)
        assert possible.normal.index(normal) % 35 == possible.anomalous.index(anomalous) % 35  # number of templates
    torch.testing.assert_close(texts[:, 0], encode(said[::2]))
    torch.testing.assert_close(texts[:, 1], encode(said[1::2]))


def test_steps_move_each_part_by_its_rate(batch):
    model = SmallCLIP(["apple", "bridge", *CLIP_TRAINING], steps=40, learning_rate=5e-4, first_scale=30.0)
    before = deepcopy(model.state_dict())
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    trainer.fit(model, DataLoader([batch, batch], batch_size=None))
    names = ("clip.visual.transformer.resblocks.3.mlp.c_fc.weight", "heads.4.weight", "clip.logit_scale")
    muons, adamws, none = ((model.state_dict()[name] - before[name]).square().mean().sqrt() for name in names)
    rates = 5e-4 / 25 + 5e-4  # of AdamW in two steps: the warm-up begins and is over; Muon's are four times as large
    # Two steps in not quite the same direction; in each, Muon moves a number by 0.2 of its rate, AdamW by all of it.
    assert 0.5 < muons / (0.2 * 4 * rates) < 1
    assert 0.5 < adamws / rates < 1
    assert none == 0


def test_loss_is_the_same_however_many_images_go_at_once(model, batch, monkeypatch):
    monkeypatch.setattr(model, "log_dict", lambda *_, **__: None)
    losses = []
    for at_once in (16, 4):  # of 6 images: all, then 4 and 2
        monkeypatch.setattr(small_clip, "IMAGES_AT_ONCE", at_once)
        losses.append(model.loss(batch))
    torch.testing.assert_close(*losses)


def test_saved_weights_are_open_clips_and_give_the_same_text_features(model, source):
    sentences = ["a photo of a damaged apple.", "a photo of a grid without flaw."]
    features = normalize(TextEncoder(source)(sentences), dim=-1)
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
