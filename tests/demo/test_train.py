# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from safetensors.torch import load_file

from anomalib_aprilgan.components.embedded import CONFIG_FILE, WEIGHTS_FILE
from anomalib_aprilgan.demo import train as module
from anomalib_aprilgan.demo.small_clip import SmallCLIP

SMALL = {"schedule": {32: 2, 40: 1}, "pool_pairs": 8, "pairs": 2, "seed": 0, "processes": 1}


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    monkeypatch.setattr(module, "STEPS_AN_EPOCH", 2)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(str(folder / WEIGHTS_FILE))


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    module.train_clip(tmp_path / "whole", **SMALL)
    assert (tmp_path / "whole" / CONFIG_FILE).is_file()

    def stop(model: SmallCLIP) -> None:
        if model.current_epoch == 2:
            msg = "power cut"
            raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(SmallCLIP, "on_train_epoch_start", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            module.train_clip(tmp_path / "parts", **SMALL)
    assert not (tmp_path / "parts" / WEIGHTS_FILE).exists()
    module.train_clip(tmp_path / "parts", **SMALL)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(weight, parts[name], rtol=0, atol=0, msg=name)
    assert "attn_mask" not in whole


def test_another_training_in_the_same_folder_begins_anew(tmp_path):
    module.train_clip(tmp_path, **SMALL)
    module.train_clip(tmp_path, **{**SMALL, "schedule": {32: 1, 40: 1}})
    module.train_clip(tmp_path / "alone", **{**SMALL, "schedule": {32: 1, 40: 1}})
    both, alone = weights(tmp_path), weights(tmp_path / "alone")
    for name, weight in alone.items():
        torch.testing.assert_close(weight, both[name], rtol=0, atol=0, msg=name)


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_clip", stop)
    with pytest.raises(SystemExit) as stopped:
        module.train(tmp_path)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "Stopped. The same command goes on, with the CLIP from its last whole epoch.\n"
