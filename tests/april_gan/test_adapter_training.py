# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Training of adapters: the authors' numbers, anomalib's Engine, checkpoints, precision, several processes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from anomalib import LearningType
from anomalib.cli import AnomalibCLI
from anomalib.data import ImageBatch, MVTecAD
from anomalib.engine import Engine
from commands import train_in_two
from golden.weight_rule import golden_tensor
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.data import DataLoader

from anomalib_aprilgan import AprilGAN, AprilGANAdapters
from anomalib_aprilgan.april_gan.adapter_losses import stage_losses
from anomalib_aprilgan.april_gan.adapter_training import FILE_NAME
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.data import AuxiliaryData
from anomalib_aprilgan.data.auxiliary_batch import AuxiliaryBatch
from anomalib_aprilgan.detection.leak import leak_mark

SIDE = 64
CATEGORIES = ["bottle", "cable", "carpet"]
PACKAGE = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three categories as MVTec AD has them, each with two good images of noise and two with a white square."""
    root = tmp_path_factory.mktemp("mvtec")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    for number, category in enumerate(CATEGORIES):
        for seed, kind in enumerate(("train/good", "test/good", "test/good", "test/bad", "test/bad")):
            pixels = np.random.default_rng([number, seed]).integers(90, 160, (SIDE, SIDE, 3)).astype(np.uint8)
            if kind == "test/bad":
                pixels[mask > 0] = 255
            save(root / category / kind / f"{seed}.png", pixels)
            if kind == "test/bad":
                save(root / category / "ground_truth" / "bad" / f"{seed}_mask.png", mask)
    return root


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


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
def arguments(tiny_arguments: dict[str, Any]) -> dict[str, Any]:
    return {**tiny_arguments, "visualizer": False}


@pytest.fixture
def start(arguments: dict[str, Any], tmp_path: Path) -> Path:
    """A file of random adapters, to start several trainings alike."""
    torch.manual_seed(0)
    AprilGANAdapters(**arguments).save_adapters(tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def adapters_of(model: AprilGANAdapters) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.model.adapters.state_dict().items()}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


class LossRecorder(Callback):
    """Keeps the loss of every step, and whether the tower was in training mode."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.logged: set[str] = set()
        self.was_tower_training = False

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())
        self.logged |= set(trainer.progress_bar_metrics)
        self.was_tower_training |= any(module.training for module in pl_module.model.clip.visual.modules())


class TestParity:
    """Ten steps of Adam on the authors' two batches, one after the other in turn."""

    @pytest.fixture
    def golden(self, golden_arrays) -> dict[str, np.ndarray]:
        return golden_arrays("training")

    @pytest.fixture
    def model(self, golden_dir, golden_weights, tmp_path) -> AprilGANAdapters:
        shapes = {f"fc.{stage}.{leaf}": shape for stage in range(4) for leaf, shape in SHAPES.items()}
        weights = {name: torch.from_numpy(golden_tensor(name, shape)) for name, shape in shapes.items()}
        torch.save({"trainable_linearlayer": weights}, tmp_path / "start.pth")
        return AprilGANAdapters(
            str(golden_dir / "tiny_vit.json"),
            str(golden_weights("tiny_vit")),
            image_size=70,
            layers=[1, 2, 3, 4],
            adapters=tmp_path / "start.pth",
        )

    @staticmethod
    def batch(golden, index: int) -> SimpleNamespace:
        return SimpleNamespace(
            image=torch.from_numpy(golden["images"][index]),
            gt_mask=torch.from_numpy(golden["masks"][index])[:, 0],  # soft: the step itself cuts at one half
            class_name=[str(name) for name in golden["class_names"][index]],
        )

    def test_losses_and_adapters_are_the_authors(self, golden, model):
        optimizer = model.configure_optimizers()
        for step in range(10):
            loss = model.training_step(self.batch(golden, step % 2), 0)
            assert loss.item() == pytest.approx(golden["loss"][step], abs=1e-5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step == 0:
                self.assert_adapters(model, golden, "after_step1")
        self.assert_adapters(model, golden, "final")
        final = [model.training_step(self.batch(golden, index), 0).item() for index in (0, 1)]
        assert final == pytest.approx(golden["loss_final_per_batch"], abs=1e-5)

    @staticmethod
    def assert_adapters(model, golden, moment: str) -> None:
        expected = {name: torch.from_numpy(golden[f"{moment}.{name}"]) for name in adapters_of(model)}
        assert largest_difference(adapters_of(model), expected) < 1e-4

    def test_both_losses_are_the_authors(self, golden, model):
        batch = self.batch(golden, 0)
        _, tokens = model.model.encode(batch.image)
        differences = model.model.text_differences(tokens, model._text_of(batch))
        for layers, focal_sum, dice_sum in (
            (slice(None), golden["focal"][0], golden["dice"][0]),
            (slice(2, 3), golden["focal_per_layer"][0, 2], golden["dice_per_layer"][0, 2]),
        ):
            focal, dice = stage_losses(differences[:, layers], batch.gt_mask > 0.5)
            assert focal.item() == pytest.approx(focal_sum, abs=1e-5)
            assert dice.item() == pytest.approx(dice_sum, abs=1e-5)

    def test_optimizer_has_the_authors_settings(self, model):
        (group,) = model.configure_optimizers().param_groups
        assert {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")} == {
            "lr": 1e-3,
            "betas": (0.5, 0.999),
            "eps": 1e-8,
            "weight_decay": 0,
        }
        assert sum(parameter.numel() for parameter in group["params"]) == 4 * (64 * 32 + 32)


SHAPES = {"weight": (32, 64), "bias": (32,)}


def saturate(model: AprilGANAdapters, batch: AuxiliaryBatch) -> None:
    """Opposite words, and adapters that see nothing else: probabilities are exactly 0 and 1, right and wrong ones."""
    batch.image *= 100
    word = torch.eye(32)[0]
    model._texts["bottle"] = torch.stack([word, -word])  # (2, E)
    with torch.no_grad():
        for stage, linear in enumerate(model.model.adapters.fc):
            linear.bias.copy_(word * (100 if stage % 2 else -100))
    differences = model.model.text_differences(model.model.encode(batch.image)[1], model._text_of(batch))
    probabilities = torch.sigmoid(differences)
    assert set(probabilities.unique().tolist()) == {0, 1}


class TestStep:
    """One training step, without a trainer."""

    @pytest.fixture
    def model(self, arguments) -> AprilGANAdapters:
        return AprilGANAdapters(**arguments)

    @staticmethod
    def batch(count: int = 4, names: list[str] | None = None) -> AuxiliaryBatch:
        mask = torch.zeros(count, 56, 56, dtype=torch.bool)
        mask[::2, :28] = True
        names = names or ["bottle"] * count
        return AuxiliaryBatch(image=torch.rand(count, 3, 56, 56), gt_mask=mask, class_name=names)

    def test_only_adapters_get_gradients(self, model):
        model.train()
        model.training_step(self.batch(), 0).backward()
        with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert with_gradient == {f"model.adapters.fc.{stage}.{leaf}" for stage in range(4) for leaf in SHAPES}
        assert all(parameter.grad.abs().max() > 0 for parameter in model.model.adapters.parameters())
        assert not any(module.training for module in model.model.clip.modules())
        assert not any(parameter.requires_grad for parameter in model.model.clip.parameters())

    def test_each_image_is_compared_with_its_own_words(self, model):
        names = ["bottle", "cable", "cable", "bottle"]
        batch = self.batch(names=names)
        together = model.training_step(batch, 0)
        apart = []
        for rows, name in (([0, 3], "bottle"), ([1, 2], "cable")):
            part = AuxiliaryBatch(image=batch.image[rows], gt_mask=batch.gt_mask[rows], class_name=[name] * 2)
            apart.append(model.training_step(part, 0))
        assert together.item() == pytest.approx(torch.stack(apart).mean().item(), abs=1e-5)
        swapped = batch.update(in_place=False, class_name=["cable", "bottle", "bottle", "cable"])
        assert model.training_step(swapped, 0).item() != pytest.approx(together.item(), abs=1e-5)

    def test_a_batch_of_one_counts_as_an_image(self, model):
        batch = self.batch(2)
        single = [
            model.training_step(
                AuxiliaryBatch(image=batch.image[[i]], gt_mask=batch.gt_mask[[i]], class_name=["bottle"]), 0
            )
            for i in (0, 1)
        ]
        assert model.training_step(batch, 0).item() == pytest.approx(torch.stack(single).mean().item(), abs=1e-5)

    def test_each_class_is_encoded_once(self, model, monkeypatch):
        from anomalib_aprilgan.april_gan import adapter_training

        encoded = []
        encode = adapter_training.text_features
        monkeypatch.setattr(
            adapter_training, "text_features", lambda *given: encoded.append(given[-1]) or encode(*given)
        )
        for _ in range(2):
            model.training_step(self.batch(names=["bottle", "cable", "cable", "bottle"]), 0)
        assert encoded == ["bottle", "cable"]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_survives_saturation(self, model, dtype):
        batch = self.batch()
        saturate(model, batch)
        optimizer = torch.optim.Adam(model.model.adapters.parameters(), lr=0.1)
        for _ in range(50):
            with torch.autocast("cpu", dtype=dtype):
                loss = model.training_step(batch, 0)
            assert loss.dtype == torch.float32
            assert loss.isfinite()
            optimizer.zero_grad()
            loss.backward()
            assert all(parameter.grad.isfinite().all() for parameter in model.model.adapters.parameters())
            optimizer.step()
        assert all(parameter.isfinite().all() for parameter in model.model.adapters.parameters())

    def test_trainer_of_half_precision_skips_no_step_for_saturation(self, arguments, tmp_path):
        # Lightning's "16-mixed", which it offers for GPUs: autocast to float16, and a loss that is scaled up.
        off = dict.fromkeys(("pre_processor", "post_processor", "evaluator"), False)
        model, batch, recorder = AprilGANAdapters(learning_rate=0.1, **arguments, **off), self.batch(), LossRecorder()
        saturate(model, batch)
        mixed = MixedPrecision("16-mixed", "cpu")
        scale = mixed.scaler.get_scale()
        trainer = Trainer(
            accelerator="cpu",
            plugins=mixed,
            max_epochs=1,
            callbacks=[recorder],
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, DataLoader([batch] * 50, batch_size=None))
        assert len(recorder.losses) == 50
        assert np.isfinite(recorder.losses).all()
        assert mixed.scaler.get_scale() == scale  # it is halved whenever a gradient is not finite
        assert all(tensor.isfinite().all() for tensor in adapters_of(model).values())

    def test_autocast_does_not_round_the_loss(self, model):
        batch = self.batch()
        expected = model.training_step(batch, 0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert model.training_step(batch, 0).item() == pytest.approx(expected.item(), abs=1e-6)

    def test_images_of_another_size_are_refused(self, model):
        batch = self.batch().update(image=torch.rand(4, 3, 28, 28))
        with pytest.raises(ValueError, match=r"Expected images \(N, 3, 56, 56\), got \(4, 3, 28, 28\)"):
            model.training_step(batch, 0)

    def test_data_without_masks_are_refused_with_a_remedy(self, model):
        batch = AuxiliaryBatch(image=torch.rand(1, 3, 56, 56), class_name=["bottle"])
        with pytest.raises(ValueError, match=r"no masks to train on\. Take AuxiliaryData"):
            model.training_step(batch, 0)

    @pytest.mark.parametrize("step", ["training_step", "validation_step"])
    def test_data_without_class_names_are_refused_with_a_remedy(self, model, step):
        batch = ImageBatch(image=torch.rand(1, 3, 56, 56), gt_mask=torch.zeros(1, 56, 56, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"ImageBatch does not say what its images show\. Take AuxiliaryData"):
            getattr(model, step)(batch, 0)

    @pytest.mark.parametrize("betas", [[0.5], [0.5, 0.9, 0.999]])
    def test_betas_are_two(self, arguments, betas):
        with pytest.raises(ValueError, match=r"betas=\[0\.5.*\] must be two numbers"):
            AprilGANAdapters(betas=betas, **arguments)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_diverged_adapters_are_not_written(self, value, model, tmp_path):
        with torch.no_grad():
            model.model.adapters.fc[1].bias[0] = value
        with pytest.raises(
            ValueError, match=r"fc\.1\.bias holds NaN or infinity and is not written.*Lower learning_rate"
        ):
            model.save_adapters(tmp_path / "a.safetensors")
        assert not list(tmp_path.iterdir())


class TestEngine:
    """Training by anomalib's Engine on images in files."""

    @pytest.fixture(scope="class")
    @staticmethod
    def trained(root, tiny_backbone, tmp_path_factory) -> SimpleNamespace:
        """Four epochs; the tests look at what they left."""
        torch.manual_seed(0)
        model = AprilGANAdapters(tiny_backbone, None, 56, [1, 2, 3, 4], learning_rate=0.01, visualizer=False)
        tower = {name: tensor.clone() for name, tensor in model.model.clip.state_dict().items()}
        before, recorder = adapters_of(model), LossRecorder()
        engine = Engine(
            default_root_dir=tmp_path_factory.mktemp("results"),
            accelerator="cpu",
            devices=1,
            max_epochs=4,
            callbacks=[recorder],
            log_every_n_steps=1,
        )
        reported = engine.train(model, datamodule=auxiliary(root))[0]
        return SimpleNamespace(
            model=model, tower=tower, before=before, recorder=recorder, reported=reported, engine=engine
        )

    def test_loss_falls(self, trained):
        losses = trained.recorder.losses
        assert len(losses) == 4 * 2
        assert sum(losses[-2:]) < 0.8 * sum(losses[:2])

    def test_progress_bar_shows_both_losses(self, trained):
        assert {"focal", "dice"} <= trained.recorder.logged

    def test_held_out_category_is_tested(self, trained):
        assert {"image_AUROC", "pixel_AUROC", "pixel_AveragePrecision", "pixel_AUPRO"} <= set(trained.reported)
        assert trained.reported["pixel_AUROC"] > 0.9

    def test_only_adapters_change(self, trained):
        after = trained.model.model.clip.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in trained.tower.items())
        assert not trained.recorder.was_tower_training
        changed = adapters_of(trained.model)
        assert all(not torch.equal(changed[name], tensor) for name, tensor in trained.before.items())

    def test_file_says_what_it_belongs_to(self, trained, tiny_backbone):
        path = trained.model.adapters_path
        assert path.name == "adapters.safetensors"
        with safe_open(path, framework="pt") as file:
            metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        assert metadata == {
            "backbone": tiny_backbone,  # pretrained is None and thus left out
            "quick_gelu": False,
            "layers": [1, 2, 3, 4],
            "image_size": 56,
            "trained_on": "MVTecAD/bottle, MVTecAD/cable",
        }
        assert largest_difference(load_file(path), adapters_of(trained.model)) == 0

    def test_aprilgan_judges_with_the_file_as_the_training_did(self, trained, arguments, root):
        batch = next(iter(ready(auxiliary(root)).val_dataloader()))
        model = AprilGAN("carpet", adapters=trained.model.adapters_path, **arguments)
        model.setup("predict")
        verdict = model(batch.image)
        batch.image = model.pre_processor.transform(batch.image)
        expected = trained.model.eval().test_step(batch, 0)
        assert torch.allclose(verdict.anomaly_map, expected.anomaly_map, atol=1e-6)
        assert torch.allclose(verdict.pred_score, expected.pred_score, atol=1e-6)

    def test_checkpoint_is_small_and_plain(self, trained):
        path = Path(trained.engine.best_model_path)
        checkpoint = torch.load(path, weights_only=True)
        assert not [name for name in checkpoint["state_dict"] if name.startswith("model.clip.")]
        adapters = 4 * (64 * 32 + 32) * 4  # bytes; Adam keeps two more of that size
        assert path.stat().st_size < 3 * adapters + 60_000

    def test_checkpoint_loads_without_other_files(self, trained):
        restored = AprilGANAdapters.load_from_checkpoint(trained.engine.best_model_path)
        assert largest_difference(adapters_of(restored), adapters_of(trained.model)) == 0

    def test_without_validation_categories(self, root, arguments, engine):
        model = AprilGANAdapters(**arguments)
        engine().train(model, datamodule=auxiliary(root, validation=None))
        with safe_open(model.adapters_path, framework="pt") as file:
            assert json.loads(file.metadata()["trained_on"]) == "MVTecAD/bottle, MVTecAD/cable, MVTecAD/carpet"

    def test_starts_from_a_file(self, root, arguments, start, engine):
        model = AprilGANAdapters(adapters=start, learning_rate=0.0, **arguments)
        engine().train(model, datamodule=auxiliary(root))
        assert largest_difference(load_file(model.adapters_path), load_file(start)) == 0

    def test_data_of_earlier_runs_are_remembered(self, root, arguments, engine, tmp_path):
        first = AprilGANAdapters(**arguments)
        run = engine()
        run.fit(first, datamodule=auxiliary(root, categories=["cable"], validation=None))
        from_file = AprilGANAdapters(adapters=first.adapters_path, **arguments)
        from_checkpoint = AprilGANAdapters.load_from_checkpoint(run.best_model_path)
        for second in (from_file, from_checkpoint):
            engine().fit(second, datamodule=auxiliary(root, categories=["bottle", "cable"], validation=None))
            with safe_open(second.adapters_path, framework="pt") as file:
                assert json.loads(file.metadata()["trained_on"]) == "MVTecAD/cable, MVTecAD/bottle"

    def test_aprilgan_warns_if_tested_on_the_same_data(self, trained, root, arguments, engine, caplog):
        model = AprilGAN(adapters=trained.model.adapters_path, **arguments)
        reported = engine().test(model, datamodule=MVTecAD(root, category="bottle", num_workers=0))[0]
        assert "The adapters were trained on data under test, MVTecAD/bottle" in caplog.text
        assert reported[leak_mark("adapters")] == 1

    def test_held_out_category_of_the_same_dataset_is_no_leak(self, trained, root, arguments, engine, caplog):
        model = AprilGAN(adapters=trained.model.adapters_path, **arguments)
        reported = engine().test(model, datamodule=MVTecAD(root, category="carpet", num_workers=0))[0]
        assert leak_mark("adapters") not in reported
        assert leak_mark("adapters") not in trained.reported
        assert "trained on data under test" not in caplog.text

    def test_held_out_category_that_an_earlier_run_saw_is_marked(self, trained, root, arguments, engine, caplog):
        data = auxiliary(root, categories=["bottle", "carpet"], validation=["bottle"])
        second = AprilGANAdapters(adapters=trained.model.adapters_path, **arguments)
        assert engine().train(second, datamodule=data)[0][leak_mark("adapters")] == 1
        assert "trained on data under test, MVTecAD/bottle" in caplog.text

    def test_mosaics_and_bf16(self, root, arguments, engine):
        recorder = LossRecorder()
        model = AprilGANAdapters(**arguments)
        engine(2, precision="bf16-mixed", callbacks=[recorder]).train(model, datamodule=auxiliary(root, mosaic=1.0))
        assert np.isfinite(recorder.losses).all()
        assert all(tensor.dtype == torch.float32 for tensor in load_file(model.adapters_path).values())

    def test_learns_from_normal_images_alone(self, root, arguments, engine):
        recorder = LossRecorder()
        data = auxiliary(root, validation=None, synthetic=True)
        engine(callbacks=[recorder]).train(AprilGANAdapters(**arguments), datamodule=data)
        assert len(recorder.losses) == 1  # three images, one a category
        assert np.isfinite(recorder.losses).all()

    def test_data_of_another_size_are_refused(self, root, arguments, engine):
        with pytest.raises(ValueError, match=r"image_size=70, but the model's pre-processor resizes to \(56, 56\)"):
            engine().train(AprilGANAdapters(**arguments), datamodule=auxiliary(root, image_size=70))

    def test_learning_type_lets_the_engine_train(self, arguments):
        assert AprilGANAdapters(**arguments).learning_type == LearningType.ONE_CLASS


def ready(data: AuxiliaryData) -> AuxiliaryData:
    data.setup()
    return data


class TestResume:
    """A training that stopped goes on as if it had not."""

    @staticmethod
    def fit(engine: Engine, model: AprilGANAdapters, root: Path, ckpt_path: str | None = None) -> AprilGANAdapters:
        engine.fit(model, datamodule=auxiliary(root, mosaic=0.5), ckpt_path=ckpt_path)
        return model

    def test_to_the_same_losses_and_adapters(self, root, arguments, start, engine):
        whole, first, second = LossRecorder(), LossRecorder(), LossRecorder()
        uninterrupted = self.fit(engine(3, callbacks=[whole]), AprilGANAdapters(adapters=start, **arguments), root)
        run = engine(1, callbacks=[first])
        self.fit(run, AprilGANAdapters(adapters=start, **arguments), root)
        resumed = AprilGANAdapters(**arguments)  # random adapters, which the checkpoint replaces
        self.fit(engine(3, callbacks=[second]), resumed, root, run.best_model_path)
        assert first.losses + second.losses == whole.losses
        assert len(whole.losses) == 3 * 2
        assert largest_difference(adapters_of(resumed), adapters_of(uninterrupted)) == 0
        assert largest_difference(load_file(resumed.adapters_path), adapters_of(uninterrupted)) == 0

    def test_tests_what_was_trained_after_it(self, root, arguments, engine):
        # Anomalib's Engine.train loads the checkpoint that it resumed from once more, for the test.
        run = engine()
        self.fit(run, AprilGANAdapters(**arguments), root)
        resumed = AprilGANAdapters(learning_rate=0.01, **arguments)
        last = engine(4)
        reported = last.train(resumed, datamodule=auxiliary(root), ckpt_path=run.best_model_path)[0]
        assert largest_difference(load_file(resumed.adapters_path), adapters_of(resumed)) == 0
        written = AprilGANAdapters(adapters=resumed.adapters_path, **arguments)
        assert engine().test(written, datamodule=auxiliary(root))[0] == pytest.approx(reported)
        # Asked for by name, the old one is tested.
        old = AprilGANAdapters.load_from_checkpoint(run.best_model_path)
        last.test(resumed, datamodule=auxiliary(root), ckpt_path=run.best_model_path)
        assert largest_difference(adapters_of(old), adapters_of(resumed)) == 0

    def test_checkpoint_of_another_model_is_refused(self, root, arguments, engine):
        run = engine()
        run.train(AprilGAN(**arguments), datamodule=auxiliary(root))
        with pytest.raises(ValueError, match="The checkpoint is not one of AprilGANAdapters"):
            engine(2).fit(AprilGANAdapters(**arguments), datamodule=auxiliary(root), ckpt_path=run.best_model_path)

    def test_checkpoint_of_adapters_is_refused_by_aprilgan(self, root, arguments, engine):
        run = engine()
        self.fit(run, AprilGANAdapters(**arguments), root)
        with pytest.raises(ValueError, match=r"The checkpoint is not one of AprilGAN\."):
            engine().test(AprilGAN(**arguments), datamodule=auxiliary(root), ckpt_path=run.best_model_path)

    def test_adapters_that_should_come_from_a_checkpoint_must_come(self, root, arguments, engine):
        model = AprilGANAdapters(**{**arguments, "adapters": "checkpoint"})
        with pytest.raises(RuntimeError, match="adapters='checkpoint' needs ckpt_path"):
            engine().fit(model, datamodule=auxiliary(root))

    def test_checkpoint_settles_prompts_that_are_left_open(self, root, arguments, engine):
        prompts = PromptEnsemble(["good {}"], ["bad {}"], ["a photo of a {}."])
        run = engine()
        self.fit(run, AprilGANAdapters(prompts=prompts, **arguments), root)
        resumed = AprilGANAdapters(**arguments)
        self.fit(engine(2), resumed, root, run.best_model_path)
        assert resumed.model.prompts == prompts
        other = AprilGANAdapters(prompts=PromptEnsemble(), **arguments)
        with pytest.raises(ValueError, match=r"prompts=.*but the checkpoint was made with .*good"):
            self.fit(engine(2), other, root, run.best_model_path)

    def test_checkpoint_settles_an_activation_that_is_left_open(self, root, arguments, engine):
        whole, rest = LossRecorder(), LossRecorder()
        quick = {**arguments, "quick_gelu": True}
        run = engine(2, callbacks=[whole])
        torch.manual_seed(0)
        self.fit(run, AprilGANAdapters(**quick), root)
        first = engine(1)
        torch.manual_seed(0)
        self.fit(first, AprilGANAdapters(**quick), root)
        resumed = AprilGANAdapters(**{**arguments, "adapters": "checkpoint"})
        assert not resumed.model.source.quick_gelu
        resumed._texts["bottle"] = torch.zeros(2, 32)  # of the exact GELU
        self.fit(engine(2, callbacks=[rest]), resumed, root, first.best_model_path)
        assert resumed.model.source.quick_gelu
        assert rest.losses == whole.losses[2:]
        with safe_open(resumed.adapters_path, framework="pt") as file:
            assert file.metadata()["quick_gelu"] == "true"

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"layers": [2, 4]}, "The checkpoint was made with .*'layers': .1, 2, 3, 4.*, the model has .*2, 4"),
            ({"quick_gelu": True}, "quick_gelu=True, but the checkpoint was made with False"),
        ],
    )
    def test_checkpoint_of_another_clip_is_refused(self, changes, message, root, arguments, engine):
        run = engine()
        self.fit(run, AprilGANAdapters(**arguments), root)
        other = AprilGANAdapters(**{**arguments, **changes})
        with pytest.raises(ValueError, match=message):
            self.fit(engine(2), other, root, run.best_model_path)


@pytest.mark.slow
def test_two_processes_train_the_adapters_of_one(root, arguments, start, engine, tmp_path):
    """At the same global batch; the order of sums differs, which came to 3e-8 and is allowed to come to 1e-5."""
    alone = AprilGANAdapters(adapters=start, **arguments)
    engine(3).fit(alone, datamodule=auxiliary(root, mosaic=0.5))
    init_args = {"dataset": "mvtec", "root": str(root), "categories": CATEGORIES, "validation": ["carpet"]}
    init_args |= {"image_size": 56, "num_workers": 0, "mosaic": 0.5, "train_batch_size": 2}
    config = {
        "model": {"class_path": "AprilGANAdapters", "init_args": {**arguments, "adapters": str(start)}},
        "data": {"class_path": "AuxiliaryData", "init_args": init_args},
        "trainer": {"accelerator": "cpu", "max_epochs": 3, "enable_progress_bar": False},
        "default_root_dir": str(tmp_path / "two_processes"),
    }
    told = train_in_two(config, tmp_path)
    # The second process moves anomalib's link ``latest`` to an empty folder of its own.
    together = load_file(tmp_path / "two_processes" / "AprilGANAdapters" / "AuxiliaryData" / "v0" / FILE_NAME)
    assert largest_difference(together, load_file(start)) > 1e-3
    assert largest_difference(together, adapters_of(alone)) < 1e-5
    assert "pixel_AUROC" in told


class TestConfigs:
    """The YAML files fit the signatures; the paper's CLIP is not here, so a small one takes its place."""

    @pytest.mark.parametrize(
        ("name", "categories", "mosaic", "epochs"), [("adapters_mvtec", 15, 0.2, 3), ("adapters_visa", 12, 0.0, 15)]
    )
    def test_are_the_papers_settings(self, name, categories, mosaic, epochs, arguments, tmp_path):
        backbone, pretrained = arguments["backbone"], None
        small = {"backbone": backbone, "pretrained": pretrained, "image_size": 56, "layers": [1, 2, 3, 4]}
        (tmp_path / "small.yaml").write_text(json.dumps({"model": {"init_args": small}}), encoding="utf-8")
        config = PACKAGE / "configs" / f"{name}.yaml"
        cli = AnomalibCLI(["train", "--config", str(config), "--config", str(tmp_path / "small.yaml")], run=False)
        model, data = cli.model, cli.datamodule
        assert (type(model), type(data)) == (AprilGANAdapters, AuxiliaryData)
        assert (model.learning_rate, model.betas) == (1e-3, (0.5, 0.999))
        assert not model.model.source.quick_gelu
        assert (len(data.training_categories), data.held_out_categories) == (categories, [])
        assert (data.mosaic, data.train_batch_size, data.image_size) == (mosaic, 8, 518)
        assert cli.config["train"]["trainer"]["max_epochs"] == epochs
        paper = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]["init_args"]
        assert (paper["backbone"], paper["pretrained"]) == ("ViT-L-14-336", "openai")
        assert (paper["image_size"], paper["layers"]) == (518, [6, 12, 18, 24])
