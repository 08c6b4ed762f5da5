# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A benchmark in a process of its own, which is interrupted, killed, and brought to its end."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from test_harness import write_images

REPOSITORY = Path(__file__).parents[2]
SEEDS = 10
PATIENCE = 300


@pytest.fixture
def start(tmp_path, tiny_backbone):
    """Function that starts the benchmark."""
    images = write_images(tmp_path / "images", masks=False) / "bottle"
    folders = {"root": str(images), "normal_dir": "train/good", "abnormal_dir": "test/broken"}
    folders |= {"normal_test_dir": "test/good", "val_split_mode": "none", "num_workers": 0}
    model = {"backbone": tiny_backbone, "pretrained": None, "image_size": 56, "layers": [2]}
    plan = {
        "output": str(tmp_path / "report"),
        "shots": [1],
        "seeds": list(range(SEEDS)),
        "accelerator": "cpu",
        "latency_seconds": 0,
        "methods": {"AprilGAN": {"class_path": "AprilGAN", "init_args": model}},
        "datasets": {"bottles": {"class_path": "Folder", "init_args": {"name": "bottles", **folders}}},
    }
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    command = [sys.executable, "-m", "anomalib_aprilgan.cli", "benchmark", "--config", str(file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], str(REPOSITORY)])}
    return lambda: subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_rows(results, count, process):
    """What the results are as soon as they have so many rows."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        content = results.read_bytes() if results.exists() else b""
        if content.count(b"\n") > count:
            return content
        time.sleep(0.02)
    raise AssertionError(process.communicate(timeout=PATIENCE)[1])


@pytest.mark.slow
def test_no_row_is_lost_and_none_is_done_twice(start, tmp_path):
    results = tmp_path / "report" / "results.csv"
    process = start()
    wait_for_rows(results, 1, process)
    process.send_signal(signal.SIGTERM)  # SIGINT may be ignored by whoever started the tests
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, told
    assert "tells what is done; the same command goes on from there." in told
    assert "Traceback" not in told
    interrupted = results.read_bytes()
    rows = interrupted.count(b"\n") - 1
    report = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert f"Runs done: {rows} of {SEEDS}." in report

    process = start()
    killed = wait_for_rows(results, rows + 1, process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    assert killed.startswith(interrupted)

    process = start()
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, told
    assert results.read_bytes().startswith(killed[: killed.rindex(b"\n") + 1])
    with results.open(encoding="utf-8", newline="") as file:
        finished = list(csv.DictReader(file))
    assert sorted(int(row["seed"]) for row in finished) == list(range(SEEDS))
