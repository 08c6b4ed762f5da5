# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The start-up benchmark measures starts with and without the hook."""

import os
import sys

import pytest

from anomalib_aprilgan.benchmark import start_up

WORK = "import os; sum(range(20_000_000 if os.environ['ANOMALIB_MODEL_PLUGINS'] == '1' else 2_000_000))"


def test_slower_starts_show(monkeypatch):
    monkeypatch.setattr(start_up, "STARTS", {"work": ("-c", WORK)})
    report = start_up.report_start_up(repeats=1)
    assert report.startswith("work: ")
    assert float(report.split("x ")[1].split()[0]) > 2


def test_a_start_that_fails_is_no_number():
    with pytest.raises(start_up.subprocess.CalledProcessError):
        start_up.processor_seconds([sys.executable, "-c", "raise SystemExit(1)"], os.environ)
