# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AprilGAN under anomalib's Engine: class names, references, verdicts, checkpoints, image files, layouts."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib import LearningType
from anomalib.data import Folder, MVTecAD, PredictDataset, Visa
from lightning.pytorch import Trainer
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.data import DataLoader, IterableDataset

from anomalib_aprilgan import AprilGAN, PromptEnsemble
from anomalib_aprilgan.april_gan import lightning_model, published_adapters
from anomalib_aprilgan.april_gan.adapters import AdapterMetadata, read_adapters
from anomalib_aprilgan.components import text_encoder
from anomalib_aprilgan.data.image_files import UnreadableImageError
from anomalib_aprilgan.detection.leak import REFERENCES_MARK, leak_mark

NORMAL_IMAGES = 6

pytestmark = pytest.mark.filterwarnings("ignore")


def write_image(path: Path, seed: int, *, defect: bool = False, size: tuple[int, int] = (64, 64)) -> Path:
    """A grey noise image, with a white square if defective."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(90, 160, (*size, 3)).astype(np.uint8)
    if defect:
        pixels[16:40, 16:40] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with 6 normal training images, 4 normal and 4 defective test images, and masks."""
    root = tmp_path_factory.mktemp("folder")
    for index in range(NORMAL_IMAGES):
        write_image(root / "good" / f"{index}.png", index)
    for index in range(4):
        write_image(root / "test_good" / f"{index}.png", 100 + index)
        write_image(root / "bad" / f"{index}.png", 200 + index, defect=True)
        mask = np.zeros((64, 64), np.uint8)
        mask[16:40, 16:40] = 255
        (root / "mask").mkdir(exist_ok=True)
        Image.fromarray(mask).save(root / "mask" / f"{index}.png")
    return root


def folder(root: Path, **changes: Any) -> Folder:
    arguments: dict[str, Any] = {
        "name": "fabric",
        "root": root,
        "normal_dir": "good",
        "normal_test_dir": "test_good",
        "abnormal_dir": "bad",
        "mask_dir": "mask",
        "num_workers": 0,
        "eval_batch_size": 3,
        "val_split_mode": "same_as_test",
    }
    return Folder(**{**arguments, **changes})


@pytest.fixture
def arguments(tiny_arguments: dict[str, Any]) -> dict[str, Any]:
    return {**tiny_arguments, "visualizer": False}


class TestClassName:
    """The argument counts, else the datamodule's category, else its name, else "object"."""

    def test_argument_wins(self, root, arguments, engine):
        model = AprilGAN("woven cloth", **arguments)
        engine().test(model, datamodule=folder(root))
        assert model.model.class_name == "woven cloth"

    def test_name_of_a_folder_whose_category_is_empty(self, root, arguments, engine):
        model = AprilGAN(**arguments)
        engine().test(model, datamodule=folder(root))
        assert model.model.class_name == "fabric"

    def test_object_without_a_datamodule_is_not_settled_on(self, root, arguments, engine):
        model = AprilGAN(**arguments)
        engine().predict(model, data_path=root / "bad")
        assert model.model.class_name == "object"
        engine().test(model, datamodule=folder(root))
        assert model.model.class_name == "fabric"
        engine().predict(model, data_path=root / "bad")
        assert model.model.class_name == "fabric"

    def test_empty_name_in_the_prompts_is_refused(self, arguments):
        with pytest.raises(ValueError, match="class_name must be a non-empty string"):
            AprilGAN(**arguments).model.setup("")


class TestReferences:
    """Drawn from the normal training images as listed, or from ``few_shot_source``."""

    def test_drawn_without_replacement_seeded_and_from_the_training_images(self, root, arguments, engine, caplog):
        drawn = []
        for seed in (0, 0, 1):
            model = AprilGAN(k_shot=4, reference_seed=seed, **arguments)
            with caplog.at_level(logging.INFO):
                engine().validate(model, datamodule=folder(root))
            drawn.append(model.reference_paths)
        assert drawn[0] == drawn[1] != drawn[2]
        assert len(set(drawn[0])) == 4
        assert {Path(path).parent for path in drawn[0]} == {root / "good"}
        assert all(path in caplog.text for path in drawn[0])

    def test_the_bank_holds_their_patches(self, root, arguments, engine):
        model = AprilGAN(k_shot=2, **arguments)
        engine().validate(model, datamodule=folder(root))
        assert [bank.tokens.shape for bank in model.model.memory_banks] == [(2 * 16, 64)] * 4

    def test_a_reference_is_at_distance_zero(self, root, arguments, engine):
        reference = root / "good" / "0.png"
        model = AprilGAN(k_shot=1, few_shot_source=[reference], **arguments)
        engine().predict(model, data_path=reference)
        images = model.pre_processor.transform(PredictDataset(reference)[0].image)[None]
        assert model.model.evidence(images).few_shot_maps.abs().max() < 1e-5

    def test_more_shots_than_images(self, root, arguments, engine):
        with pytest.raises(ValueError, match=f"k_shot=7, but there are only {NORMAL_IMAGES} normal images"):
            engine().validate(AprilGAN(k_shot=7, **arguments), datamodule=folder(root))

    def test_another_product_that_has_too_few_leaves_words_and_references_as_they_are(
        self, root, arguments, engine, tmp_path
    ):
        model = AprilGAN(**arguments, k_shot=2)
        engine().test(model, folder(root))
        references, text = model.reference_paths, model.model.text_features
        one_image = write_image(tmp_path / "0.png", 0).parent
        with pytest.raises(ValueError, match="only 1 normal images"):
            engine().test(model, folder(root, name="bolt", normal_dir=one_image))
        engine().predict(model, data_path=root / "bad")
        assert (model.model.class_name, model.reference_paths) == ("fabric", references)
        assert torch.equal(model.model.text_features, text)

    def test_no_source_and_no_datamodule(self, root, arguments, engine):
        with pytest.raises(ValueError, match="k_shot=2 needs normal images: set few_shot_source"):
            engine().predict(AprilGAN(k_shot=2, **arguments), data_path=root / "bad")

    @pytest.mark.parametrize("k_shot", [0, 1])
    def test_missing_folder(self, k_shot, root, arguments, engine):
        model = AprilGAN(k_shot=k_shot, few_shot_source=root / "nowhere", **arguments)
        with pytest.raises(FileNotFoundError, match=r"few_shot_source='.*nowhere' does not exist"):
            engine().predict(model, data_path=root / "bad")

    @pytest.mark.parametrize("k_shot", [-1, 1.5, "2", True])
    def test_impossible_shots(self, k_shot, arguments):
        with pytest.raises(ValueError, match=f"k_shot={k_shot!r} must be 0"):
            AprilGAN(k_shot=k_shot, **arguments)

    def test_file_that_changed_is_read_anew(self, arguments, engine, tmp_path, root):
        reference = write_image(tmp_path / "reference.png", 0)
        model = AprilGAN(k_shot=1, few_shot_source=[reference], **arguments)
        engine().predict(model, data_path=root / "bad" / "0.png")
        before = model.model.memory_banks[0].tokens.clone()
        write_image(reference, 1, defect=True)
        engine().predict(model, data_path=root / "bad" / "0.png")
        assert not torch.equal(model.model.memory_banks[0].tokens, before)

    @pytest.mark.parametrize("is_under_test", [True, False])
    def test_those_under_test_are_told_and_mark_the_results(self, is_under_test, root, arguments, engine, caplog):
        source = [root / "test_good" / "1.png" if is_under_test else root / "good" / "1.png", root / "good" / "0.png"]
        model = AprilGAN(k_shot=2, few_shot_source=source, **arguments)
        reported = engine().test(model, datamodule=folder(root))[0]
        assert ("1 of 2 references are images under test" in caplog.text) == is_under_test
        assert (REFERENCES_MARK in reported) == is_under_test

    @pytest.mark.parametrize("judged", ["bad", "good"])
    def test_those_that_are_predicted_are_told(self, judged, root, arguments, engine, caplog):
        model = AprilGAN(k_shot=2, few_shot_source=root / "good", **arguments)
        engine().predict(model, data_path=root / judged)
        assert ("2 of 2 references are images under test" in caplog.text) == (judged == "good")

    def test_loaders_of_other_data_are_left_alone(self, root, arguments, caplog):
        class Stream(IterableDataset):
            paths = (7,)

            def __iter__(self):
                yield from ()

        model = AprilGAN(k_shot=1, few_shot_source=root / "good", **arguments)
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        trainer.predict(model, DataLoader(Stream()))
        assert len(model.reference_paths) == 1
        assert "under test" not in caplog.text

    def test_those_of_a_run_stay_when_the_source_changes_before_it_is_saved(self, root, arguments, engine, tmp_path):
        source = Path(shutil.copytree(root / "good", tmp_path / "good"))
        model, runner = AprilGAN(k_shot=2, few_shot_source=source, **arguments), engine()
        runner.predict(model, data_path=root / "bad")
        references = model.reference_paths
        shutil.rmtree(source)
        runner.trainer.save_checkpoint(tmp_path / "model.ckpt")
        exported = torch.load(model.to_torch(tmp_path), weights_only=False)
        assert AprilGAN.load_from_checkpoint(tmp_path / "model.ckpt").reference_paths == references
        assert json.loads(exported["metadata"]["reference_files"]) == [Path(path).name for path in references]

    def test_source_without_shots_is_told(self, root, arguments, caplog):
        AprilGAN(few_shot_source=root / "good", **arguments)
        assert "few_shot_source is not used: k_shot is 0" in caplog.text

    @pytest.mark.parametrize(("k_shot", "expected"), [(0, LearningType.ZERO_SHOT), (1, LearningType.FEW_SHOT)])
    def test_learning_type(self, k_shot, expected, arguments):
        assert AprilGAN(k_shot=k_shot, **arguments).learning_type == expected


class TestVerdicts:
    """Scores, labels and metrics as the user sees them."""

    def test_without_validation_labels_are_scores_above_one_half(self, root, arguments, engine):
        predictions = engine().predict(AprilGAN(**arguments), data_path=root)
        assert len(predictions) == NORMAL_IMAGES + 4 + 4 + 4
        for prediction in predictions:
            assert 0 <= prediction.pred_score.item() <= 1
            assert prediction.pred_label.item() == (prediction.pred_score.item() > 0.5)
            assert torch.equal(prediction.pred_mask, prediction.anomaly_map > 0.5)
            assert prediction.anomaly_map.isfinite().all()

    @pytest.mark.parametrize("k_shot", [0, 2])
    def test_reported_metrics_are_those_of_the_raw_scores(self, k_shot, root, arguments, engine):
        model = AprilGAN(k_shot=k_shot, **arguments)
        datamodule = folder(root)
        reported = engine().test(model, datamodule=datamodule)[0]
        batches = list(datamodule.test_dataloader())
        labels = torch.cat([batch.gt_label for batch in batches])
        scores = torch.cat([model.model(model.pre_processor.transform(batch.image)).pred_score for batch in batches])
        assert reported["image_AUROC"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        assert reported["image_AveragePrecision"] == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
        expected = {"image_AUROC", "image_F1Max", "image_AveragePrecision"}
        expected |= {"pixel_AUROC", "pixel_F1Max", "pixel_AveragePrecision", "pixel_AUPRO"}
        assert set(reported) == expected

    def test_batches_do_not_matter(self, root, arguments, engine):
        model = AprilGAN(k_shot=2, **arguments)
        engine().validate(model, datamodule=folder(root))
        scores = []
        for size in (1, 4):
            dataset = PredictDataset(root / "bad")
            loader = DataLoader(dataset, batch_size=size, collate_fn=dataset.collate_fn)
            batches = [model.model(model.pre_processor.transform(batch.image)).pred_score for batch in loader]
            scores.append(torch.cat(batches))
        assert torch.allclose(scores[0], scores[1], atol=1e-5)

    def test_sizes_of_others_in_a_batch_do_not_matter(self, arguments, engine, tmp_path):
        for index, size in enumerate(((64, 64), (150, 200), (37, 100))):
            write_image(tmp_path / f"{index}.png", index, defect=index == 0, size=size)
        dataset = PredictDataset(tmp_path)
        scores = []
        for batch_size in (1, 3):
            loader = DataLoader(dataset, batch_size=batch_size, collate_fn=dataset.collate_fn)
            batches = engine().predict(AprilGAN(**arguments), dataloaders=loader)
            scores.append(torch.cat([batch.pred_score for batch in batches]))
        assert torch.allclose(scores[0], scores[1], atol=1e-5)

    def test_data_without_masks_after_data_with_masks(self, root, arguments, engine):
        model = AprilGAN(**arguments)
        assert np.isfinite(engine().train(model, datamodule=folder(root))[0]["pixel_AUROC"])
        assert not model.post_processor.pixel_threshold.isnan()
        assert np.isfinite(engine().train(model, datamodule=folder(root, mask_dir=None))[0]["image_F1Max"])
        assert model.post_processor.pixel_threshold.isnan()

    def test_works_without_masks(self, root, arguments, engine):
        reported = engine().train(AprilGAN(**arguments), datamodule=folder(root, mask_dir=None))[0]
        assert np.isfinite(reported["image_AUROC"])
        assert reported.get("pixel_AUROC") is None

    def test_forward_on_raw_images_equals_predict(self, root, arguments, engine):
        model = AprilGAN(**arguments)
        prediction = engine().predict(model, data_path=root / "bad" / "0.png")[0]
        direct = model(PredictDataset(root / "bad" / "0.png")[0].image[None])
        assert torch.allclose(direct.anomaly_map, prediction.anomaly_map, atol=1e-5)


class TestPublishedAdapters:
    """With ``auto`` and the backbone that they belong to: those that have not seen the dataset under test."""

    @pytest.fixture
    def published(self, golden_arguments, monkeypatch):
        golden = golden_arguments("tiny_vit")
        names = []

        def find(name):
            names.append(name)
            file = read_adapters(golden["adapters"])
            return replace(file, metadata=replace(file.metadata, trained_on=name))

        metadata = AdapterMetadata(golden["backbone"], golden["pretrained"], quick_gelu=False, layers=(1, 2, 3, 4))
        monkeypatch.setattr(published_adapters, "PUBLISHED", {"blob": metadata})
        monkeypatch.setattr(lightning_model, "find_adapters", find)
        return names, {**golden, "adapters": "auto", "visualizer": False}

    def test_nothing_is_fetched_before_the_data_are_known(self, published, root, engine):
        names, arguments = published
        model = AprilGAN(**arguments)
        assert not names
        engine().test(model, datamodule=folder(root))
        engine().predict(model, data_path=root / "bad")
        assert names == ["visa"]
        assert model.model.trained_on == "visa"

    def test_a_checkpoint_brings_its_own(self, published, root, engine):
        names, arguments = published
        run, plain_run = engine(), engine()
        run.train(AprilGAN(**arguments), datamodule=folder(root))
        plain_run.train(AprilGAN(**{**arguments, "adapters": None}), datamodule=folder(root))
        names.clear()
        for path in (run.best_model_path, plain_run.best_model_path):
            engine().predict(AprilGAN(**arguments), data_path=root / "bad", ckpt_path=path)
        assert not names

    def test_results_of_adapters_that_saw_the_data_are_marked(self, published, root, engine, caplog):
        _, arguments = published
        model = AprilGAN(**arguments)
        assert leak_mark("adapters") not in engine().test(model, datamodule=folder(root))[0]
        model.model.trained_on, model.chooses_adapters = "mvtec, Folder/fabric", False
        assert engine().test(model, datamodule=folder(root))[0][leak_mark("adapters")] == 1
        assert "The adapters were trained on data under test, Folder/fabric" in caplog.text

    def test_a_checkpoint_of_such_adapters_is_marked_too(self, published, root, engine, caplog):
        _, arguments = published
        run = engine()
        run.train(AprilGAN(**arguments), datamodule=folder(root))
        restored = AprilGAN.load_from_checkpoint(run.best_model_path)
        restored.model.trained_on = "Folder/fabric"
        assert engine().test(restored, datamodule=folder(root))[0][leak_mark("adapters")] == 1
        assert "trained on data under test, Folder/fabric" in caplog.text

    def test_another_activation_is_refused(self, published):
        with pytest.raises(ValueError, match="quick_gelu=True, but the authors' adapters belong to False"):
            AprilGAN(**published[1], quick_gelu=True)


class TestCheckpoints:
    """A checkpoint holds all but the frozen CLIP, and fits no other."""

    @pytest.fixture
    def trained(self, root, arguments, engine) -> Callable[..., tuple[AprilGAN, str]]:
        def train(**changes: Any) -> tuple[AprilGAN, str]:
            run = engine()
            model = AprilGAN(**{**arguments, **changes})
            run.train(model, datamodule=folder(root))
            return model, run.best_model_path

        return train

    def test_clip_is_left_out_and_the_rest_is_plain_data(self, trained):
        prompts = PromptEnsemble(["good {}"], ["bad {}"], ["a photo of a {}."])
        _, path = trained(k_shot=2, prompts=prompts)
        checkpoint = torch.load(path, weights_only=True)
        assert not [name for name in checkpoint["state_dict"] if name.startswith("model.clip.")]
        assert checkpoint["hyper_parameters"]["prompts"]["normal_states"] == ["good {}"]
        assert len(checkpoint["april_gan"]["reference_paths"]) == 2
        assert Path(path).stat().st_size < 200_000

    @pytest.mark.parametrize("k_shot", [0, 2])
    def test_predict_from_it_needs_nothing_else(self, k_shot, trained, root, arguments, engine, monkeypatch, tmp_path):
        references = shutil.copytree(root / "good", tmp_path / "references")
        model, path = trained(k_shot=k_shot, few_shot_source=references if k_shot else None)
        before = engine().predict(model, data_path=root / "bad", ckpt_path=path)
        shutil.rmtree(references)
        monkeypatch.setattr(text_encoder, "TextEncoder", None)
        for restored in (AprilGAN(**arguments), AprilGAN.load_from_checkpoint(path, visualizer=False)):
            after = engine().predict(restored, data_path=root / "bad", ckpt_path=path)
            assert [p.pred_score.item() for p in after] == [p.pred_score.item() for p in before]
            assert restored.reference_paths == model.reference_paths
            assert restored.k_shot == k_shot
            assert restored.class_name == "fabric"

    def test_a_loaded_model_stays_what_it_was(self, trained, root, engine):
        _, path = trained(k_shot=2)
        restored = AprilGAN.load_from_checkpoint(path, visualizer=False)
        references = restored.reference_paths
        engine().test(restored, datamodule=folder(root, name="other"))
        assert restored.model.class_name == "fabric"
        assert restored.reference_paths == references

    def test_adapters_travel_with_it(self, trained, golden_arguments, tmp_path, root, engine, arguments):
        golden = golden_arguments("tiny_vit")
        adapters = shutil.copy(golden["adapters"], tmp_path / "adapters.safetensors")
        model, path = trained(**{**golden, "adapters": adapters})
        Path(adapters).unlink()
        without = {name: value for name, value in golden.items() if name != "adapters"}
        expected = engine().predict(model, data_path=root / "bad", ckpt_path=path)
        for restored in (AprilGAN.load_from_checkpoint(path), AprilGAN(**without)):
            predictions = engine().predict(restored, data_path=root / "bad", ckpt_path=path)
            assert torch.equal(predictions[0].anomaly_map, expected[0].anomaly_map)

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"image_size": 70}, "image_size"),
            ({"tiles": 2}, "'tiles': 1"),
            ({"few_shot_layers": [1, 2, 3]}, "few_shot_layers"),
        ],
    )
    def test_another_clip_is_refused(self, changes, named, trained, root, arguments, engine):
        _, path = trained()
        with pytest.raises(ValueError, match=f"The checkpoint was made with .*{named}"):
            engine().predict(AprilGAN(**{**arguments, **changes}), data_path=root, ckpt_path=path)

    def test_tiles_come_with_it(self, trained, root, engine):
        model, path = trained(k_shot=2, tiles=2)
        restored = AprilGAN.load_from_checkpoint(path, visualizer=False)
        assert (restored.model.image_size, restored.model.tiles) == (56, 2)
        before, after = (engine().predict(each, data_path=root / "bad", ckpt_path=path) for each in (model, restored))
        assert [p.pred_score.item() for p in after] == [p.pred_score.item() for p in before]

    def test_one_from_before_tiles_looks_at_whole_images(self, trained, root, arguments, engine):
        _, path = trained()
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["april_gan"]["fingerprint"]["tiles"]
        torch.save(checkpoint, path)
        restored = AprilGAN(**arguments)
        engine().predict(restored, data_path=root / "bad", ckpt_path=path)
        assert restored.class_name == "fabric"

    def test_other_weights_are_refused(self, trained, root, arguments, engine, golden_weights):
        _, path = trained()
        other = {**arguments, "pretrained": str(golden_weights("tiny_vit"))}
        with pytest.raises(ValueError, match=r"The checkpoint was made with .*weights"):
            engine().predict(AprilGAN(**other), data_path=root, ckpt_path=path)

    def test_prompts_come_with_it(self, trained, root, arguments, engine):
        prompts = PromptEnsemble(["good {}"], ["bad {}"], ["a photo of a {}."])
        _, path = trained(prompts=prompts)
        restored = AprilGAN(**arguments)
        engine().predict(restored, data_path=root / "bad", ckpt_path=path)
        assert restored.model.prompts == prompts

    def test_another_number_of_shots_is_refused(self, trained, root, arguments, engine):
        _, path = trained(k_shot=2)
        with pytest.raises(ValueError, match="k_shot=4, but the checkpoint was made with 2"):
            engine().predict(AprilGAN(k_shot=4, **arguments), data_path=root, ckpt_path=path)

    @pytest.mark.parametrize(
        "changes", [{"class_name": "cable"}, {"prompts": {"normal_states": ["good {}"]}}, {"quick_gelu": True}]
    )
    def test_arguments_that_it_would_overrule_are_refused(self, changes, trained, root, arguments, engine):
        _, path = trained()
        with pytest.raises(ValueError, match=f"{next(iter(changes))}=.*, but the checkpoint was made with"):
            engine().predict(AprilGAN(**{**arguments, **changes}), data_path=root, ckpt_path=path)

    def test_arguments_whose_results_it_brings_are_told(self, trained, root, engine, caplog, golden_arguments):
        golden = golden_arguments("tiny_vit")
        _, path = trained(**golden, k_shot=2, few_shot_source=root / "good")
        tmp_path = Path(path).parent
        assert "Not used" not in caplog.text  # of the very model that is tested after its training
        other = read_adapters(golden["adapters"])
        other.weights["fc.0.bias"] += 1
        other.build([1, 2, 3, 4], [64] * 4, 32).save(tmp_path / "other.safetensors", other.metadata)
        same = root / "bad" / ".." / "good"
        engine().predict(AprilGAN(**golden, k_shot=2, few_shot_source=same), data_path=root / "bad", ckpt_path=path)
        assert "Not used" not in caplog.text
        given = {
            "few_shot_source": str(root / "test_good"),
            "reference_seed": 7,
            "coreset_ratio": 0.5,
            "adapters": str(tmp_path / "other.safetensors"),
        }
        restored = AprilGAN.load_from_checkpoint(path, **given)
        told = ", ".join(f"{name}={value!r}" for name, value in given.items())
        assert f"Not used, since the checkpoint brings others: {told}." in caplog.text
        assert restored.few_shot_source is None
        assert {Path(path).parent for path in restored.reference_paths} == {root / "good"}

    @pytest.mark.parametrize("k_shot", [0, 2])
    def test_one_saved_before_anything_was_judged_is_whole(self, k_shot, root, arguments, engine, tmp_path):
        run = engine(limit_val_batches=0)
        run.fit(AprilGAN(**arguments, k_shot=k_shot), datamodule=folder(root))
        run.trainer.save_checkpoint(tmp_path / "early.ckpt")
        restored = AprilGAN.load_from_checkpoint(tmp_path / "early.ckpt", visualizer=False)
        engine().predict(restored, data_path=root / "bad")
        assert restored.model.class_name == "fabric"
        assert len(restored.reference_paths) == k_shot
        assert restored.model.is_few_shot == bool(k_shot)

    def test_one_model_may_load_several(self, trained, root, arguments, engine):
        (_, few_shot), (_, zero_shot) = trained(k_shot=2, class_name="nut"), trained(class_name="bolt")
        model = AprilGAN(**arguments)
        for path, name, k_shot in ((few_shot, "nut", 2), (zero_shot, "bolt", 0)):
            engine().predict(model, data_path=root / "bad", ckpt_path=path)
            assert (model.model.class_name, model.k_shot) == (name, k_shot)
            assert model.model.is_few_shot == bool(k_shot)

    def test_activation_that_adapters_settled_is_taken_from_it(self, trained, golden_arguments, tmp_path, root, engine):
        golden = golden_arguments("tiny_vit")
        adapters = read_adapters(golden["adapters"]).build([1, 2, 3, 4], [64] * 4, 32)
        adapters.save(tmp_path / "quick.safetensors", AdapterMetadata(quick_gelu=True))
        model, path = trained(**{**golden, "adapters": tmp_path / "quick.safetensors"})
        assert model.model.source.quick_gelu
        restored = AprilGAN(**{name: value for name, value in golden.items() if name != "adapters"})
        assert not restored.model.source.quick_gelu
        expected = engine().predict(model, data_path=root / "bad", ckpt_path=path)
        predictions = engine().predict(restored, data_path=root / "bad", ckpt_path=path)
        assert torch.equal(predictions[0].anomaly_map, expected[0].anomaly_map)
        assert predictions[0].pred_score == expected[0].pred_score

    def test_adapters_that_the_checkpoint_lacks_are_refused(self, trained, root, engine, golden_arguments):
        golden = golden_arguments("tiny_vit")
        _, path = trained(**{**golden, "adapters": None})
        with pytest.raises(ValueError, match="made without trained adapters"):
            engine().predict(AprilGAN(**golden), data_path=root, ckpt_path=path)

    def test_one_of_another_model_is_refused(self, root, arguments, engine, tmp_path):
        path = tmp_path / "other.ckpt"
        torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0", "hyper_parameters": {}}, path)
        with pytest.raises(ValueError, match="not one of AprilGAN"):
            engine().predict(AprilGAN(**arguments), data_path=root, ckpt_path=path)


class TestImageFiles:
    """Files as they come from cameras."""

    @pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1"])
    def test_modes_are_judged_like_their_rgb_form(self, mode, arguments, engine, tmp_path):
        source = Image.open(write_image(tmp_path / "rgb.png", 0, defect=True, size=(61, 83))).convert(mode)
        suffix = "tif" if mode == "CMYK" else "png"
        (tmp_path / "photos").mkdir()
        source.save(tmp_path / "photos" / f"0.{suffix}")
        source.convert("RGB").save(tmp_path / "photos" / "1.png")
        model = AprilGAN(**arguments)
        scores = [p.pred_score.item() for p in engine().predict(model, data_path=tmp_path / "photos")]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)

    def test_clear_pixels_do_not_count_as_in_the_authors_code(self, arguments, engine, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 4)).astype(np.uint8)
        (tmp_path / "photos").mkdir()
        Image.fromarray(pixels).save(tmp_path / "photos" / "0.png")
        model = AprilGAN(**arguments)
        side = model.model.image_size
        for index, transparent in enumerate((Image.fromarray(pixels), Image.fromarray(pixels[..., :3])), start=1):
            squashed = transparent.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
            squashed.save(tmp_path / "photos" / f"{index}.png")
        scores = [p.pred_score.item() for p in engine().predict(model, data_path=tmp_path / "photos")]
        assert scores[0] == pytest.approx(scores[1], abs=1e-6)
        assert scores[0] != pytest.approx(scores[2], abs=1e-4)

    def test_sixteen_bits_are_not_clipped(self, arguments, engine, tmp_path):
        grey = np.array(Image.open(write_image(tmp_path / "rgb.png", 0, defect=True)).convert("L"))
        (tmp_path / "photos").mkdir()
        Image.fromarray(grey).save(tmp_path / "photos" / "0.png")
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "photos" / "1.png")
        maps = [p.anomaly_map for p in engine().predict(AprilGAN(**arguments), data_path=tmp_path / "photos")]
        assert torch.allclose(maps[0], maps[1], atol=1e-5)

    @pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
    def test_unreadable_files_are_named(self, damage, root, arguments, engine, tmp_path):
        photos = shutil.copytree(root / "bad", tmp_path / "photos")
        content = (photos / "2.png").read_bytes()
        damaged = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"no image"}[damage]
        (photos / "2.png").write_bytes(damaged)
        with pytest.raises(UnreadableImageError, match=r"cannot be read.*photos/2\.png"):
            engine().predict(AprilGAN(**arguments), data_path=photos)

    def test_unreadable_reference_is_named(self, root, arguments, engine, tmp_path):
        (tmp_path / "reference.png").write_bytes(b"")
        model = AprilGAN(k_shot=1, few_shot_source=[tmp_path / "reference.png"], **arguments)
        with pytest.raises(UnreadableImageError, match=r"reference\.png cannot be read as an image"):
            engine().predict(model, data_path=root / "bad")


class TestLayouts:
    """The datamodules that people have."""

    def test_mvtec_ad(self, arguments, engine, tmp_path):
        category = tmp_path / "metal_nut"
        for index in range(3):
            write_image(category / "train" / "good" / f"{index:03}.png", index)
            write_image(category / "test" / "good" / f"{index:03}.png", 10 + index)
            write_image(category / "test" / "bent" / f"{index:03}.png", 20 + index, defect=True)
            mask = write_image(category / "ground_truth" / "bent" / f"{index:03}_mask.png", 0)
            Image.fromarray(np.pad(np.full((24, 24), 255, np.uint8), 20)).save(mask)
        datamodule = MVTecAD(root=tmp_path, category="metal_nut", num_workers=0)
        model = AprilGAN(k_shot=2, **arguments)
        reported = engine().train(model, datamodule=datamodule)[0]
        assert model.model.class_name == "metal_nut"
        assert {Path(path).parent.name for path in model.reference_paths} == {"good"}
        assert all(np.isfinite(value) for value in reported.values())

    def test_visa(self, arguments, engine, tmp_path):
        category = tmp_path / "visa_pytorch" / "pcb1"
        for index in range(3):
            write_image(category / "train" / "good" / f"{index:03}.png", index)
            write_image(category / "test" / "good" / f"{index:03}.png", 10 + index)
            write_image(category / "test" / "bad" / f"{index:03}.png", 20 + index, defect=True)
            mask = write_image(category / "ground_truth" / "bad" / f"{index:03}.png", 0)
            Image.fromarray(np.pad(np.full((24, 24), 255, np.uint8), 20)).save(mask)
        model = AprilGAN(**arguments)
        reported = engine().train(model, datamodule=Visa(root=tmp_path, category="pcb1", num_workers=0))[0]
        assert model.model.class_name == "pcb1"
        assert all(np.isfinite(value) for value in reported.values())
