# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What ``anomalib-aprilgan speed`` times is set up as it should be: here of small parts."""

from pathlib import Path

import pytest
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from anomalib.models.image.winclip.torch_model import WinClipModel
from PIL import Image

from anomalib_aprilgan import AnomalyCLIPModel
from anomalib_aprilgan.benchmark import contenders
from anomalib_aprilgan.components.clip_config import load_config

pytestmark = pytest.mark.filterwarnings("ignore")

BATCH_SIZE = 2
SETTINGS = contenders.Settings(batch_size=BATCH_SIZE)


def watch(monkeypatch, kind):
    """Models of a kind and their verdicts, as they judge."""
    seen = []
    plain = kind.forward

    def forward(self, images):
        verdict = plain(self, images)
        seen.append((self, verdict))
        return verdict

    monkeypatch.setattr(kind, "forward", forward)
    return seen


class TestWinClip:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch, tiny_backbone):
        """A CLIP of 4 x 4 patches."""
        monkeypatch.setattr(contenders, "WINCLIP_BACKBONE", tiny_backbone)
        monkeypatch.setattr(contenders, "WINCLIP_SIZE", 56)

    @pytest.mark.parametrize("shots", [0, 4])
    def test_it_judges_a_batch_with_so_many_references(self, monkeypatch, shots):
        seen = watch(monkeypatch, WinClipModel)
        assert contenders.winclip(SETTINGS, None, shots)() > 0
        [(model, verdict)] = seen
        assert verdict.anomaly_map.shape == (BATCH_SIZE, 56, 56)
        assert (model.class_name, model.k_shot, model.training) == ("object", shots, False)
        assert model.text_embeddings.shape == (2, 32)

    def test_few_shot_keeps_windows_and_patches_of_each_reference_and_compares_with_them(self, monkeypatch):
        seen = watch(monkeypatch, WinClipModel)
        contenders.winclip(SETTINGS, None, 4)()
        [(model, _)] = seen
        # Windows of 2 x 2 and 3 x 3 patches have 3 x 3 and 2 x 2 places.
        assert [tuple(windows.shape) for windows in model.visual_embeddings] == [(4, 9, 32), (4, 4, 32)]
        assert model.patch_embeddings.shape == (4, 16, 64)
        assert len({reference.sum().item() for reference in model.patch_embeddings}) == 4  # no two are the same
        image = model.reference_images[:1]
        found = model.encode_image(image)
        distances = model._compute_few_shot_scores(found[2], found[1])
        torch.testing.assert_close(distances, torch.zeros(1, 4, 4), rtol=0, atol=1e-5)  # a reference is like itself

    def test_zero_shot_has_nothing_to_compare_with(self, monkeypatch):
        seen = watch(monkeypatch, WinClipModel)
        contenders.winclip(SETTINGS, None, 0)()
        [(model, _)] = seen
        assert model.reference_images is None
        with pytest.raises(RuntimeError, match="Visual embeddings have not been collected"):
            _ = model.visual_embeddings


def test_winclips_size_is_that_of_its_clip():
    assert load_config(contenders.WINCLIP_BACKBONE)["vision_cfg"]["image_size"] == contenders.WINCLIP_SIZE


@pytest.mark.parametrize(("images", "patches"), [(4, 25), (10, 64)])
def test_patchcores_bank_is_a_tenth_of_the_patches_of_so_many_images(monkeypatch, images, patches):
    monkeypatch.setattr(contenders, "PATCHCORE_BACKBONE", "resnet18")
    monkeypatch.setattr(contenders, "PATCHCORE_SIZE", 64)
    seen = watch(monkeypatch, PatchcoreModel)
    with torch.inference_mode():
        assert contenders.patchcore(SETTINGS, None, images)() > 0
    (model, embedding), (same, verdict) = seen  # one image tells the patches, then the batch is judged
    assert same is model
    assert embedding.shape == (64, 128 + 256)  # 8 x 8 patches; channels of both layers of a ResNet18
    assert model.memory_bank.shape == (patches, 128 + 256)
    assert model.embedding_store == []
    assert not model.training
    assert verdict.anomaly_map.shape[-2:] == (64, 64)
    assert len(verdict.anomaly_map) == BATCH_SIZE


def test_predict_brings_the_shared_model_back_to_its_device(tiny_backbone, monkeypatch):
    settings = contenders.Settings(tiny_backbone, 28, (2, 4))
    timer = contenders.predict(settings, contenders.build_model(settings))
    events = []
    predictor = timer.__self__
    monkeypatch.setattr(predictor.engine, "predict", lambda module, **_: events.append("trainer"))
    monkeypatch.setattr(predictor.module, "to", events.append)
    timer()
    assert events == ["trainer", "cpu"]


@pytest.mark.parametrize("photo_scale", [1, 3])
def test_predict_reads_photographs_of_the_size_asked_for(tiny_backbone, photo_scale):
    settings = contenders.Settings(tiny_backbone, 28, (2, 4), photo_scale=photo_scale)
    predictor = contenders.predict(settings, contenders.build_model(settings)).__self__
    photographs = sorted(Path(predictor.folder.name).glob("*.jpg"))
    assert len({path.read_bytes() for path in photographs}) == len(photographs) == contenders.PREDICTED_BATCHES + 1
    for path in photographs:
        with Image.open(path) as image:
            assert image.size == (28 * photo_scale, 28 * photo_scale)


def test_anomaly_clip_shares_the_tower_and_does_all_its_work(tiny_backbone, monkeypatch):
    settings = contenders.Settings(tiny_backbone, 28, (1, 2, 3, 4))
    model = contenders.build_model(settings)
    seen = watch(monkeypatch, AnomalyCLIPModel)
    contenders.anomaly_clip(settings, model)()
    [(other, verdict)] = seen
    assert verdict.anomaly_map.isfinite().all()
    assert other.clip.visual is model.clip.visual
    assert (other.layers, other.dpam_layers) == ((4,), 4)
