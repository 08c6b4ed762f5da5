# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Training of prompts under anomalib's Engine: files, checkpoints, resume, precision, labels alone, two processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib import LearningType
from anomalib.data import MVTecAD
from anomalib.engine import Engine
from commands import train_in_two
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from safetensors.torch import load_file

from anomalib_aprilgan import AnomalyCLIP, AnomalyCLIPPrompts
from anomalib_aprilgan.anomaly_clip.learned_prompts import LearnedPrompts, read_prompts
from anomalib_aprilgan.anomaly_clip.prompt_training import FILE_NAME
from anomalib_aprilgan.components.trained_file import TrainedWith
from anomalib_aprilgan.data import AuxiliaryData
from anomalib_aprilgan.data.auxiliary_batch import AuxiliaryBatch

CATEGORIES = ["bottle", "cable", "carpet"]
PACKAGE = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")


def auxiliary(root: Path, **changes: Any) -> AuxiliaryData:
    """Two categories to train on, eight images in two batches, and one held out."""
    arguments: dict[str, Any] = {
        "categories": CATEGORIES,
        "validation": ["carpet"],
        "image_size": 56,
        "train_batch_size": 4,
        "num_workers": 0,
    }
    return AuxiliaryData(dataset="mvtec", root=root, **{**arguments, **changes})


@pytest.fixture
def arguments(small_arguments: dict[str, Any]) -> dict[str, Any]:
    return {**small_arguments, "visualizer": False}


@pytest.fixture
def start(tmp_path: Path) -> str:
    """A file of random prompts, to start several trainings alike."""
    LearnedPrompts(32, 4, 2, 3).save(tmp_path / "start.safetensors", TrainedWith())
    return str(tmp_path / "start.safetensors")


def prompts_of(model: AnomalyCLIPPrompts) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.model.prompts.state_dict().items()}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


class LossRecorder(Callback):
    """Keeps the loss of every step and the names of what was logged."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.logged: set[str] = set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())
        self.logged |= set(trainer.progress_bar_metrics)


class TestStep:
    """One training step, without a trainer."""

    @staticmethod
    def batch(count: int = 4) -> AuxiliaryBatch:
        mask = torch.zeros(count, 56, 56, dtype=torch.bool)
        mask[::2, :28] = True
        label = mask.flatten(1).any(dim=1)
        image = torch.rand(count, 3, 56, 56)
        return AuxiliaryBatch(image=image, gt_mask=mask, gt_label=label, class_name=["bottle"] * count)

    def test_only_prompts_get_gradients(self, arguments):
        model = AnomalyCLIPPrompts(**arguments).train()
        model.training_step(self.batch(), 0).backward()
        with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert with_gradient == {"model.prompts.context", "model.prompts.deep"}
        assert not any(module.training for module in model.model.clip.modules())
        assert all(parameter.grad is None for parameter in model.encoder.parameters())

    def test_class_names_do_not_matter(self, arguments, start):
        model, batch = AnomalyCLIPPrompts(start_from=start, **arguments), self.batch()
        renamed = batch.update(in_place=False, class_name=["cable"] * 4)
        assert model.training_step(batch, 0).item() == model.training_step(renamed, 0).item()

    def test_labels_alone(self, arguments, start):
        model, batch = AnomalyCLIPPrompts(start_from=start, image_loss_only=True, **arguments), self.batch()
        loss = model.training_step(batch, 0)
        without_masks = batch.update(in_place=False, gt_mask=None)
        assert model.training_step(without_masks, 0).item() == loss.item()
        logits = model.model.logits(*model.model.encode(batch.image), model.model.text_features)
        probability = torch.sigmoid(logits.image)
        expected = torch.where(batch.gt_label, probability, 1 - probability).log().neg().mean()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)

    def test_weight_of_the_maps(self, arguments, start):
        batch = self.batch()
        weights = ({"image_loss_only": True}, {"pixel_weight": 4.0}, {"pixel_weight": 16.0})
        models = [AnomalyCLIPPrompts(start_from=start, **weight, **arguments) for weight in weights]
        losses = [model.training_step(batch, 0).item() for model in models]
        assert losses[2] - losses[0] == pytest.approx(4 * (losses[1] - losses[0]), rel=1e-5)

    @pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "heavy", None])
    def test_weight_that_cannot_be(self, arguments, value):
        with pytest.raises(ValueError, match=rf"pixel_weight={value!r} must be a finite number, 0 or positive"):
            AnomalyCLIPPrompts(pixel_weight=value, **arguments)

    def test_untrained_prompts_judge_nothing(self, arguments, mvtec_root, engine):
        expected = "The prompts are random and not trained yet. Train first, .* or set start_from"
        model = AnomalyCLIPPrompts(**arguments)
        with pytest.raises(RuntimeError, match=expected):
            model(torch.rand(1, 3, 56, 56))
        with pytest.raises(RuntimeError, match=expected):
            engine().test(model, datamodule=auxiliary(mvtec_root))
        with pytest.raises(RuntimeError, match=expected):
            engine().predict(model, data_path=mvtec_root / "carpet" / "test" / "bad")

    def test_autocast_does_not_matter(self, arguments, start):
        model, batch = AnomalyCLIPPrompts(start_from=start, **arguments), self.batch()
        with torch.autocast("cpu", torch.bfloat16):
            cast = model.training_step(batch, 0)
        assert cast.item() == pytest.approx(model.training_step(batch, 0).item(), abs=1e-6)
        assert cast.dtype == torch.float32

    def test_saturated_logits_keep_loss_and_gradients_finite(self, arguments, start):
        model, batch = AnomalyCLIPPrompts(start_from=start, **arguments), self.batch()
        model.model.clip.visual.proj.data *= 1e4
        batch.image *= 100
        loss = model.training_step(batch, 0)
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in model.model.prompts.parameters())


class TestEngine:
    """``anomalib train`` on annotated images, and what comes of it."""

    @pytest.fixture
    def trained(self, mvtec_root, arguments, engine):
        model, recorder = AnomalyCLIPPrompts(**arguments), LossRecorder()
        before = prompts_of(model)
        runner = engine(callbacks=[recorder])
        reported = runner.train(model, datamodule=auxiliary(mvtec_root))[0]
        return model, runner, recorder, before, reported

    def test_learns_reports_and_writes_a_small_file(self, trained, tiny_backbone):
        model, _, recorder, before, reported = trained
        assert len(recorder.losses) == 2
        assert recorder.logged >= {"image_loss", "pixel_loss"}
        assert largest_difference(before, prompts_of(model)) > 1e-4
        assert {"image_AUROC", "pixel_AUROC", "pixel_AUPRO"} <= set(reported)
        file = read_prompts(model.prompts_path)
        assert model.prompts_path.name == FILE_NAME
        assert largest_difference(file.weights, prompts_of(model)) == 0
        assert file.trained_with == TrainedWith(
            tiny_backbone,
            None,
            quick_gelu=False,
            layers=(2, 4),
            image_size=56,
            trained_on="MVTecAD/bottle, MVTecAD/cable",
            dpam_layers=3,
        )

    def test_anomalyclip_judges_with_the_file_as_the_training_did(self, trained, arguments, mvtec_root, engine):
        model, *_, reported = trained
        other = AnomalyCLIP(prompt_weights=model.prompts_path, **arguments)
        images = torch.randn(2, 3, 56, 56)
        torch.testing.assert_close(other.model(images).anomaly_map, model.model(images).anomaly_map)
        assert engine().test(other, datamodule=auxiliary(mvtec_root))[0] == pytest.approx(reported, abs=1e-6)

    def test_data_under_test_is_marked(self, trained, arguments, mvtec_root, engine):
        model = AnomalyCLIP(prompt_weights=trained[0].prompts_path, **arguments)
        data = MVTecAD(mvtec_root, category="bottle", num_workers=0)
        assert engine().test(model, datamodule=data)[0]["prompts_trained_on_test_data"] == 1

    def test_checkpoint_is_small_plain_and_complete(self, trained):
        model, runner, *_ = trained
        checkpoint = torch.load(runner.best_model_path, weights_only=True)
        prompts = 4 * (2 * 4 + 2 * 2) * 32  # bytes; Adam keeps two more of that size
        assert Path(runner.best_model_path).stat().st_size < 3 * prompts + 60_000
        names = {name for name in checkpoint["state_dict"] if name.startswith("model.")}
        assert names == {"model.prompts.context", "model.prompts.deep", "model.text_features"}
        restored = AnomalyCLIPPrompts.load_from_checkpoint(runner.best_model_path)
        images = torch.randn(1, 3, 56, 56)
        torch.testing.assert_close(restored.model(images).anomaly_map, model.model(images).anomaly_map)

    def test_bf16_and_no_validation(self, mvtec_root, arguments, engine):
        recorder, model = LossRecorder(), AnomalyCLIPPrompts(**arguments)
        engine(2, precision="bf16-mixed", callbacks=[recorder]).train(
            model, datamodule=auxiliary(mvtec_root, validation=None)
        )
        assert np.isfinite(recorder.losses).all()
        assert all(tensor.dtype == torch.float32 for tensor in load_file(model.prompts_path).values())

    def test_fp16_with_a_scaled_loss(self, mvtec_root, arguments, start, engine):
        # Lightning's "16-mixed", which it offers for GPUs: autocast to float16, and a loss that is scaled up.
        found = []
        for plugins in ([], [MixedPrecision("16-mixed", "cpu")]):
            model = AnomalyCLIPPrompts(start_from=start, half_gradients=False, **arguments)
            engine(2, plugins=plugins).fit(model, datamodule=auxiliary(mvtec_root))
            found.append(prompts_of(model))
        assert largest_difference(found[0], load_file(start)) > 1e-4
        assert largest_difference(*found) < 1e-6

    def test_fp16_with_a_loss_that_is_scaled_beyond_half_precision(self, mvtec_root, arguments, start, engine):
        # Gradients that are rounded to half precision overflow at first; such steps are left out.
        mixed, recorder = MixedPrecision("16-mixed", "cpu"), LossRecorder()
        scale = mixed.scaler.get_scale()
        model = AnomalyCLIPPrompts(start_from=start, **arguments)
        engine(8, plugins=[mixed], callbacks=[recorder]).fit(model, datamodule=auxiliary(mvtec_root))
        assert mixed.scaler.get_scale() < scale
        assert np.isfinite(recorder.losses).all()
        assert largest_difference(prompts_of(model), load_file(start)) > 1e-4
        assert model.model.prompts.is_loaded

    def test_labels_alone(self, mvtec_root, arguments, engine):
        recorder, model = LossRecorder(), AnomalyCLIPPrompts(image_loss_only=True, **arguments)
        data = auxiliary(mvtec_root, labels_only=True)
        reported = engine(callbacks=[recorder]).train(model, datamodule=data)[0]
        assert "pixel_loss" not in recorder.logged
        assert 0 <= reported["image_AUROC"] <= 1
        with pytest.raises(ValueError, match="The data have no masks: set image_loss_only=True"):
            engine().fit(AnomalyCLIPPrompts(**arguments), datamodule=auxiliary(mvtec_root, labels_only=True))

    def test_data_of_earlier_runs_are_remembered(self, trained, arguments, mvtec_root, engine):
        model = AnomalyCLIPPrompts(start_from=trained[0].prompts_path, **arguments)
        engine().fit(model, datamodule=auxiliary(mvtec_root, categories=["carpet"], validation=None))
        said = read_prompts(model.prompts_path).trained_with
        assert said.trained_on == "MVTecAD/bottle, MVTecAD/cable, MVTecAD/carpet"

    def test_held_out_data_that_earlier_prompts_saw_are_marked(self, trained, arguments, mvtec_root, engine):
        assert "prompts_trained_on_test_data" not in trained[-1]
        model = AnomalyCLIPPrompts(start_from=trained[0].prompts_path, **arguments)
        data = auxiliary(mvtec_root, validation=["bottle"])
        assert engine().train(model, datamodule=data)[0]["prompts_trained_on_test_data"] == 1

    def test_learning_rate_zero_keeps_the_start(self, mvtec_root, arguments, start, engine):
        model = AnomalyCLIPPrompts(start_from=start, learning_rate=0.0, **arguments)
        engine().fit(model, datamodule=auxiliary(mvtec_root))
        assert largest_difference(load_file(model.prompts_path), load_file(start)) == 0

    def test_without_deep_prompts(self, mvtec_root, arguments, engine):
        model = AnomalyCLIPPrompts(**{**arguments, "deep_prompt_depth": 1})
        engine().fit(model, datamodule=auxiliary(mvtec_root, validation=None))
        assert load_file(model.prompts_path)["deep"].shape == (0, 1, 32)

    def test_data_of_another_size_are_refused(self, mvtec_root, arguments, engine):
        with pytest.raises(ValueError, match=r"image_size=70, but the model's pre-processor resizes to \(56, 56\)"):
            engine().train(AnomalyCLIPPrompts(**arguments), datamodule=auxiliary(mvtec_root, image_size=70))

    def test_learning_type_lets_the_engine_train(self, arguments):
        assert AnomalyCLIPPrompts(**arguments).learning_type == LearningType.ONE_CLASS


class TestResume:
    """A training that stopped goes on as if it had not."""

    @staticmethod
    def fit(engine: Engine, model: AnomalyCLIPPrompts, root: Path, ckpt_path: str | None = None) -> AnomalyCLIPPrompts:
        engine.fit(model, datamodule=auxiliary(root), ckpt_path=ckpt_path)
        return model

    def test_to_the_same_losses_and_prompts(self, mvtec_root, arguments, start, engine):
        whole, first, second = LossRecorder(), LossRecorder(), LossRecorder()
        model = AnomalyCLIPPrompts(start_from=start, **arguments)
        uninterrupted = self.fit(engine(3, callbacks=[whole]), model, mvtec_root)
        run = engine(1, callbacks=[first])
        self.fit(run, AnomalyCLIPPrompts(start_from=start, **arguments), mvtec_root)
        resumed = AnomalyCLIPPrompts(**arguments)  # random prompts, which the checkpoint replaces
        self.fit(engine(3, callbacks=[second]), resumed, mvtec_root, run.best_model_path)
        assert first.losses + second.losses == whole.losses
        assert len(whole.losses) == 3 * 2
        assert largest_difference(prompts_of(resumed), prompts_of(uninterrupted)) == 0

    def test_tests_what_was_trained_after_it(self, mvtec_root, arguments, engine):
        # Anomalib's Engine.train loads the checkpoint that it resumed from once more, for the test.
        run = engine()
        self.fit(run, AnomalyCLIPPrompts(**arguments), mvtec_root)
        resumed = AnomalyCLIPPrompts(learning_rate=0.01, **arguments)
        last = engine(4)
        reported = last.train(resumed, datamodule=auxiliary(mvtec_root), ckpt_path=run.best_model_path)[0]
        assert largest_difference(load_file(resumed.prompts_path), prompts_of(resumed)) == 0
        written = AnomalyCLIP(prompt_weights=resumed.prompts_path, **arguments)
        assert engine().test(written, datamodule=auxiliary(mvtec_root))[0] == pytest.approx(reported, abs=1e-6)

    def test_prompts_that_should_come_from_a_checkpoint_must_come(self, mvtec_root, arguments, engine):
        model = AnomalyCLIPPrompts(start_from="checkpoint", **arguments)
        with pytest.raises(RuntimeError, match="start_from='checkpoint' needs ckpt_path"):
            engine().fit(model, datamodule=auxiliary(mvtec_root))

    def test_checkpoint_of_other_lengths_is_refused(self, mvtec_root, arguments, engine):
        run = engine()
        self.fit(run, AnomalyCLIPPrompts(**arguments), mvtec_root)
        other = AnomalyCLIPPrompts(**{**arguments, "prompt_length": 5})
        with pytest.raises(ValueError, match=r"The checkpoint was made with .*prompts"):
            self.fit(engine(2), other, mvtec_root, run.best_model_path)


@pytest.mark.slow
def test_two_processes_train_the_prompts_of_one(mvtec_root, arguments, start, engine, tmp_path):
    """At the same global batch; the order of sums differs."""
    alone = AnomalyCLIPPrompts(start_from=start, **arguments)
    engine(3).fit(alone, datamodule=auxiliary(mvtec_root))
    init_args = {"dataset": "mvtec", "root": str(mvtec_root), "categories": CATEGORIES, "validation": ["carpet"]}
    init_args |= {"image_size": 56, "num_workers": 0, "train_batch_size": 2}
    config = {
        "model": {"class_path": "AnomalyCLIPPrompts", "init_args": {**arguments, "start_from": start}},
        "data": {"class_path": "AuxiliaryData", "init_args": init_args},
        "trainer": {"accelerator": "cpu", "max_epochs": 3, "enable_progress_bar": False},
        "default_root_dir": str(tmp_path / "two_processes"),
    }
    train_in_two(config, tmp_path)
    # The second process moves anomalib's link ``latest`` to an empty folder of its own.
    together = load_file(tmp_path / "two_processes" / "AnomalyCLIPPrompts" / "AuxiliaryData" / "v0" / FILE_NAME)
    assert largest_difference(together, load_file(start)) > 1e-3
    assert largest_difference(together, prompts_of(alone)) < 1e-5
