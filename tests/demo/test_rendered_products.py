# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import os
from stat import S_IMODE

import cv2
import numpy as np
import pytest
from anomalib.data import MVTecAD
from PIL import Image

from anomalib_aprilgan.demo import RenderedProducts
from anomalib_aprilgan.demo import rendered_products as module
from anomalib_aprilgan.demo.defects import DEFECTS
from anomalib_aprilgan.demo.rendering import render

COUNTS = {"train_images": 3, "good_images": 2, "defective_images": 13}


@pytest.fixture
def products(tmp_path) -> RenderedProducts:
    return RenderedProducts("nut", root=tmp_path, image_size=48, **COUNTS)


def test_pictures_have_the_layout_of_mvtec_ad_and_exact_masks(products):
    products.prepare_data()
    products.setup()
    assert (len(products.train_data), len(products.test_data)) == (3, 15)
    assert sorted(path.name for path in (products.folder / "test").iterdir()) == sorted([*DEFECTS, "good"])
    first_kind = next(iter(DEFECTS))
    shot = render("nut", 0, part=5, defect=first_kind, size=48)
    picture = cv2.imread(str(products.folder / "test" / first_kind / "005.png"))[..., ::-1]
    mask = cv2.imread(str(products.folder / "ground_truth" / first_kind / "005_mask.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(picture, shot.image)
    np.testing.assert_array_equal(mask > 0, shot.mask)
    again = MVTecAD(root=products.folder.parent, category="nut", num_workers=0)
    again.setup()
    assert len(again.test_data) == 15


def test_every_file_shows_the_part_of_its_number_and_no_part_comes_twice(products):
    products.prepare_data()
    paths = [path for split in ("train", "test") for path in (products.folder / split).rglob("*.png")]
    assert sorted(int(path.stem) for path in paths) == list(range(18))
    assert len({path.read_bytes() for path in paths}) == 18
    for path in paths:
        kind = path.parent.name
        shot = render("nut", 0, int(path.stem), None if kind == "good" else kind, size=48)
        np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], shot.image)


def test_red_comes_first_and_blue_last_in_files_and_in_batches(tmp_path):
    brown = RenderedProducts("wood", root=tmp_path, image_size=48, **COUNTS)
    brown.setup()
    written = np.array(Image.open(brown.folder / "train" / "good" / "000.png")) / 255  # (48, 48, 3)
    read = next(iter(brown.train_dataloader())).image  # (3, 3, 48, 48)
    for red, green, blue in (written.mean((0, 1)), read.mean((0, 2, 3))):
        assert red > green + 0.05 > blue + 0.1


def test_cloth_shows_defects_of_its_own(tmp_path):
    cloth = RenderedProducts("nonwoven", root=tmp_path, image_size=32, **{**COUNTS, "defective_images": 14})
    cloth.prepare_data()
    assert sorted(path.name for path in (cloth.folder / "test").iterdir()) == sorted([
        *DEFECTS,
        "frayed",
        "worn",
        "good",
    ])


def test_batches_have_images_and_masks(products):
    products.setup()
    batch = next(iter(products.test_dataloader()))
    assert batch.image.shape == (8, 3, 48, 48)
    assert batch.gt_mask.shape == (8, 48, 48)


def test_pictures_are_written_once(products, monkeypatch):
    products.prepare_data()
    monkeypatch.setattr(module, "render", None)  # a second writing would fail
    products.prepare_data()


def test_who_may_open_the_folder_is_for_the_umask_to_say(products):
    before = os.umask(0o027)
    try:
        products.prepare_data()
    finally:
        os.umask(before)
    assert S_IMODE(products.folder.stat().st_mode) == 0o750
    assert list(products.folder.parent.iterdir()) == [products.folder]


def test_another_seed_is_another_product_line(tmp_path):
    first, second = (RenderedProducts("nut", root=tmp_path, seed=seed) for seed in (0, 1))
    assert first.folder != second.folder


def test_nothing_is_left_of_a_broken_writing(products, monkeypatch):
    monkeypatch.setattr(cv2, "imwrite", lambda *_args: False)
    with pytest.raises(OSError, match=r"000\.png cannot be written"):
        products.prepare_data()
    assert not list(products.folder.parent.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "cheese"}, "category='cheese' is unknown"),
        ({"train_images": 0, "good_images": -1}, "train_images=0, good_images=-1 must be at least 1"),
        ({"image_size": 4}, "image_size=4 must be the side of a square in pixels, at least 16"),
        ({"image_size": (64, 64)}, r"image_size=\(64, 64\) must be the side of a square"),
        ({"seed": -1}, "seed=-1 must be 0 or more"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RenderedProducts(**arguments)
