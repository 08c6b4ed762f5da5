# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import sys
from dataclasses import replace
from inspect import signature

import pytest
from jsonargparse import auto_cli

from anomalib_aprilgan.demo import train as module


@pytest.fixture
def steps(monkeypatch) -> dict[str, dict]:
    """Arguments of each step by their names, instead of the steps themselves, in their order."""
    taken = {}
    for step in (module.train_clip, module.train_adapters, module.train_prompts):

        def take(*arguments, step=step, **named):
            taken[step.__name__] = signature(step).bind(*arguments, **named).arguments

        monkeypatch.setattr(module, step.__name__, take)
    return taken


def test_each_step_gets_its_settings(tmp_path, steps):
    folder, stages = tmp_path / "new", (module.SECOND, module.FIRST)
    module.train(folder, *stages, 1, adapter_lines=2, adapter_epochs=3, prompt_epochs=4, seed=5, processes=6)
    assert folder.is_dir()
    assert list(steps.items()) == [
        ("train_clip", {"folder": folder, "stages": stages, "pairs": 1, "seed": 5, "processes": 6}),
        ("train_adapters", {"folder": folder, "lines": 2, "epochs": 3}),
        ("train_prompts", {"folder": folder, "lines": 2, "epochs": 4, "seed": 5}),
    ]


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_clip", stop)
    with pytest.raises(SystemExit) as stopped:
        module.train(tmp_path)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "Stopped. The same command goes on, with the CLIP from its last whole epoch.\n"


def test_another_exit_keeps_its_status(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "train_clip", lambda *_: sys.exit(3))
    with pytest.raises(SystemExit) as left:
        module.train(tmp_path)
    assert left.value.code == 3
    assert not capsys.readouterr().err


def test_printed_settings_can_be_changed_and_read_back(tmp_path, steps, capsys):
    with pytest.raises(SystemExit) as left:
        auto_cli(module.train, args=["--second.pool_pairs=400", "--print_config", str(tmp_path)], as_positional=True)
    assert left.value.code == 0
    assert not steps
    printed = tmp_path / "settings.yaml"
    printed.write_text(capsys.readouterr().out)
    auto_cli(module.train, args=["--config", str(printed), str(tmp_path)], as_positional=True)
    assert steps["train_clip"]["folder"] == tmp_path
    assert steps["train_clip"]["stages"] == (module.FIRST, replace(module.SECOND, pool_pairs=400))
