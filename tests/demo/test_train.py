# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import pytest

from anomalib_aprilgan.demo import train as module


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_clip", stop)
    with pytest.raises(SystemExit) as stopped:
        module.train(tmp_path)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "Stopped. The same command goes on, with the CLIP from its last whole epoch.\n"
