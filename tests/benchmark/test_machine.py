# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What is told of the machine that measured."""

import os
import platform
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version

import torch

from anomalib_aprilgan import doctor
from anomalib_aprilgan.benchmark import machine


def test_the_processor_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    assert machine.processor_name()  # Python's own, where the system tells nothing
    machine.CPU_INFO.write_text("vendor_id\t: X\nmodel name\t: Good CPU @ 2 GHz\nflags\t: a\n", encoding="utf-8")
    assert machine.processor_name() == "Good CPU @ 2 GHz"


def test_versions_are_those_installed(monkeypatch):
    def version_there(name):
        if name == "anomalib-aprilgan":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", version_there)
    assert machine.versions() == {
        "python": platform.python_version(),
        "anomalib-aprilgan": "",  # a checkout
        **{name: version(name) for name in ("anomalib", "torch", "open_clip_torch")},
    }


def test_a_gpu_is_named_if_it_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Good GPU")
    assert machine.describe_machine("cuda")["gpu"] == "Good GPU"
    assert machine.describe_machine("cpu")["gpu"] is None


def test_cores_are_those_for_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert machine.describe_machine("cpu")["cores"] == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert machine.describe_machine("cpu")["cores"] == 8


def test_the_date_is_now_in_utc():
    date = datetime.fromisoformat(machine.describe_machine("cpu")["date"])
    assert date.utcoffset() == timedelta(0)
    assert abs(datetime.now(timezone.utc) - date) < timedelta(minutes=5)
