# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The step that makes the embedded prompts of AnomalyCLIP."""

import shutil

import pytest
import torch

from anomalib_aprilgan import AnomalyCLIP
from anomalib_aprilgan.anomaly_clip.learned_prompts import read_prompts
from anomalib_aprilgan.components.embedded import CONFIG_FILE, EMBEDDED_PROMPTS, FOLDER, PROMPTS_FILE, WEIGHTS_FILE
from anomalib_aprilgan.components.trained_file import TrainedWith
from anomalib_aprilgan.data import AuxiliaryData
from anomalib_aprilgan.demo import train
from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING, HELD_OUT

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def few(monkeypatch, tmp_path):
    """One good and one defective gear in place of all the data."""

    def data(folder, lines):
        arguments = {"category": "gear", "root": str(tmp_path), "seed": lines}
        arguments |= {"train_images": 1, "good_images": 1, "defective_images": 1}
        source = {"class_path": "anomalib_aprilgan.demo.RenderedProducts", "init_args": arguments}
        return AuxiliaryData(sources=[source], image_size=EMBEDDED_PROMPTS.image_size, num_workers=0)

    monkeypatch.setattr(train, "adapter_data", data)


def test_prompts_belong_to_the_embedded_clip(few, tmp_path):
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copy(FOLDER / name, tmp_path / name)
    train.train_prompts(tmp_path, lines=1, epochs=1, seed=0)
    file = read_prompts(tmp_path / PROMPTS_FILE)
    size, layers, dpam_layers, *_ = EMBEDDED_PROMPTS
    known = {"quick_gelu": False, "layers": layers, "image_size": size, "trained_on": "RenderedProducts/gear"}
    said = TrainedWith("aprilgan-tiny", "embedded", **known, dpam_layers=dpam_layers)
    assert file.trained_with == said
    model = AnomalyCLIP("aprilgan-tiny", prompt_weights=tmp_path / PROMPTS_FILE).model
    assert torch.equal(model.prompts.context, file.weights["context"])


def test_data_are_those_that_no_figure_is_made_of(tmp_path):
    data = train.adapter_data(tmp_path, lines=2)
    assert tuple(data.training_categories) == ADAPTER_TRAINING
    assert not set(data.training_categories) & set(HELD_OUT)
    assert sorted(source.line for source in data.sources) == [1] * 7 + [2] * 7
