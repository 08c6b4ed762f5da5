# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The steps that make the embedded adapters, and the embedded prompts of AnomalyCLIP."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from anomalib_aprilgan import AnomalyCLIP, AnomalyCLIPPrompts, AprilGANAdapters
from anomalib_aprilgan.anomaly_clip.learned_prompts import read_prompts
from anomalib_aprilgan.april_gan.adapters import read_adapters
from anomalib_aprilgan.components.embedded import (
    ADAPTERS_FILE,
    CONFIG_FILE,
    EMBEDDED_PROMPTS,
    FOLDER,
    PROMPTS_FILE,
    WEIGHTS_FILE,
)
from anomalib_aprilgan.components.trained_file import TrainedWith
from anomalib_aprilgan.data import AuxiliaryData
from anomalib_aprilgan.demo import train
from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING, HELD_OUT

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def lines_asked(monkeypatch, tmp_path) -> list[int]:
    """How many product lines are asked for; one good and one defective gear come in place of all of them."""
    asked = []

    def data(folder, lines):
        asked.append(lines)
        arguments = {"category": "gear", "root": str(tmp_path), "seed": lines}
        arguments |= {"train_images": 1, "good_images": 1, "defective_images": 1}
        source = {"class_path": "anomalib_aprilgan.demo.RenderedProducts", "init_args": arguments}
        return AuxiliaryData(sources=[source], image_size=EMBEDDED_PROMPTS.image_size, num_workers=0)

    monkeypatch.setattr(train, "adapter_data", data)
    return asked


@pytest.fixture
def epochs(monkeypatch) -> list[int]:
    """Numbers of the epochs that begin."""
    begun: list[int] = []
    for model in (AprilGANAdapters, AnomalyCLIPPrompts):
        monkeypatch.setattr(model, "on_train_epoch_start", lambda model: begun.append(model.current_epoch))
    return begun


@pytest.fixture
def folder(tmp_path) -> Path:
    """With the embedded CLIP, as the first step leaves it."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copy(FOLDER / name, tmp_path / name)
    return tmp_path


def dtypes(path: Path) -> set[torch.dtype]:
    return {tensor.dtype for tensor in load_file(path).values()}


def test_adapters_belong_to_the_embedded_clip(folder, lines_asked, epochs):
    train.train_adapters(folder, lines=3, epochs=2)
    said = read_adapters(folder / ADAPTERS_FILE).metadata
    known = {"layers": (3, 4, 5, 6), "image_size": 192, "trained_on": "RenderedProducts/gear"}
    assert said == TrainedWith("aprilgan-tiny", "embedded", quick_gelu=False, **known)
    assert dtypes(folder / ADAPTERS_FILE) == {torch.float16}
    assert (lines_asked, epochs) == ([3], [0, 1])


def test_prompts_learn_as_long_as_asked_from_a_start_that_the_seed_settles(folder, lines_asked, epochs):
    learned = []
    for seed in (0, 0, 1):
        train.train_prompts(folder, lines=3, epochs=2, seed=seed)
        learned.append(read_prompts(folder / PROMPTS_FILE).weights["context"])
    assert (lines_asked, epochs) == ([3] * 3, [0, 1] * 3)
    assert torch.equal(learned[0], learned[1])
    assert not torch.allclose(learned[0], learned[2], atol=1e-2)


def test_prompts_belong_to_the_embedded_clip(folder, lines_asked):
    train.train_prompts(folder, lines=1, epochs=1, seed=0)
    file = read_prompts(folder / PROMPTS_FILE)
    size, layers, dpam_layers, *_ = EMBEDDED_PROMPTS
    known = {"quick_gelu": False, "layers": layers, "image_size": size, "trained_on": "RenderedProducts/gear"}
    said = TrainedWith("aprilgan-tiny", "embedded", **known, dpam_layers=dpam_layers)
    assert file.trained_with == said
    assert dtypes(folder / PROMPTS_FILE) == {torch.float16}
    model = AnomalyCLIP("aprilgan-tiny", prompt_weights=folder / PROMPTS_FILE).model
    assert torch.equal(model.prompts.context, file.weights["context"])


def test_data_are_those_that_no_figure_is_made_of(tmp_path):
    data = train.adapter_data(tmp_path, lines=2)
    assert tuple(data.training_categories) == ADAPTER_TRAINING
    assert not set(data.training_categories) & set(HELD_OUT)
    assert sorted(source.line for source in data.sources) == [1] * 7 + [2] * 7
