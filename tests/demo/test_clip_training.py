# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from anomalib_aprilgan.components.embedded import CONFIG_FILE, WEIGHTS_FILE
from anomalib_aprilgan.demo import clip_training as module
from anomalib_aprilgan.demo.clip_training import STAGES, Stage, train_clip
from anomalib_aprilgan.demo.small_clip import SmallCLIP

FIRST = Stage({32: 2, 40: 1}, {"nonwoven": 0.0}, pool_pairs=8, learning_rate=5e-4, first_scale=30.0)
SECOND = Stage({32: 2}, {"nonwoven": 0.5}, pool_pairs=8, learning_rate=3e-4, first_scale=100.0)
SMALL = {"stages": (FIRST, SECOND), "pairs": 2, "seed": 0, "processes": 1}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(module, "STEPS_AN_EPOCH", 2)


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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEPS_AN_EPOCH", 2)
        train_clip(folder, **SMALL)
    return folder


@pytest.mark.parametrize("stopped", [(6, 2), (4, 1)], ids=["first stage", "second stage"])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, monkeypatch, whole, stopped):
    def stop(model: SmallCLIP) -> None:
        if (model.steps, model.current_epoch) == stopped:
            msg = "power cut"
            raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(SmallCLIP, "on_train_epoch_start", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train_clip(tmp_path, **SMALL)
    assert not (tmp_path / WEIGHTS_FILE).exists()
    train_clip(tmp_path, **SMALL)
    assert (tmp_path / CONFIG_FILE).is_file()
    assert_same(tmp_path, whole)
    assert "attn_mask" not in weights(tmp_path)


def test_another_training_in_the_same_folder_begins_anew(tmp_path, whole):
    other = {**SMALL, "stages": (replace(FIRST, schedule={32: 1, 40: 1}), SECOND)}
    both = shutil.copytree(whole, tmp_path / "both")
    train_clip(both, **other)
    train_clip(tmp_path / "alone", **other)
    assert_same(both, tmp_path / "alone")


def test_weights_are_the_average_of_both_stages(tmp_path, monkeypatch, whole):
    trained = shutil.copytree(whole, tmp_path / "trained")
    saved = []
    for share in (0.0, 1.0, 0.25):
        monkeypatch.setattr(module, "SECOND_SHARE", share)
        train_clip(trained, **SMALL)  # only the average is made anew
        saved.append(weights(trained))
    before, after, mixed = saved
    moved = 0
    for name, weight in mixed.items():
        expected = 0.75 * before[name].float() + 0.25 * after[name].float()
        torch.testing.assert_close(weight.float(), expected, rtol=2e-3, atol=1e-4, msg=name)
        moved += int(not torch.equal(before[name], after[name]))
    assert moved > 50


def test_second_stage_has_cloth_that_the_first_has_not():
    assert [stage.shares["nonwoven"] > 0 for stage in STAGES] == [False, True]
    assert all(sum(stage.shares.values()) < 1 for stage in STAGES)
    assert STAGES[1].learning_rate < STAGES[0].learning_rate
    assert STAGES[1].first_scale == 100
