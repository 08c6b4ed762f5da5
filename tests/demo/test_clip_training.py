# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from anomalib_aprilgan.components.embedded import CONFIG_FILE, WEIGHTS_FILE
from anomalib_aprilgan.demo import clip_training as module
from anomalib_aprilgan.demo.clip_batches import Look
from anomalib_aprilgan.demo.clip_training import FIRST, SECOND, Stage, train_clip
from anomalib_aprilgan.demo.small_clip import SmallCLIP

SHORT = Stage({32: 2}, {40: 1}, {"nonwoven": 0.0}, pool_pairs=8, learning_rate=5e-4, first_scale=30.0)
SHORTER = Stage({}, {32: 2}, {"nonwoven": 0.5}, pool_pairs=8, learning_rate=3e-4, first_scale=100.0)
SMALL = {"stages": (SHORT, SHORTER), "pairs": 2, "seed": 0, "processes": 1}


@pytest.fixture(autouse=True, scope="module")
def few_steps():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEPS_AN_EPOCH", 2)
        yield


@pytest.fixture
def epochs(monkeypatch) -> list[tuple[int, int]]:
    """Epochs that begin, each as the steps of its stage and its number."""
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(
        SmallCLIP, "on_train_epoch_start", lambda model: begun.append((model.steps, model.current_epoch))
    )
    return begun


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(str(folder / WEIGHTS_FILE))


def assert_same(folder, other) -> None:
    these, those = weights(folder), weights(other)
    assert these.keys() == those.keys()
    for name, weight in these.items():
        torch.testing.assert_close(weight, those[name], rtol=0, atol=0, msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train_clip(folder, **SMALL)
    np.save(folder / "random_state.npy", torch.get_rng_state().numpy())
    return folder


@pytest.fixture
def drawn(whole, tmp_path):
    """A folder with the pictures only, which take longer than the training."""
    shutil.copytree(whole / "pictures", tmp_path / "drawn" / "pictures")
    return tmp_path / "drawn"


@pytest.mark.parametrize(
    "last", [[(6, 2), (4, 0), (4, 1)], [(4, 1)]], ids=["stopped in the first stage", "stopped in the second stage"]
)
def test_a_stopped_training_goes_on_to_the_same_weights(drawn, monkeypatch, epochs, whole, last):
    def stop(model: SmallCLIP) -> None:
        if (model.steps, model.current_epoch) == last[0]:
            msg = "power cut"
            raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(SmallCLIP, "on_train_epoch_start", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train_clip(drawn, **SMALL)
    assert not (drawn / WEIGHTS_FILE).exists()
    train_clip(drawn, **SMALL)
    assert epochs == last
    assert (drawn / CONFIG_FILE).is_file()
    assert_same(drawn, whole)
    assert "attn_mask" not in weights(drawn)
    # The adapters, which are trained next, begin alike.
    np.testing.assert_array_equal(torch.get_rng_state().numpy(), np.load(whole / "random_state.npy"))


def test_a_torch_without_muon_is_told_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(RuntimeError, match=r"torch .* has no optimiser Muon, .* Install torch 2\.9 or later"):
        train_clip(tmp_path, **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("processes", [0, 3, 99])
def test_processes_that_cannot_share_a_batch_are_refused_before_anything_is_drawn(processes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"processes={processes} cannot share pairs=.* evenly\. Give a number that"):
        train_clip(tmp_path, **{**SMALL, "processes": processes})
    assert not list(tmp_path.iterdir())


def test_pictures_are_drawn_at_the_largest_size_of_their_stage(whole):
    sizes = {np.load(file, mmap_mode="r").shape[2:4] for file in (whole / "pictures").glob("*pairs8-*[0-9].npy")}
    assert sizes == {(32, 32), (40, 40)}


def test_second_stage_goes_on_from_the_first_with_other_pictures(drawn, monkeypatch):
    starts, stages = [], []

    def fit(model, batches, *_):
        starts.append(model.clip.text_projection.clone())
        pool = batches.pool
        stages.append((batches.seed, pool.seed, pool.shares, batches.looks, model.learning_rate, model.first_scale))

    monkeypatch.setattr(module, "_fit", fit)
    train_clip(drawn, **SMALL)
    assert stages == [
        (0, 0, {"nonwoven": 0.0}, [Look(32, 0.5)] * 4 + [Look(40, 1.0)] * 2, 5e-4, 30.0),
        (1, 1, {"nonwoven": 0.5}, [Look(32, 1.0)] * 4, 3e-4, 100.0),
    ]
    assert torch.equal(*starts)


def test_another_training_in_the_same_folder_begins_anew(tmp_path, drawn, epochs, whole):
    other = {**SMALL, "stages": (replace(SHORT, half_seen={32: 1}), SHORTER)}
    both = shutil.copytree(whole, tmp_path / "both")
    train_clip(both, **other)
    assert epochs == [(4, 0), (4, 1)] * 2
    train_clip(drawn, **other)
    assert_same(both, drawn)


def test_weights_are_the_average_of_both_stages(tmp_path, monkeypatch, epochs, whole):
    trained = shutil.copytree(whole, tmp_path / "trained")
    saved = []
    for share in (0.0, 1.0, 0.25):
        monkeypatch.setattr(module, "SECOND_SHARE", share)
        train_clip(trained, **SMALL)
        saved.append(weights(trained))
    assert not epochs  # only the average was made anew
    before, after, mixed = saved
    moved = 0
    for name, weight in mixed.items():
        expected = 0.75 * before[name].float() + 0.25 * after[name].float()
        rounding = 2**-7 if name.startswith("visual.transformer") else 2e-3  # twice to bfloat16, or to float16
        torch.testing.assert_close(weight.float(), expected, rtol=rounding, atol=1e-4, msg=name)
        moved += int(not torch.equal(before[name], after[name]))
    assert moved > 50


def test_share_in_the_average_is_the_second_stages(drawn, monkeypatch):
    ends = iter((1.0, 3.0))
    monkeypatch.setattr(module, "_fit", lambda model, *_: model.clip.text_projection.data.fill_(next(ends)))
    monkeypatch.setattr(module, "SECOND_SHARE", 0.25)
    train_clip(drawn, **SMALL)
    assert weights(drawn)["text_projection"].unique().tolist() == [0.75 * 1 + 0.25 * 3]


@pytest.mark.slow
def test_two_processes_share_both_stages(drawn, whole):
    train_clip(drawn, **{**SMALL, "processes": 2})
    assert len(list(drawn.glob("training-*.ckpt"))) == 2
    assert all(weight.isfinite().all() for weight in weights(drawn).values())
    # Each has pictures of its own.
    assert not torch.equal(weights(drawn)["visual.proj"], weights(whole)["visual.proj"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU multiplies bfloat16 faster")
@pytest.mark.parametrize(
    ("processor", "precision"), [("fma avx512_bf16", "bf16-mixed"), ("avx2 fma", "32-true"), (None, "32-true")]
)
def test_bfloat16_is_for_processors_that_have_it(tmp_path, monkeypatch, processor, precision):
    words = tmp_path / "cpuinfo"
    if processor is not None:  # else a system without such a file
        words.write_text(processor, encoding="utf-8")
    monkeypatch.setattr("anomalib_aprilgan.components.precision.PROCESSOR", words)
    assert module._precision() == precision


def test_second_stage_has_cloth_that_the_first_has_not():
    assert FIRST.shares["nonwoven"] == 0 < SECOND.shares["nonwoven"]
    assert sum(FIRST.shares.values()) < 1
    assert sum(SECOND.shares.values()) < 1
    assert SECOND.learning_rate < FIRST.learning_rate
    assert SECOND.first_scale == 100
