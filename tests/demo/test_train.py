# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

from dataclasses import replace

import pytest
from jsonargparse import auto_cli

from anomalib_aprilgan.demo import train as module


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_clip", stop)
    with pytest.raises(SystemExit) as stopped:
        module.train(tmp_path)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "Stopped. The same command goes on, with the CLIP from its last whole epoch.\n"


def test_printed_settings_can_be_changed_and_read_back(tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(module, "train_clip", lambda folder, stages, *_: seen.append((folder, stages)))
    for later in ("train_adapters", "train_prompts"):
        monkeypatch.setattr(module, later, lambda *_: None)
    with pytest.raises(SystemExit):
        auto_cli(module.train, args=["--second.pool_pairs=400", "--print_config", str(tmp_path)], as_positional=True)
    printed = tmp_path / "settings.yaml"
    printed.write_text(capsys.readouterr().out)
    auto_cli(module.train, args=["--config", str(printed), str(tmp_path)], as_positional=True)
    assert seen == [(tmp_path, (module.FIRST, replace(module.SECOND, pool_pairs=400)))]
