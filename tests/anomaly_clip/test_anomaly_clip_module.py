# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AnomalyCLIP under anomalib's Engine: verdicts, choice of prompts, checkpoints, image files."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib import LearningType
from anomalib.data import MVTecAD, PredictDataset
from anomalib.models import get_model
from PIL import Image

from anomalib_aprilgan import AnomalyCLIP, AprilGAN
from anomalib_aprilgan.anomaly_clip import lightning_model
from anomalib_aprilgan.anomaly_clip.learned_prompts import LearnedPrompts, read_prompts
from anomalib_aprilgan.components.trained_file import TrainedWith
from anomalib_aprilgan.data.image_files import UnreadableImageError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def arguments(small_arguments: dict[str, Any]) -> dict[str, Any]:
    return {**small_arguments, "visualizer": False}


@pytest.fixture
def bottle(mvtec_root: Path) -> MVTecAD:
    return MVTecAD(mvtec_root, category="bottle", num_workers=0, val_split_mode="same_as_test")


@pytest.fixture
def prompts(tmp_path: Path) -> Callable[..., str]:
    """Factory of files of random prompts that say something of themselves."""

    def write(**said: Any) -> str:
        path = tmp_path / "prompts.safetensors"
        LearnedPrompts(32, 4, 2, 3).save(path, TrainedWith(**said))
        return str(path)

    return write


class TestVerdicts:
    """What a user sees."""

    def test_known_to_anomalib_by_name(self, arguments):
        model = get_model("AnomalyCLIP", **arguments)
        assert type(model) is AnomalyCLIP
        assert model.learning_type == LearningType.ZERO_SHOT

    def test_metrics_and_thresholds_without_a_class_name(self, bottle, arguments, engine):
        model = AnomalyCLIP(**arguments)
        reported = engine().train(model, datamodule=bottle)[0]
        kinds = ("AUROC", "F1Max", "AveragePrecision")
        assert set(reported) == {*(f"{what}_{kind}" for what in ("image", "pixel") for kind in kinds), "pixel_AUPRO"}
        assert all(0 <= value <= 1 for value in reported.values())
        assert not model.post_processor.image_threshold.isnan()

    def test_predict_equals_forward_on_raw_images(self, mvtec_root, arguments, engine):
        path = mvtec_root / "bottle" / "test" / "bad" / "3.png"
        model = AnomalyCLIP(**arguments)
        prediction = engine().predict(model, data_path=path)[0]
        direct = model(PredictDataset(path)[0].image[None])
        torch.testing.assert_close(direct.anomaly_map, prediction.anomaly_map, rtol=0, atol=1e-5)
        assert prediction.pred_label.item() == (prediction.pred_score.item() > 0.5)

    def test_log_says_where_the_heat_maps_are(self, mvtec_root, arguments, engine, caplog):
        with caplog.at_level("INFO"):
            engine().predict(AnomalyCLIP(**{**arguments, "visualizer": True}), data_path=mvtec_root / "bottle/test/bad")
        folder = next(record.args[0] for record in caplog.records if record.msg.startswith("Heat maps are in"))
        assert sorted(path.stem for path in Path(folder).rglob("*.png")) == ["3", "4"]

    def test_sixteen_bit_images_are_not_clipped(self, arguments, engine, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint16)
        Image.fromarray((pixels * 257).astype(np.uint16)).save(tmp_path / "sixteen.png")
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "eight.png")
        model = AnomalyCLIP(**arguments)
        scores = [engine().predict(model, data_path=tmp_path / f"{name}.png")[0] for name in ("eight", "sixteen")]
        assert scores[0].pred_score.item() == pytest.approx(scores[1].pred_score.item(), abs=1e-5)

    def test_unreadable_file_is_named(self, arguments, engine, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"no image")
        with pytest.raises(UnreadableImageError, match=r"broken\.png"):
            engine().predict(AnomalyCLIP(**arguments), data_path=tmp_path)

    def test_image_size_that_is_no_square(self):
        with pytest.raises(ValueError, match=r"image_size=\(56, 70\) must be square"):
            AnomalyCLIP.configure_pre_processor((56, 70))


class TestChoice:
    """Which prompts are used, and a mark where they have seen the data."""

    @pytest.fixture
    def published(self, prompts, monkeypatch) -> list[str]:
        """Let random prompts stand for the authors' own, and record which were asked for."""
        asked: list[str] = []

        def find(name: str):
            asked.append(name)
            file = read_prompts(prompts())
            return replace(file, trained_with=TrainedWith(trained_on=name))

        monkeypatch.setattr(lightning_model, "find_prompts", find)
        monkeypatch.setattr(lightning_model, "are_published_for", lambda *_: True)
        return asked

    def test_those_of_the_other_dataset(self, published, bottle, arguments, engine):
        model = AnomalyCLIP(**arguments)
        engine().test(model, datamodule=bottle)
        assert published == ["visa"]
        model._trainer = None
        model.setup("predict")
        assert model.model.trained_on == "visa"

    def test_chosen_anew_for_other_data(self, published, bottle, mvtec_root, arguments, engine):
        model = AnomalyCLIP(**arguments)
        engine().predict(model, data_path=mvtec_root / "bottle" / "test" / "bad")
        reported = engine().test(model, datamodule=bottle)[0]
        assert published == ["mvtec", "visa"]
        assert "prompts_trained_on_test_data" not in reported

    def test_a_checkpoint_saved_before_anything_was_judged_has_them(
        self, published, bottle, arguments, engine, tmp_path
    ):
        runner = engine(limit_val_batches=0)
        model = AnomalyCLIP(**arguments)
        runner.fit(model, datamodule=bottle)
        runner.trainer.save_checkpoint(tmp_path / "early.ckpt")
        assert published == ["visa"]
        restored = AnomalyCLIP.load_from_checkpoint(tmp_path / "early.ckpt")
        assert torch.equal(restored.model.prompts.context, model.model.prompts.context)
        assert restored.model.prompts.is_loaded

    def test_without_published_ones_they_are_random(self, arguments):
        with pytest.warns(UserWarning, match="No prompt_weights given"):
            assert AnomalyCLIP(**arguments).model.trained_on is None

    def test_prompts_that_saw_the_data_are_told_and_marked(self, prompts, bottle, arguments, engine, caplog):
        model = AnomalyCLIP(prompt_weights=prompts(trained_on="MVTecAD/bottle"), **arguments)
        reported = engine().test(model, datamodule=bottle)[0]
        assert "trained on data under test, MVTecAD/bottle" in caplog.text
        assert reported["prompts_trained_on_test_data"] == 1


class TestCheckpoints:
    """Small, plain and complete but for CLIP."""

    @pytest.fixture
    def tested(self, prompts, bottle, arguments, engine, tmp_path):
        model = AnomalyCLIP(prompt_weights=prompts(trained_on="Visa/candle"), **arguments)
        runner = engine()
        runner.train(model, datamodule=bottle)
        runner.trainer.save_checkpoint(tmp_path / "model.ckpt")
        return model, tmp_path / "model.ckpt"

    def test_restored_model_says_the_same(self, tested, prompts):
        model, path = tested
        Path(prompts()).unlink()
        restored = AnomalyCLIP.load_from_checkpoint(path)
        images = torch.rand(2, 3, 64, 64)
        ours, theirs = restored.eval()(images), model.eval()(images)
        assert torch.equal(ours.anomaly_map, theirs.anomaly_map)
        assert torch.equal(ours.pred_score, theirs.pred_score)
        assert restored.model.trained_on == "Visa/candle"

    def test_prompts_that_it_overrules_are_told(self, tested, prompts, caplog):
        own = str(shutil.copy(prompts(), tested[1].parent / "mine.safetensors"))
        restored = AnomalyCLIP.load_from_checkpoint(tested[1], prompt_weights=own)
        assert f"Not used, since the checkpoint brings others: prompt_weights={own!r}." in caplog.text
        assert restored.model.trained_on == "Visa/candle"
        caplog.clear()
        tested[0].model.prompts.save(own, TrainedWith())
        AnomalyCLIP.load_from_checkpoint(tested[1], prompt_weights=own)
        assert "Not used" not in caplog.text

    def test_checkpoint_is_plain_and_without_clip(self, tested):
        checkpoint = torch.load(tested[1], weights_only=True)
        assert not [name for name in checkpoint["state_dict"] if name.startswith("model.clip.")]
        assert tested[1].stat().st_size < 100_000

    def test_under_the_engine(self, tested, bottle, arguments, engine):
        other = AnomalyCLIP(**arguments)
        engine().test(other, datamodule=bottle, ckpt_path=tested[1])
        assert torch.equal(other.model.text_features, tested[0].model.text_features)

    @pytest.mark.parametrize("changes", [{"sigma": 1.0}, {"dpam_layers": 1}, {"layers": [4]}, {"prompt_length": 5}])
    def test_of_another_model_is_refused(self, tested, bottle, arguments, engine, changes):
        other = AnomalyCLIP(**{**arguments, **changes})
        named = {"prompt_length": "prompts"}.get(next(iter(changes)), next(iter(changes)))
        with pytest.raises(ValueError, match=f"The checkpoint was made with .*'{named}'"):
            engine().test(other, datamodule=bottle, ckpt_path=tested[1])

    def test_of_aprilgan_is_refused(self, bottle, arguments, tiny_arguments, engine, tmp_path):
        runner = engine()
        runner.test(AprilGAN(**tiny_arguments, visualizer=False), datamodule=bottle)
        runner.trainer.save_checkpoint(tmp_path / "april.ckpt")
        with pytest.raises(ValueError, match=r"The checkpoint is not one of AnomalyCLIP\."):
            engine().test(AnomalyCLIP(**arguments), datamodule=bottle, ckpt_path=tmp_path / "april.ckpt")
