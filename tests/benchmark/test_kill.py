# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A benchmark in a process of its own, which is interrupted, killed, and brought to its end."""

import csv
import signal

import pytest
import yaml
from commands import SOON, Command, none_left_behind
from test_harness import write_images

SEEDS = 10


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
    with none_left_behind() as started:

        def start() -> Command:
            started.append(Command(["benchmark", "--config", str(file)], tmp_path, {}))
            return started[-1]

        yield start


@pytest.mark.slow
def test_no_row_is_lost_and_none_is_done_twice(start, tmp_path):
    results = tmp_path / "report" / "results.csv"
    process = start()
    process.wait_for_lines(results, 2)
    process.send(signal.SIGTERM)  # SIGINT may be ignored by whoever started the tests
    assert process.wait(SOON) == 130, process.told()
    assert "tells what is done; the same command goes on from there." in process.told()
    assert "Traceback" not in process.told()
    interrupted = results.read_bytes()
    rows = interrupted.count(b"\n") - 1
    report = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert f"Runs done: {rows} of {SEEDS}." in report

    process = start()
    killed = process.wait_for_lines(results, rows + 2)
    process.send(signal.SIGKILL)
    assert process.wait(SOON) == -signal.SIGKILL
    assert killed.startswith(interrupted)

    process = start()
    assert process.wait() == 0, process.told()
    assert results.read_bytes().startswith(killed[: killed.rindex(b"\n") + 1])
    with results.open(encoding="utf-8", newline="") as file:
        finished = list(csv.DictReader(file))
    assert sorted(int(row["seed"]) for row in finished) == list(range(SEEDS))
