# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The stock anomalib trains AnomalyCLIP's prompts and judges with them, and fine-tuning runs as a command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_environment import Environment
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.slow]

SIDE = 56


@pytest.fixture
def model(tiny_arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of either model: random weights, 4 x 4 patches."""
    lengths = {"prompt_length": 4, "deep_prompt_length": 2, "deep_prompt_depth": 3}
    return {**tiny_arguments, "image_size": SIDE, "dpam_layers": 3, **lengths}


@pytest.fixture
def config(model: dict[str, Any], tmp_path: Path) -> Path:
    """Two folders of images and masks, one to train on and one held out, and one epoch; JSON is YAML."""
    random = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[14:28, 14:28] = 255
    sources = []
    for part in ("bolt", "nut"):
        for folder in ("image", "mask"):
            (tmp_path / part / folder).mkdir(parents=True)
        for index in range(4):
            truth = mask * (index % 2)
            pixels = np.maximum(random.integers(0, 200, (SIDE, SIDE, 3), dtype=np.uint8), truth[..., None])
            Image.fromarray(pixels).save(tmp_path / part / "image" / f"{index}.png")
            Image.fromarray(truth).save(tmp_path / part / "mask" / f"{index}.png")
        folders = {"name": part, "root": str(tmp_path / part), "image_dir": "image", "mask_dir": "mask"}
        sources.append({"class_path": "anomalib_aprilgan.data.MaskedImages", "init_args": folders})
    data = {"sources": sources, "validation": ["nut"], "image_size": SIDE, "num_workers": 0}
    content = {
        "model": {"class_path": "AnomalyCLIPPrompts", "init_args": {**model, "visualizer": False}},
        "data": {"class_path": "AuxiliaryData", "init_args": data},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "default_root_dir": str(tmp_path / "results"),
    }
    (tmp_path / "train.yaml").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path / "train.yaml"


def test_train_then_test_and_predict(from_wheel: Environment, model: dict[str, Any], config: Path) -> None:
    folder = config.parent
    prompts = folder / "results" / "AnomalyCLIPPrompts" / "AuxiliaryData" / "latest" / "prompts.safetensors"
    judge = [
        "--model=AnomalyCLIP",
        f"--model.prompt_weights={prompts}",
        *(f"--model.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in model.items()),
        "--trainer.accelerator=cpu",
        f"--default_root_dir={folder / 'judged'}",
    ]
    nut = {"name": "nut", "root": folder / "nut", "image_dir": "image", "mask_dir": "mask", "num_workers": 0}
    data = ["--data=anomalib_aprilgan.data.MaskedImages", *(f"--data.{name}={value}" for name, value in nut.items())]
    done = from_wheel.anomalib(
        ["train", "--config", str(config)],
        ["test", *judge, *data],
        ["predict", *judge, f"--data={folder / 'nut' / 'image'}"],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert prompts.is_file()
    assert "the prompts are random" not in done.stderr
    assert "image_AUROC" in done.stdout
    pictures = {path.name for path in (folder / "judged" / "AnomalyCLIP").rglob("*.png")}
    assert pictures == {f"{index}.png" for index in range(4)}


def test_fine_tuning_is_a_command(from_wheel: Environment, config: Path) -> None:
    done = from_wheel.run("-m", "anomalib_aprilgan.anomaly_clip.fine_tuning", "--config", config)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    (first,) = (
        index for index, line in enumerate(lines) if line.startswith("4 images to train on (MaskedImages/bolt)")
    )
    assert [line.split("|")[1].strip() for line in lines[first + 4 : first + 6]] == ["before (random prompts)", "after"]
    assert Path(lines[-1].removeprefix("Prompts: ")).is_file()
