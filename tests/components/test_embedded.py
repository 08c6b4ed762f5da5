# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import json

import pytest
import torch
from anomalib.engine import Engine
from safetensors import safe_open

from anomalib_aprilgan import AprilGAN, AprilGANAdapters, AprilGANModel
from anomalib_aprilgan.april_gan.adapters import read_adapters
from anomalib_aprilgan.components import embedded
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.embedded import ADAPTERS_FILE, CONFIG_FILE, FOLDER, WEIGHTS_FILE, settings_of
from anomalib_aprilgan.components.hub import WeightsNotFoundError
from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING
from anomalib_aprilgan.demo.rendering import render
from anomalib_aprilgan.demo.small_clip import CONFIG


def as_image(pixels: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255  # (1, 3, S, S)


def test_files_are_small_and_hold_no_pickle():
    assert {path.name for path in FOLDER.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE, ADAPTERS_FILE, "MODEL_CARD.md"}
    assert json.loads((FOLDER / CONFIG_FILE).read_text(encoding="utf-8")) == CONFIG
    with safe_open(FOLDER / WEIGHTS_FILE, framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # ruff: ignore[in-dict-keys]


def test_the_adapters_say_what_they_were_trained_with():
    metadata = read_adapters(FOLDER / ADAPTERS_FILE).metadata
    assert (metadata.backbone, metadata.pretrained, metadata.quick_gelu) == ("aprilgan-tiny", "embedded", False)
    assert (metadata.layers, metadata.image_size) == (embedded.LAYERS, embedded.IMAGE_SIZE)
    assert set(str(metadata.trained_on).split(", ")) == {f"RenderedProducts/{name}" for name in ADAPTER_TRAINING}


def test_the_name_alone_brings_weights_adapters_size_and_layers(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens: any try would fail
    model = AprilGAN("coin", backbone="aprilgan-tiny")
    assert model.hparams["pretrained"] == "embedded"
    assert (model.model.image_size, tuple(model.model.layers)) == (embedded.IMAGE_SIZE, embedded.LAYERS)
    assert str(model.model.trained_on).startswith("RenderedProducts/")
    assert AprilGANAdapters(backbone="aprilgan-tiny").model.image_size == embedded.IMAGE_SIZE


def test_what_the_user_says_goes_first():
    model = AprilGAN("coin", backbone="aprilgan-tiny", image_size=112, layers=[4, 6], adapters=None)
    assert (model.model.image_size, tuple(model.model.layers)) == (112, (4, 6))
    assert AprilGAN("coin", backbone="aprilgan-tiny", layers=[4, 6]).model.trained_on is None


def test_other_backbones_keep_the_papers_settings():
    assert settings_of("ViT-B-16") == settings_of("ViT-L-14-336")
    assert settings_of("ViT-L-14-336").layers == (6, 12, 18, 24)
    with pytest.raises(ValueError, match="'openai' is not a tag of backbone 'aprilgan-tiny'; open_clip knows embedded"):
        CLIPSource.resolve("aprilgan-tiny", "openai")
    with pytest.raises(ValueError, match="'embedded' is not a tag of backbone 'ViT-B-16'"):
        CLIPSource.resolve("ViT-B-16", "embedded")


def test_a_missing_download_names_the_way_to_try_out(monkeypatch):
    monkeypatch.setattr("anomalib_aprilgan.components.hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsNotFoundError, match=r"without any download.*backbone=aprilgan-tiny"):
        AprilGAN("coin")


def test_a_hole_in_an_unseen_product_is_found():
    module = AprilGAN("coin", backbone="aprilgan-tiny")
    transform = module.pre_processor.transform
    good, bad = (render("coin", 0, part=30, defect=defect, size=128) for defect in (None, "hole"))
    module.setup("predict")
    with torch.no_grad():
        predictions = module.model(torch.cat([transform(as_image(shot.image.copy())) for shot in (good, bad)]))
    map_of_bad, mask = predictions.anomaly_map[1], torch.from_numpy(bad.mask)
    assert predictions.pred_score[1] > predictions.pred_score[0]
    assert map_of_bad[mask].mean() > map_of_bad[~mask].mean() + 0.1


def test_the_torch_model_takes_the_embedded_weights_by_name():
    model = AprilGANModel("aprilgan-tiny", "embedded", image_size=112, layers=(2, 6))
    assert model.source.fingerprint()["backbone"] == "aprilgan-tiny"


def test_predict_in_three_lines(tmp_path, caplog):
    import cv2

    cv2.imwrite(str(tmp_path / "part.png"), render("coin", 0, part=30, defect="hole").image)
    model = AprilGAN(class_name="coin", backbone="aprilgan-tiny")
    with caplog.at_level("INFO"):
        predictions = Engine(default_root_dir=tmp_path / "results", logger=False).predict(
            model, data_path=tmp_path / "part.png"
        )
    assert len(predictions) == 1
    assert 0 <= predictions[0].pred_score.item() <= 1
    folder = next(record.args[0] for record in caplog.records if record.msg.startswith("Heat maps are in"))
    assert list(folder.rglob("part*"))
