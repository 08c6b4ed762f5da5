# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import json

import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from safetensors import safe_open
from torchmetrics.functional.classification import binary_auroc

from anomalib_aprilgan import AnomalyCLIP, AnomalyCLIPPrompts, AprilGAN, AprilGANAdapters, AprilGANModel
from anomalib_aprilgan.anomaly_clip.learned_prompts import read_prompts
from anomalib_aprilgan.april_gan.adapters import read_adapters
from anomalib_aprilgan.benchmark.metrics import paper_metrics
from anomalib_aprilgan.components import embedded
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.embedded import (
    ADAPTERS_FILE,
    CONFIG_FILE,
    EMBEDDED_PROMPTS,
    FOLDER,
    PROMPTS_FILE,
    WEIGHTS_FILE,
    embedded_prompts,
    prompt_settings_of,
    settings_of,
)
from anomalib_aprilgan.components.hub import WeightsNotFoundError
from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING
from anomalib_aprilgan.demo.defects import DEFECTS
from anomalib_aprilgan.demo.rendering import render
from anomalib_aprilgan.demo.small_clip import CONFIG


def as_image(pixels: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255  # (1, 3, S, S)


@pytest.mark.parametrize(
    ("name", "most_bytes"), [(WEIGHTS_FILE, 12_800_000), (ADAPTERS_FILE, 140_000), (PROMPTS_FILE, 7_000)]
)
def test_weights_are_small_and_in_half_precision(name, most_bytes):
    assert (FOLDER / name).stat().st_size <= most_bytes
    with safe_open(FOLDER / name, framework="pt") as file:
        assert {file.get_slice(tensor).get_dtype() for tensor in file.keys()} == {"F16"}  # ruff: ignore[in-dict-keys]


def test_the_folder_holds_no_pickle():
    files = {CONFIG_FILE, WEIGHTS_FILE, ADAPTERS_FILE, PROMPTS_FILE}
    assert {path.name for path in FOLDER.iterdir()} == files | {"MODEL_CARD.md"}
    assert json.loads((FOLDER / CONFIG_FILE).read_text(encoding="utf-8")) == CONFIG


def test_the_adapters_say_what_they_were_trained_with():
    metadata = read_adapters(FOLDER / ADAPTERS_FILE).metadata
    assert (metadata.backbone, metadata.pretrained, metadata.quick_gelu) == ("aprilgan-tiny", "embedded", False)
    assert (metadata.layers, metadata.image_size) == (embedded.LAYERS, embedded.IMAGE_SIZE)
    assert set(str(metadata.trained_on).split(", ")) == {f"RenderedProducts/{name}" for name in ADAPTER_TRAINING}


class TestPrompts:
    """AnomalyCLIP knows the small CLIP, too."""

    def test_they_say_what_they_were_trained_with(self):
        file = read_prompts(FOLDER / PROMPTS_FILE)
        said = file.trained_with
        assert (said.backbone, said.pretrained, said.quick_gelu) == ("aprilgan-tiny", "embedded", False)
        assert (said.layers, said.image_size) == (EMBEDDED_PROMPTS.layers, EMBEDDED_PROMPTS.image_size)
        assert set(str(said.trained_on).split(", ")) == {f"RenderedProducts/{name}" for name in ADAPTER_TRAINING}

    @pytest.mark.filterwarnings("error")  # prompts would be random
    def test_the_name_alone_brings_them(self, no_network):
        module = AnomalyCLIP(backbone="aprilgan-tiny")
        model = module.model
        settings = (model.image_size, model.layers, model.dpam_layers, model.prompts.length, *model.prompts.deep.shape)
        size, layers, dpam_layers, length, deep_length, depth = EMBEDDED_PROMPTS
        assert settings == (size, layers, dpam_layers, length, depth - 1, deep_length, 96)
        assert str(model.trained_on).startswith("RenderedProducts/")
        assert module.hparams["pretrained"] == "embedded"
        assert module.hparams["layers"] == list(layers)

    def test_training_starts_from_random_ones_or_from_these(self):
        anew = AnomalyCLIPPrompts(backbone="aprilgan-tiny").model
        again = AnomalyCLIPPrompts(backbone="aprilgan-tiny", start_from="embedded").model
        bundled = read_prompts(FOLDER / PROMPTS_FILE).weights["context"]
        assert torch.equal(again.prompts.context, bundled)
        assert not torch.equal(anew.prompts.context, bundled)
        assert (again.trained_on is None, anew.trained_on) == (False, None)

    @pytest.mark.filterwarnings("ignore:No prompt_weights")
    def test_what_the_user_says_goes_first(self):
        model = AnomalyCLIP("aprilgan-tiny", image_size=112, layers=[6], dpam_layers=2).model
        assert (model.image_size, model.layers, model.dpam_layers) == (112, (6,), 2)
        assert model.trained_on is not None
        assert AnomalyCLIP("aprilgan-tiny", prompt_length=6).model.trained_on is None  # of another shape
        assert AnomalyCLIP("aprilgan-tiny", prompt_weights=None).model.trained_on is None

    def test_they_belong_to_one_clip_and_one_length(self):
        lengths = EMBEDDED_PROMPTS.lengths
        assert embedded_prompts("aprilgan-tiny", "embedded", lengths) == FOLDER / PROMPTS_FILE
        assert embedded_prompts("aprilgan-tiny", None, lengths) is None
        assert embedded_prompts("ViT-B-16", "embedded", lengths) is None
        assert embedded_prompts("aprilgan-tiny", "embedded", (12, 4, 9)) is None

    def test_other_backbones_keep_the_papers_settings(self):
        assert prompt_settings_of("ViT-B-16") == (518, (24,), 19, 12, 4, 9)

    def test_a_hole_in_an_unseen_product_is_found(self):
        module = AnomalyCLIP(backbone="aprilgan-tiny").eval()
        good, bad = (render("coin", 0, part=30, defect=defect, size=192) for defect in (None, "hole"))
        with torch.no_grad():
            images = torch.cat([module.pre_processor.transform(as_image(shot.image.copy())) for shot in (good, bad)])
            verdict = module.model(images)
        map_of_bad, mask = verdict.anomaly_map[1], torch.from_numpy(bad.mask)
        assert verdict.pred_score[1] > verdict.pred_score[0]
        assert map_of_bad[mask].mean() > map_of_bad[~mask].mean() + 0.1


def test_the_name_alone_brings_weights_adapters_size_and_layers(no_network):
    model = AprilGAN("coin", backbone="aprilgan-tiny")
    assert model.hparams["pretrained"] == "embedded"
    assert (model.model.image_size, tuple(model.model.layers)) == (embedded.IMAGE_SIZE, embedded.LAYERS)
    assert str(model.model.trained_on).startswith("RenderedProducts/")
    assert AprilGANAdapters(backbone="aprilgan-tiny").model.image_size == embedded.IMAGE_SIZE


def test_what_the_user_says_goes_first():
    model = AprilGAN("coin", backbone="aprilgan-tiny", image_size=112, layers=[4, 6], adapters=None)
    assert (model.model.image_size, tuple(model.model.layers)) == (112, (4, 6))
    assert AprilGAN("coin", backbone="aprilgan-tiny", layers=[4, 6]).model.trained_on is None


def test_every_tile_is_as_large_as_a_whole_image_unless_the_user_says():
    sizes = {size: AprilGAN(backbone="aprilgan-tiny", image_size=size, tiles=2).model for size in (None, 320)}
    assert [(model.image_size, model.clip.image_size) for model in sizes.values()] == [(384, 192), (320, 160)]


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
    good, bad = (render("coin", 0, part=30, defect=defect, size=192) for defect in (None, "hole"))
    module.setup("predict")
    with torch.no_grad():
        predictions = module.model(torch.cat([transform(as_image(shot.image.copy())) for shot in (good, bad)]))
    map_of_bad, mask = predictions.anomaly_map[1], torch.from_numpy(bad.mask)
    assert predictions.pred_score[1] > predictions.pred_score[0]
    assert map_of_bad[mask].mean() > map_of_bad[~mask].mean() + 0.1


def test_the_torch_model_takes_the_embedded_weights_by_name():
    model = AprilGANModel("aprilgan-tiny", "embedded", image_size=112, layers=(2, 6))
    assert model.source.fingerprint()["backbone"] == "aprilgan-tiny"


def pictures(category: str, kinds: list[str | None], first: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Parts of a product line with these defects, (N, 3, S, S) in [0, 1], and their masks (N, S, S)."""
    shots = [render(category, 0, part, kind, size=192) for part, kind in enumerate(kinds, first)]
    return torch.cat([as_image(shot.image.copy()) for shot in shots]), np.stack([shot.mask for shot in shots])


def figures(model: AprilGAN, category: str, name: str, references: torch.Tensor | None = None) -> list[float]:
    """Image AUROC, pixel AUROC and AUPRO on twelve good parts and twelve defective ones, under this name."""
    images, masks = pictures(category, [*[None] * 12, *DEFECTS])
    model.model.setup(name, references)
    with torch.inference_mode():
        verdict = model.model(model.pre_processor.transform(images))
    scores, labels = verdict.pred_score.numpy(), masks.any(axis=(1, 2))
    metrics = paper_metrics(masks, verdict.anomaly_map.numpy(), labels, scores)
    return [metrics[column] for column in ("AUROC-cls", "AUROC-segm", "PRO-segm")]


def test_it_still_finds_defects_on_products_that_it_never_saw():
    model = AprilGAN(backbone="aprilgan-tiny")
    categories = ("leather", "pill", "circuit_board")
    found = np.array([figures(model, category, category.replace("_", " ")) for category in categories])
    assert (found.mean(axis=0) > (0.95, 0.92, 0.8)).all(), found


def test_of_coins_any_name_will_do_and_four_references_help():
    model = AprilGAN(backbone="aprilgan-tiny")
    good, _ = pictures("coin", [None] * 4, first=100)
    references = model.pre_processor.transform(good)
    named, unknown, few_shot = (
        np.array(figures(model, "coin", *options)) for options in (["coin"], ["flurb connector"], ["coin", references])
    )
    assert (unknown > named - 0.02).all(), (named, unknown)
    assert (few_shot > named).all(), (named, few_shot)


def shown(model: AprilGAN, references: int = 0) -> float:
    """Pixel AUROC on twelve bottles, one with each kind of defect, none of which CLIP or adapters ever saw."""
    shots, masks = pictures("bottle", [*DEFECTS, *[None] * references])
    images = model.pre_processor.transform(shots)
    model.model.setup("bottle", images[len(DEFECTS) :] if references else None)
    truth = torch.from_numpy(masks[: len(DEFECTS)]).long()
    return binary_auroc(model.model(images[: len(DEFECTS)]).anomaly_map, truth).item()


@pytest.mark.filterwarnings("ignore:No adapters given")
def test_bundled_adapters_and_then_four_references_each_show_more_of_the_defects():
    model = AprilGAN(backbone="aprilgan-tiny")
    without = shown(AprilGAN(backbone="aprilgan-tiny", adapters=None))
    zero_shot, four_shot = shown(model), shown(model, references=4)
    assert without + 0.02 < zero_shot < four_shot - 0.03, (without, zero_shot, four_shot)


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
