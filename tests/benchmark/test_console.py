# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Reports as commands."""

import logging
import os
import signal

import pytest
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_aprilgan.benchmark.console import print_report

CHATTER = "test_console.chatter"


def report(name: str, number: int = 2) -> str:
    logging.getLogger(CHATTER).warning("busy with %s", name)
    return f"{name} {number}\n"


@pytest.fixture(autouse=True)
def restored_level():
    """The logger is left as it was."""
    yield
    logging.getLogger(CHATTER).setLevel(logging.NOTSET)


@pytest.mark.parametrize(("level", "said"), [(logging.ERROR, []), (logging.WARNING, ["busy with nut"])])
def test_the_report_alone_is_printed(capsys, caplog, level, said):
    print_report(report, ["--name", "nut", "--number", "3"], quiet=[CHATTER], level=level)
    assert capsys.readouterr().out == "nut 3\n"
    assert caplog.messages == said


def test_required_parameters_may_be_positional(capsys):
    print_report(report, ["nut"], as_positional=True)
    assert capsys.readouterr().out == "nut 2\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_a_report_also_while_a_trainer_runs(number, capsys):
    class Struck(LightningModule):
        def test_step(self, batch, batch_idx):
            os.kill(os.getpid(), number)

    def report() -> str:
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        trainer.test(Struck(), DataLoader([0, 1]), verbose=False)
        return "went on"

    before = signal.signal(number, signal.default_int_handler)  # whoever runs tests in the background ignores Ctrl-C
    try:
        with pytest.raises(SystemExit) as done:
            print_report(report, [], quiet=[CHATTER])
    finally:
        signal.signal(number, before)
    assert done.value.code == 130
    assert "went on" not in capsys.readouterr().out
