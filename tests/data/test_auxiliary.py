# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Auxiliary data: which images of which sources are trained on, and what becomes of images and masks."""

import copy
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace

import anomalib.data
import numpy as np
import pandas as pd
import pytest
import torch
from anomalib import LearningType
from anomalib.data import AnomalibDataModule, Folder, MVTecAD, Visa
from anomalib.data.datamodules.base.video import AnomalibVideoDataModule
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from jsonargparse import ArgumentParser
from lightning.fabric.utilities import move_data_to_device
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import nn

from anomalib_aprilgan.data import auxiliary_dataset
from anomalib_aprilgan.data.auxiliary import AuxiliaryData, EpochSampler
from anomalib_aprilgan.data.auxiliary_batch import (
    AuxiliaryBatch,
    AuxiliaryItem,
    NumpyAuxiliaryBatch,
    NumpyAuxiliaryItem,
)
from anomalib_aprilgan.data.auxiliary_dataset import (
    AuxiliaryDataset,
    add_anomaly,
    read_mask,
)
from anomalib_aprilgan.data.auxiliary_sources import build_sources, list_annotated
from anomalib_aprilgan.data.image_files import UnreadableImageError
from anomalib_aprilgan.data.pillow_resize import resize_image, resize_mask
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor

DATAMODULES = sorted(
    name
    for name in anomalib.data.__all__
    if isinstance(found := getattr(anomalib.data, name), type)
    and issubclass(found, AnomalibDataModule)
    and not issubclass(found, AnomalibVideoDataModule)
    and found is not AnomalibDataModule
)
REQUIRED = {
    "Folder": {"name": "bolt", "normal_dir": "good"},
    "Folder3D": {"name": "bolt", "normal_dir": "good", "root": "."},
    "Tabular": {"name": "bolt", "samples": {}},
    "Datumaro": {"root": "."},
}


def save(path: Path, values) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)
    return str(path)


def grey(path: Path, level: int, side: int = 8) -> str:
    return save(path, np.full((side, side, 3), level, dtype=np.uint8))


def left_half(value: int = 255, side: int = 8) -> np.ndarray:
    """A mask whose left half is anomalous."""
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[:, : side // 2] = value
    return mask


def write_category(root: Path, name: str, level: int, count: int = 2, side: int = 8) -> None:
    """A category as MVTec AD has them; grey levels: ``level`` for train, + 1 for good and + 2 for bad ones of test."""
    for index in range(count):
        grey(root / name / "train" / "good" / f"{index:03}.png", level, side)
        grey(root / name / "test" / "good" / f"{index:03}.png", level + 1, side)
        grey(root / name / "test" / "bad" / f"{index:03}.png", level + 2, side)
        save(root / name / "ground_truth" / "bad" / f"{index:03}_mask.png", left_half(side=side))


@pytest.fixture
def mvtec(tmp_path):
    """Two categories, each with two images for training, two good and two bad ones for test."""
    write_category(tmp_path, "bottle", 100)
    write_category(tmp_path, "cable", 200)
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    """Arguments of a ``Folder`` with ten images a kind; of the bad ones each has a mask."""
    for index in range(10):
        grey(tmp_path / "good" / f"{index}.png", 10)
        grey(tmp_path / "test_good" / f"{index}.png", 11)
        grey(tmp_path / "bad" / f"{index}.png", 12)
        save(tmp_path / "mask" / f"{index}.png", left_half())
    return {
        "name": "bolt",
        "root": str(tmp_path),
        "normal_dir": "good",
        "normal_test_dir": "test_good",
        "abnormal_dir": "bad",
        "mask_dir": "mask",
    }


def of_mvtec(root: Path, **arguments) -> AuxiliaryData:
    arguments = {"categories": ["bottle", "cable"], "image_size": 4, "num_workers": 0, **arguments}
    data = AuxiliaryData(dataset="mvtec", root=root, **arguments)
    data.setup()
    return data


def of_folder(init_args: dict, **arguments) -> AuxiliaryData:
    arguments = {"image_size": 4, "num_workers": 0, **arguments}
    data = AuxiliaryData(sources=[{"class_path": "Folder", "init_args": init_args}], **arguments)
    data.setup()
    return data


def without(arguments: dict, *names: str) -> dict:
    return {name: value for name, value in arguments.items() if name not in names}


def levels(dataset: AuxiliaryDataset) -> list[int]:
    """Grey level of each image's upper left pixel."""
    return sorted(round(item.image[0, 0, 0].item() * 255) for item in (dataset[i] for i in range(len(dataset))))


def dataset_of(paths: list[str], masks: list[tuple[str, ...]] | None = None, **arguments) -> AuxiliaryDataset:
    """A dataset of files; those with a mask are anomalous."""
    masks = masks or [()] * len(paths)
    samples = {"image_path": paths, "mask_path": masks, "label_index": [int(bool(mask)) for mask in masks]}
    return AuxiliaryDataset(pd.DataFrame({**samples, "class_name": "bolt", "split": "test"}), **arguments)


class TestBatch:
    @pytest.fixture
    def batch(self):
        return AuxiliaryBatch(
            image=torch.rand(2, 3, 4, 4),
            gt_mask=torch.ones(2, 4, 4, dtype=torch.bool),
            gt_label=torch.tensor([0, 1]),
            image_path=["a.png", "b.png"],
            class_name=["bottle", "cable"],
        )

    def test_items_keep_their_names(self, batch):
        assert [(type(item), item.class_name, item.image_path) for item in batch] == [
            (AuxiliaryItem, "bottle", "a.png"),
            (AuxiliaryItem, "cable", "b.png"),
        ]

    def test_collated_items_give_the_batch_again(self, batch):
        again = AuxiliaryBatch.collate(batch.items)
        assert type(again) is AuxiliaryBatch
        assert again.class_name == ["bottle", "cable"]
        assert torch.equal(again.image, batch.image)
        assert torch.equal(again.gt_mask, batch.gt_mask)

    def test_update_in_place_and_as_a_copy(self, batch):
        changed = batch.update(in_place=False, pred_score=torch.tensor([0.1, 0.9]))
        assert (changed.class_name, batch.pred_score) == (["bottle", "cable"], None)
        assert batch.update(class_name=["screw", "screw"]) is batch
        assert (batch.class_name, changed.class_name) == (["screw", "screw"], ["bottle", "cable"])

    def test_move_to_another_device(self, batch):
        moved = move_data_to_device(batch, torch.device("meta"))
        assert type(moved) is AuxiliaryBatch
        assert (moved.class_name, moved.image.device.type) == (["bottle", "cable"], "meta")
        assert batch.image.device.type == "cpu"

    def test_to_numpy(self, batch):
        numpy_batch = batch.to_numpy()
        assert type(numpy_batch) is NumpyAuxiliaryBatch
        assert numpy_batch.class_name == ["bottle", "cable"]
        assert isinstance(numpy_batch.image, np.ndarray)
        assert [(type(item), item.class_name) for item in numpy_batch.items] == [
            (NumpyAuxiliaryItem, "bottle"),
            (NumpyAuxiliaryItem, "cable"),
        ]
        assert type(batch.items[0].to_numpy()) is NumpyAuxiliaryItem

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
    def test_copies_keep_the_names(self, batch, duplicate):
        assert duplicate(batch).class_name == ["bottle", "cable"]

    def test_fields_are_listed(self, batch):
        assert "class_name" in batch.keys(include_none=False)
        assert batch["class_name"] == ["bottle", "cable"]

    def test_class_name_is_required(self):
        with pytest.raises(TypeError, match="class_name"):
            AuxiliaryBatch(image=torch.zeros(1, 3, 2, 2))

    @pytest.mark.parametrize("names", ["bottle", [1], None])
    def test_other_things_than_names_are_refused(self, batch, names):
        with pytest.raises(TypeError, match="class_name of a batch must be a list of strings, one an image"):
            batch.class_name = names

    def test_name_of_an_item_is_a_string(self):
        with pytest.raises(TypeError, match=r"class_name of an item must be a string, got \['bottle'\]"):
            AuxiliaryItem(image=torch.zeros(3, 2, 2), class_name=["bottle"])


class TestMasks:
    @pytest.mark.parametrize("index", [0, 1, 2])
    def test_agree_with_the_authors(self, golden_arrays, tmp_path, index):
        arrays = golden_arrays("preprocess")
        mask = read_mask([save(tmp_path / "mask.png", arrays[f"mask{index}"])])
        soft = resize_mask(torch.from_numpy(mask), (70, 70))
        np.testing.assert_allclose(soft, arrays[f"mask_resized{index}"][0], atol=1e-5)
        np.testing.assert_array_equal(soft > 0.5, arrays[f"mask_binary{index}"][0])

    def test_reach_the_item_like_that(self, golden_arrays, tmp_path):
        arrays = golden_arrays("preprocess")
        image = save(tmp_path / "image.png", arrays["image0"])
        mask = save(tmp_path / "mask.png", arrays["mask0"])
        item = dataset_of([image], [(mask,)], image_size=70)[0]
        assert (item.gt_mask.dtype, item.gt_label.item()) == (torch.bool, True)
        np.testing.assert_array_equal(item.gt_mask, arrays["mask_binary0"][0])

    def test_values_above_zero_count(self, tmp_path):
        # Bilinear with antialiasing from 4 to 2 columns: weights 3/7, 3/7, 1/7 on columns 0 to 2.
        for values, expected in (([1, 0, 0, 0], [3 / 7, 0]), ([1, 7, 0, 0], [6 / 7, 1 / 7])):
            path = save(tmp_path / "mask.png", np.array([values], dtype=np.uint8))
            resized = resize_mask(torch.from_numpy(read_mask([path])), (1, 2))
            assert resized.tolist() == [pytest.approx(expected, abs=1 / 255)]

    @pytest.mark.parametrize(
        "values",
        [
            np.array([[0, 1]], dtype=np.uint16),  # shifted away, were it converted to 8 bits
            np.array([[0, 1]], dtype=np.int32),
            np.array([[0, 0.25]], dtype=np.float32),
            np.array([[False, True]]),
            np.array([[[0, 0, 0, 255], [255, 0, 0, 255]]], dtype=np.uint8),  # opaque
        ],
        ids=["16-bit", "32-bit", "float", "1-bit", "RGBA"],
    )
    def test_any_mode_is_read(self, tmp_path, values):
        assert read_mask([save(tmp_path / "mask.tiff", values)]).tolist() == [[False, True]]

    def test_several_files_are_united(self, tmp_path):
        first = save(tmp_path / "0.png", np.array([[9, 0, 0]], dtype=np.uint8))
        second = save(tmp_path / "1.png", np.array([[0, 0, 9]], dtype=np.uint8))
        assert read_mask([first, second]).tolist() == [[True, False, True]]

    def test_several_files_of_other_sizes_are_named(self, tmp_path):
        first = save(tmp_path / "0.png", np.zeros((2, 3), dtype=np.uint8))
        second = save(tmp_path / "1.png", np.zeros((3, 2), dtype=np.uint8))
        with pytest.raises(ValueError, match=r"of the same size, in pixels: .*0\.png 3 x 2, .*1\.png 2 x 3\."):
            read_mask([first, second])

    def test_unreadable_file_is_named(self, tmp_path):
        (tmp_path / "mask.png").write_bytes(b"no image")
        with pytest.raises(UnreadableImageError, match=r"mask\.png cannot be read as a mask"):
            read_mask([tmp_path / "mask.png"])


class TestImages:
    def test_keep_grey_levels_and_are_not_normalised(self, mvtec):
        item = of_mvtec(mvtec, image_size=5).train_data[0]
        assert (item.image.shape, item.image.dtype, item.gt_mask.shape) == ((3, 5, 5), torch.float32, (5, 5))
        torch.testing.assert_close(item.image.as_subclass(torch.Tensor), torch.full((3, 5, 5), 102 / 255))

    def test_stay_between_0_and_1_at_edges(self, tmp_path):
        image = torch.zeros(3, 8, 8)
        image[..., 4:] = 1
        resized = resize_image(image, (6, 6))
        assert (resized.min(), resized.max()) == (0, 1)
        assert nn.functional.interpolate(image[None], (6, 6), mode="bicubic", antialias=True).max() > 1

    def test_16_bits_are_scaled(self, tmp_path):
        path = save(tmp_path / "image.png", np.full((8, 8), 13107, dtype=np.uint16))
        assert dataset_of([path], image_size=8)[0].image.unique().tolist() == [pytest.approx(0.2)]

    def test_unreadable_file_is_named(self, mvtec):
        (mvtec / "bottle" / "test" / "good" / "001.png").write_bytes(b"")
        with pytest.raises(UnreadableImageError, match=r"good/001\.png cannot be read as an image"):
            levels(of_mvtec(mvtec).train_data)

    def test_are_what_the_models_preprocessor_makes(self, golden_arrays, tmp_path):
        path = save(tmp_path / "image.png", golden_arrays("preprocess")["image0"])
        item = dataset_of([path], image_size=70)[0]
        transform = CLIPPreProcessor(70).transform
        whole = torch.from_numpy(golden_arrays("preprocess")["image0"]).permute(2, 0, 1) / 255
        image, mask = transform(item.image, item.gt_mask)  # what a pre-processor does when a batch begins
        torch.testing.assert_close(image.as_subclass(torch.Tensor), transform(whole))
        assert torch.equal(mask, item.gt_mask)


class TestSources:
    def test_all_test_images_are_used(self, mvtec):
        data = of_mvtec(mvtec)
        assert levels(data.train_data) == [101, 101, 102, 102, 201, 201, 202, 202]
        assert {item.class_name for item in (data.train_data[i] for i in range(8))} == {"bottle", "cable"}

    @pytest.mark.parametrize("mode", ["from_test", "same_as_test", "synthetic", "from_train", None])
    def test_none_goes_to_a_sources_validation(self, folder, mode):
        own = {} if mode is None else {"val_split_mode": mode}
        assert levels(of_folder({**folder, **own}).train_data) == [11] * 10 + [12] * 10

    def test_anomalibs_own_default_would_halve_them(self, folder):
        datamodule = Folder(**folder)
        datamodule.setup()
        assert len(datamodule.test_data) == 10

    @pytest.mark.parametrize("name", DATAMODULES)
    def test_every_datamodule_gives_all(self, name, tmp_path, monkeypatch):
        paths = [grey(tmp_path / f"{index}.png", index) for index in range(8)]

        def _setup(self, _stage=None):
            self.train_data = dataset_of(paths[:2], image_size=4)
            self.test_data = dataset_of(paths[2:], [()] * 4 + [(paths[0],)] * 2, image_size=4)
            self.test_data.samples["mask_path"] = [None] * 4 + paths[:2]
            if self.val_split_mode == "from_dir":
                self.val_data = self.train_data

        monkeypatch.setattr(getattr(anomalib.data, name), "_setup", _setup)
        source = {"class_path": name, "init_args": REQUIRED.get(name, {"root": str(tmp_path)})}
        rows = list_annotated(build_sources([source])[0], seed=0)
        assert sorted(row["image_path"] for row in rows) == paths[2:]
        assert not any(row["mask_path"] for row in rows[:4])

    def test_lists_of_masks_are_united(self, tmp_path, monkeypatch):
        paths = [grey(tmp_path / f"{index}.png", index, side=4) for index in range(3)]
        masks = [save(tmp_path / f"mask{i}.png", np.eye(4, dtype=np.uint8)[[i] * 4]) for i in range(3)]

        def _setup(self, _stage=None):
            self.train_data = self.test_data = dataset_of(paths, [(), (masks[0],), (masks[0],)], image_size=4)
            self.test_data.samples["mask_path"] = ["", [masks[0], masks[2]], [masks[1]]]  # as MVTecLOCO has them

        monkeypatch.setattr(anomalib.data.MVTecLOCO, "_setup", _setup)
        data = AuxiliaryData(sources=[{"class_path": "MVTecLOCO"}], image_size=4)
        data.setup()
        rows = [data.train_data[index].gt_mask[0].int().tolist() for index in range(3)]
        assert rows == [[0, 0, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0]]

    def test_class_name_is_the_category_or_the_name(self, folder, mvtec):
        sources = [
            {"class_path": "anomalib.data.Folder", "init_args": folder},
            {"class_path": "MVTecAD", "init_args": {"root": str(mvtec), "category": "bottle"}},
        ]
        data = AuxiliaryData(sources=sources)
        assert data.training_categories == ["bolt", "bottle"]
        assert data.training_data == ["Folder/bolt", "MVTecAD/bottle"]
        assert (data.category, data.name) == ("", "AuxiliaryData")

    def test_sources_of_one_name_are_one_category(self, folder):
        data = AuxiliaryData(sources=[{"class_path": "Folder", "init_args": folder}] * 2)
        data.setup()
        assert (data.training_categories, len(data.train_data)) == (["bolt"], 40)

    @pytest.mark.parametrize(("dataset", "datamodule", "count"), [("mvtec", MVTecAD, 15), ("visa", Visa, 12)])
    def test_shortcut_takes_all_categories(self, dataset, datamodule, count):
        data = AuxiliaryData(dataset=dataset)
        assert {type(source) for source in data.sources} == {datamodule}
        assert len(data.training_categories) == count
        assert data.sources[0].root == datamodule().root
        assert AuxiliaryData(dataset=dataset, root="elsewhere").sources[0].root == Path("elsewhere")

    def test_each_source_prepares_its_data(self, monkeypatch):
        prepared = []
        monkeypatch.setattr(MVTecAD, "prepare_data", lambda self: prepared.append(self.category))
        AuxiliaryData(dataset="mvtec", categories=["wood", "tile"]).prepare_data()
        assert prepared == ["wood", "tile"]

    def test_arguments_stay_as_they_are(self, folder):
        sources = [{"class_path": "Folder", "init_args": folder}]
        given = copy.deepcopy(sources)
        AuxiliaryData(sources=sources, validation=[]).setup()
        assert sources == given

    def test_same_normal_images_stand_in_for_missing_ones(self, folder):
        arguments = {**without(folder, "normal_test_dir"), "test_split_ratio": 0.5}
        paths = [set(of_folder(arguments).train_data.samples.image_path) for _ in range(2)]
        assert len(paths[0]) == 15
        assert paths[0] == paths[1]


class TestMissingMasks:
    def test_are_skipped_with_a_count(self, mvtec, caplog):
        columns = {"image_path": sorted(str(path) for path in (mvtec / "bottle" / "test").rglob("*.png"))}
        columns |= {"label_index": [1, 1, 0, 0], "split": "test"}
        mask = str(mvtec / "bottle" / "ground_truth" / "bad" / "000_mask.png")
        tables = [{**columns, "mask_path": [mask, missing, "", ""]} for missing in ("", "gone.png")]
        for table in tables:
            source = {"class_path": "Tabular", "init_args": {"name": "bolt", "samples": table}}
            data = AuxiliaryData(sources=[source], image_size=4)
            with caplog.at_level(logging.WARNING):
                data.setup()
            assert levels(data.train_data) == [101, 101, 102]
            assert caplog.messages.pop() == "bolt: 1 of 2 anomalous images have no mask and are left out."
            caplog.clear()

    def test_folder_without_masks_is_refused(self, folder, caplog):
        with pytest.raises(
            ValueError, match=r"There is no anomalous image with a mask of bolt\. Give masks \(mask_dir"
        ):
            of_folder(without(folder, "mask_dir"))
        assert "bolt: 10 of 10 anomalous images have no mask and are left out." in caplog.messages

    def test_folder_without_masks_may_stand_beside_others(self, folder, mvtec):
        sources = [
            {"class_path": "Folder", "init_args": without(folder, "mask_dir")},
            {"class_path": "MVTecAD", "init_args": {"root": str(mvtec), "category": "bottle"}},
        ]
        data = AuxiliaryData(sources=sources, image_size=4)
        data.setup()
        assert levels(data.train_data) == [11] * 10 + [101, 101, 102, 102]

    def test_are_refused_in_held_out_categories_too(self, folder, mvtec):
        sources = [
            {"class_path": "Folder", "init_args": without(folder, "mask_dir")},
            {"class_path": "MVTecAD", "init_args": {"root": str(mvtec), "category": "bottle"}},
        ]
        with pytest.raises(ValueError, match="no anomalous image with a mask of bolt"):
            AuxiliaryData(sources=sources, validation=["bolt"]).setup()


class TestHeldOut:
    def test_categories_are_evaluated_and_not_trained_on(self, mvtec):
        data = of_mvtec(mvtec, validation=["cable"])
        assert (data.training_categories, data.held_out_categories) == (["bottle"], ["cable"])
        assert (data.training_data, data.testing_data) == (["MVTecAD/bottle"], ["MVTecAD/cable"])
        assert levels(data.train_data) == [101, 101, 102, 102]
        for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
            (batch,) = loader
            assert isinstance(batch, AuxiliaryBatch)
            assert batch.class_name == ["cable"] * 4
            assert batch.gt_label.tolist() == [True, True, False, False]
            assert batch.gt_mask.float().mean(dim=(1, 2)).tolist() == [0.5, 0.5, 0, 0]

    def test_without_any_there_is_nothing_to_evaluate(self, mvtec, caplog):
        with caplog.at_level(logging.INFO):
            data = of_mvtec(mvtec)
        assert data.val_dataloader() == data.test_dataloader() == []
        assert any(message.startswith("No category is held out") for message in caplog.messages)

    def test_evaluation_has_no_mosaics(self, mvtec):
        data = of_mvtec(mvtec, validation=["cable"], mosaic=1.0)
        assert levels(data.val_data) == [201, 201, 202, 202]

    def test_set_up_happens_once(self, mvtec):
        data = of_mvtec(mvtec)
        before = data.train_data
        data.setup("fit")
        assert data.train_data is before


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, "Give either sources or dataset; neither is given. Take dataset='mvtec'"),
            ({"sources": [], "dataset": "mvtec"}, "Give either sources or dataset; both are given"),
            ({"sources": []}, "sources is empty"),
            ({"dataset": "mvtek"}, "dataset='mvtek' is unknown. Choose mvtec or visa"),
            ({"dataset": "visa", "categories": ["bottle"]}, r"categories=\['bottle'\] must be some of visa's: candle"),
            ({"dataset": "visa", "categories": []}, r"categories=\[\] must be some of visa's"),
            (
                {"dataset": "mvtec", "validation": ["mug", "pen"]},
                "validation names mug, pen, but there are only bottle",
            ),
            ({"dataset": "mvtec", "categories": ["pill"], "validation": ["pill"]}, "holds all categories out"),
            ({"dataset": "mvtec", "mosaic": 1.5}, "mosaic=1.5 must be a probability"),
            ({"dataset": "mvtec", "image_size": 0}, "image_size=0 positive"),
            ({"sources": [{"class_path": "MVTecAD"}], "root": "."}, "root and categories belong to dataset"),
            ({"sources": [{"class_path": "MVTecAD"}], "categories": []}, "root and categories belong to dataset"),
            ({"sources": ["MVTecAD"]}, r"sources\[0\]='MVTecAD' must be a dictionary with the key class_path"),
            ({"sources": [{"class_path": "MVTecAD", "root": "."}]}, r"must be a dictionary with the key class_path"),
            ({"sources": [{"init_args": {}}]}, "must be a dictionary with the key class_path"),
            (
                {"sources": [{"class_path": "MVTecAD"}, {"class_path": "Foldr"}]},
                r"sources\[1\]: no class 'Foldr'\. Give a name in anomalib\.data, such as Folder",
            ),
            ({"sources": [{"class_path": "nowhere.Folder"}]}, "no class 'nowhere.Folder'"),
            ({"sources": [{"class_path": "anomalib.data.Foldr"}]}, "no class 'anomalib.data.Foldr'"),
            ({"sources": [{"class_path": "os.system"}]}, "os.system is no datamodule of images"),
            ({"sources": [{"class_path": "ImageItem"}]}, "ImageItem is no datamodule of images"),
            ({"sources": [{"class_path": "AnomalibDataModule"}]}, "AnomalibDataModule is no datamodule of images"),
            ({"sources": [{"class_path": "Avenue"}]}, "Avenue is no datamodule of images"),
            (
                {"sources": [{"class_path": "Folder", "init_args": {"name": "bolt"}}]},
                r"sources\[0\]: init_args of Folder do not fit: missing a required argument: 'normal_dir'",
            ),
            (
                {"sources": [{"class_path": "MVTecAD", "init_args": {"rot": "."}}]},
                "init_args of MVTecAD do not fit: got an unexpected keyword argument 'rot'",
            ),
            (
                {
                    "sources": [
                        {
                            "class_path": "anomalib_aprilgan.data.auxiliary.AuxiliaryData",
                            "init_args": {"dataset": "mvtec"},
                        }
                    ]
                },
                "AuxiliaryData cannot be one of its own sources",
            ),
        ],
    )
    def test_say_what_is_wrong(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            AuxiliaryData(**arguments)

    def test_missing_folder_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            of_mvtec(tmp_path / "nowhere")


class TestMosaic:
    @pytest.fixture
    def unlike(self, tmp_path):
        """Eight images of one category, grey levels 0, 30, ... 210, of different sizes; the last one is anomalous."""
        paths = [grey(tmp_path / f"{index}.png", 30 * index, side=8 + index) for index in range(8)]
        mask = save(tmp_path / "mask.png", np.full((15, 15), 255, dtype=np.uint8))
        return paths, [()] * 7 + [(mask,)]

    @staticmethod
    def tiles(item) -> tuple[int, ...]:
        """Grey levels of the four corners, which must be those of the whole quarters."""
        half = item.image.shape[-1] // 2
        image = (item.image[0] * 255).round()
        quarters = [image[:half, :half], image[:half, half:], image[half:, :half], image[half:, half:]]
        assert all(quarter.unique().numel() == 1 for quarter in quarters)
        return tuple(int(quarter[0, 0]) for quarter in quarters)

    def build(self, unlike, seed=0, **arguments):
        return dataset_of(*unlike, image_size=9, seed=seed, **{"mosaic": 1.0, **arguments})

    def test_four_images_lie_in_a_square_with_their_masks(self, unlike):
        dataset = self.build(unlike)
        seen = set()
        for item in (dataset[number] for number in range(0, 160, 8)):  # the first image in 20 epochs
            assert item.image.shape == (3, 9, 9)
            corners = [item.gt_mask[row, column].item() for row in (0, -1) for column in (0, -1)]
            assert corners == [level == 210 for level in self.tiles(item)]
            assert item.gt_label.item() == any(corners)
            assert item.image_path == unlike[0][self.tiles(item)[0] // 30]
            seen |= set(self.tiles(item))
        assert seen == set(range(0, 240, 30))

    def test_is_the_authors_apart_from_the_seams(self, tmp_path):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        blot = np.zeros((16, 16), dtype=np.uint8)
        blot[3:10, 5:12] = 255
        path, mask = save(tmp_path / "image.png", pixels), save(tmp_path / "mask.png", blot)
        item = dataset_of([path], [(mask,)], image_size=20, mosaic=1.0)[0]
        pasted = resize_image(torch.from_numpy(np.tile(pixels, (2, 2, 1))).permute(2, 0, 1) / 255, (20, 20))
        away = [*range(7), *range(13, 20)]
        difference = (item.image - pasted).abs()
        assert difference[:, away][:, :, away].max() < 1e-6
        assert difference.max() > 1e-3
        whole = resize_mask(torch.from_numpy(np.tile(blot, (2, 2))), (20, 20)) > 0.5
        assert torch.equal(item.gt_mask.as_subclass(torch.Tensor), whole)

    def test_stays_within_a_category(self, mvtec):
        dataset = of_mvtec(mvtec, mosaic=1.0).train_data
        for index in [*range(8)] * 4:
            item = dataset[index]
            assert {level // 100 for level in self.tiles(item)} == {{"bottle": 1, "cable": 2}[item.class_name]}

    def test_comes_as_often_as_asked_for(self, unlike):
        dataset = self.build(unlike, mosaic=0.25)
        mosaics = sum(len(set(self.tiles(dataset[number]))) > 1 for number in range(7, 800, 8))
        assert 15 < mosaics < 35  # of 100

    def test_seed_and_number_settle_it(self, unlike):
        first, again, other = (self.build(unlike, seed=seed) for seed in (0, 0, 1))
        epochs = [[self.tiles(first[i]) for i in range(start, start + 8)] for start in (0, 8)]
        assert epochs[0] != epochs[1]
        assert [self.tiles(first[i]) for i in range(8)] == epochs[0]  # whatever was read in between
        assert [self.tiles(again[i]) for i in reversed(range(16))] == [*epochs[1][::-1], *epochs[0][::-1]]
        assert [self.tiles(other[i]) for i in range(8)] != epochs[0]

    def test_numbers_run_on_through_the_same_rows(self, unlike):
        dataset = self.build(unlike, mosaic=0.0)
        numbers = (0, 7, 8, 15, 8000)
        assert [dataset[number].image_path for number in numbers] == [unlike[0][row] for row in (0, 7, 0, 7, 0)]
        assert [dataset[number].gt_label.item() for number in numbers] == [False, True, False, True, False]

    def test_does_not_touch_the_global_random_state(self, unlike):
        dataset, state = self.build(unlike), torch.get_rng_state()
        assert dataset[0].class_name == "bolt"
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.fixture
    def eight(self, tmp_path):
        """A source with eight images of different grey levels for test."""
        for kind in ("train", "test"):
            grey(tmp_path / "bottle" / kind / "good" / "0.png", 0)
        for index in range(1, 8):
            grey(tmp_path / "bottle" / "test" / "bad" / f"{index}.png", 30 * index)
            save(tmp_path / "bottle" / "ground_truth" / "bad" / f"{index}_mask.png", left_half())
        return tmp_path

    def test_epochs_differ_and_workers_do_not_matter(self, eight):
        def epochs(num_workers):
            data = of_mvtec(eight, categories=["bottle"], mosaic=1.0, num_workers=num_workers, train_batch_size=1)
            loader = data.train_dataloader()
            tiles = []
            for epoch in (0, 1):
                loader.sampler.set_epoch(epoch)  # as Lightning does
                tiles.append([self.tiles(batch.items[0]) for batch in loader])
            return tiles

        first, second = epochs(num_workers=2)
        assert len(first) == len(second) == 8
        assert first[0::2] != first[1::2]  # the workers take turns
        assert sorted(first) != sorted(second)
        assert epochs(num_workers=2) == epochs(num_workers=0) == [first, second]


class TestSynthetic:
    @pytest.fixture
    def good(self, tmp_path):
        """A source with twelve normal images and nothing else."""
        for index in range(12):
            grey(tmp_path / "good" / f"{index:02}.png", 100, side=40)
        return {"name": "bolt", "root": str(tmp_path), "normal_dir": "good"}

    def test_good_images_suffice_and_all_are_used(self, good, caplog):
        data = of_folder(good, synthetic=True, image_size=32)
        assert len(data.train_data) == 12
        items = [data.train_data[number] for number in range(48)]  # four epochs
        assert 12 < sum(item.gt_label.item() for item in items) < 36
        for item in items:
            unchanged = ~item.gt_mask
            assert item.gt_label == item.gt_mask.any()
            assert (item.image[:, unchanged] - 100 / 255).abs().max() < 1e-6
            assert item.image.min() >= 0
            assert item.image.max() <= 1
        assert any((item.image - 100 / 255).abs().max() > 0.1 for item in items)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_test_images_are_left_alone(self, mvtec):
        data = of_mvtec(mvtec, synthetic=True, image_size=32)
        assert set(data.train_data.samples.split) == {"train"}
        assert len(data.train_data) == 4

    def test_differs_between_epochs_but_not_in_validation(self, mvtec):
        data = of_mvtec(mvtec, synthetic=True, validation=["cable"], image_size=32, eval_batch_size=99)
        count = len(data.train_data)
        first, again, second = (
            torch.stack([data.train_data[number].image for number in range(start, start + 4 * count)])
            for start in (0, 0, 4 * count)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, second)
        (first,), (again,) = data.val_dataloader(), data.val_dataloader()
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.gt_mask, again.gt_mask)
        assert set(first.class_name) == {"cable"}

    def test_goes_with_mosaics(self, good):
        data = of_folder(good, synthetic=True, mosaic=1.0, image_size=64)
        items = [data.train_data[number] for number in range(8)]
        assert all(item.gt_label == item.gt_mask.any() for item in items)
        assert sum(item.gt_label.item() for item in items) >= 4  # 15 of 16 on average

    def test_does_not_touch_the_global_random_state(self):
        state = torch.get_rng_state()
        image, generator = torch.zeros(3, 32, 32), torch.Generator()
        results = [add_anomaly(image, generator.manual_seed(seed)) for seed in (1, 1, 2, 3, 4)]
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(results[0][0], results[1][0])
        assert image.abs().max() == 0
        assert len({tuple(mask.flatten().tolist()) for _, mask in results}) > 1

    def test_stays_between_0_and_1(self, monkeypatch):
        # Anomalib's generator leaves the range by some hundredths, about once in a thousand images.
        result = (torch.tensor([[[-0.05, 1.05]]]).repeat(3, 1, 1), torch.tensor([[[1.0, 0.0]]]))
        monkeypatch.setattr(auxiliary_dataset, "PerlinAnomalyGenerator", lambda probability: lambda image: result)
        image, mask = add_anomaly(torch.zeros(3, 1, 2), torch.Generator())
        assert (image[0].tolist(), mask.tolist()) == ([[0, 1]], [[True, False]])

    def test_source_without_normal_images_is_refused(self, mvtec):
        data = AuxiliaryData(dataset="mvtec", root=mvtec, categories=["bottle"], synthetic=True)
        for path in (mvtec / "bottle" / "train").rglob("*.png"):
            path.unlink()
        with pytest.raises(ValueError, match="There is no normal training image of bottle"):
            data.setup()


def test_masks_as_large_as_their_images(mvtec):
    data = of_mvtec(mvtec, categories=["bottle"])
    row = next(index for index, label in enumerate(data.train_data.samples.label_index) if label)
    save(Path(data.train_data.samples.mask_path.iloc[row][0]), np.ones((4, 6), np.uint8))
    with pytest.raises(ValueError, match=r"png has 8 x 8 pixels, its mask 6 x 4\. Give a mask of the same size"):
        data.train_data[row]


class TestLoaders:
    def test_workers_give_every_item_once(self, mvtec):
        data = of_mvtec(mvtec, num_workers=2, train_batch_size=3)
        batches = list(data.train_dataloader())
        assert [len(batch) for batch in batches] == [3, 3, 2]
        paths = [path for batch in batches for path in batch.image_path]
        assert sorted(paths) == list(data.train_data.samples.image_path)
        assert paths != sorted(paths)
        for batch in batches:
            assert [Path(path).parts[-4] for path in batch.image_path] == batch.class_name
            assert ["bad" in path for path in batch.image_path] == batch.gt_label.tolist()

    def test_seed_and_epoch_settle_the_order(self, mvtec):
        def order(seed, epoch):
            loader = of_mvtec(mvtec, seed=seed, train_batch_size=8).train_dataloader()
            loader.sampler.set_epoch(epoch)
            return [path for batch in loader for path in batch.image_path]

        assert order(seed=0, epoch=1) == order(seed=0, epoch=1)
        orders = {tuple(order(seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (7, 0))}
        assert len(orders) == 3
        assert len({frozenset(order) for order in orders}) == 1

    def test_numbers_run_on_from_epoch_to_epoch(self, mvtec):
        sampler = EpochSampler(of_mvtec(mvtec).train_data, world_size=1, rank=0, seed=0)
        assert sorted(sampler) == [*range(8)]
        sampler.set_epoch(3)
        assert sorted(sampler) == [*range(24, 32)]

    def test_processes_make_up_the_batches_of_one(self, mvtec):
        dataset = of_mvtec(mvtec).train_data
        alone = list(EpochSampler(dataset, world_size=1, rank=0, seed=0))
        shares = [list(EpochSampler(dataset, world_size=2, rank=rank, seed=0)) for rank in (0, 1)]
        for start in (0, 2):  # batches of four alone, of two a process
            assert {*shares[0][start : start + 2], *shares[1][start : start + 2]} == {*alone[2 * start : 2 * start + 4]}

    def test_datasets_travel_to_spawned_workers(self, mvtec):
        dataset = pickle.loads(pickle.dumps(of_mvtec(mvtec, mosaic=1.0).train_data))
        assert dataset[0].class_name == "bottle"


class Stub(AnomalibModule):
    """Learns one number and keeps what it is given."""

    def __init__(self, image_size: int = 4):
        super().__init__(
            pre_processor=CLIPPreProcessor(image_size), post_processor=False, evaluator=False, visualizer=False
        )
        self.weight = nn.Parameter(torch.zeros(()))
        self.model = nn.Identity()
        self.seen = {"fit": [], "validate": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.seen["fit"].append(batch)
        return (batch.image.mean() * self.weight - batch.gt_mask.float().mean()) ** 2

    def validation_step(self, batch, batch_idx):
        self.seen["validate"].append(batch)

    def test_step(self, batch, batch_idx):
        self.seen["test"].append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def trainer_arguments(self):
        return {}

    @property
    def learning_type(self):
        return LearningType.ONE_CLASS


@pytest.mark.filterwarnings("ignore")
class TestEngine:
    @staticmethod
    def run(data, tmp_path, **arguments) -> Stub:
        model = Stub(**arguments)
        engine = Engine(default_root_dir=tmp_path / "results", max_epochs=2, accelerator="cpu", logger=False, devices=1)
        engine.train(model, datamodule=data)
        return model

    def test_trains_and_evaluates_each_epoch(self, mvtec, tmp_path):
        data = AuxiliaryData(
            dataset="mvtec",
            root=mvtec,
            categories=["bottle", "cable"],
            validation=["cable"],
            image_size=4,
            num_workers=0,
        )
        model = self.run(data, tmp_path)
        assert [(type(batch), batch.class_name) for batch in model.seen["fit"]] == [
            (AuxiliaryBatch, ["bottle"] * 4)
        ] * 2
        assert all(batch.class_name == ["cable"] * 4 for batch in model.seen["validate"] + model.seen["test"])
        assert (len(model.seen["test"]), len(model.seen["validate"])) == (1, 3)  # one of them is the sanity check
        batch = model.seen["validate"][-1]
        mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
        expected = (201 / 255 - mean) / std  # normalised by the model
        torch.testing.assert_close(batch.image[2, :, 0, 0].as_subclass(torch.Tensor), expected)
        assert batch.gt_mask[0].int().tolist() == [[1, 1, 0, 0]] * 4
        assert model.weight != 0

    def test_is_content_without_validation(self, mvtec, tmp_path):
        data = AuxiliaryData(
            dataset="mvtec", root=mvtec, categories=["bottle", "cable"], image_size=4, num_workers=0, train_batch_size=4
        )
        model = self.run(data, tmp_path)
        assert [len(model.seen[stage]) for stage in ("fit", "validate", "test")] == [4, 0, 0]

    def test_refuses_a_model_of_another_size(self, mvtec, tmp_path):
        data = AuxiliaryData(dataset="mvtec", root=mvtec, categories=["bottle"], image_size=4, num_workers=0)
        with pytest.raises(ValueError, match=r"image_size=4, but the model's pre-processor resizes to \(8, 8\)"):
            self.run(data, tmp_path, image_size=8)

    def test_models_without_a_resize_are_fine(self, mvtec):
        data = of_mvtec(mvtec)
        data.trainer = SimpleNamespace(model=SimpleNamespace(pre_processor=None))
        data.setup("fit")
        assert len(data.train_data) == 8


class TestCommandLine:
    CONFIG = """
data:
  class_path: AuxiliaryData
  init_args:
    sources:
      - class_path: MVTecAD
        init_args: {root: ROOT, category: bottle}
      - class_path: anomalib.data.MVTecAD
        init_args: {root: ROOT, category: cable}
    validation: [cable]
    mosaic: 0.2
    image_size: 4
"""

    @pytest.fixture
    def parser(self):
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--config", action="config")
        parser.add_subclass_arguments(AnomalibDataModule, "data")
        return parser

    def test_yaml_and_its_dump_give_the_same_data(self, parser, mvtec):
        config = parser.parse_args(["--config", self.CONFIG.replace("ROOT", str(mvtec))])
        for given in (config, parser.parse_string(parser.dump(config))):
            data = parser.instantiate_classes(given).data
            assert isinstance(data, AuxiliaryData)
            assert (data.training_categories, data.held_out_categories) == (["bottle"], ["cable"])
            assert (data.mosaic, data.image_size, data.train_batch_size) == (0.2, 4, 8)
            data.setup()
            assert levels(data.train_data) != levels(data.val_data) == [201, 201, 202, 202]

    def test_shortcut_fits_on_one_line(self, parser):
        line = "--data AuxiliaryData --data.dataset visa --data.validation [candle] --data.synthetic true"
        data = parser.instantiate_classes(parser.parse_args(line.split())).data
        assert (len(data.training_categories), data.held_out_categories, data.synthetic) == (11, ["candle"], True)

    def test_typos_are_refused(self, parser):
        with pytest.raises(Exception, match="mosaik"):
            parser.parse_args(["--data", "AuxiliaryData", "--data.mosaik", "1"])
