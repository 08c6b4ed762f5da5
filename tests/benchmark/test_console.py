# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Reports as commands."""

import logging

import pytest

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
