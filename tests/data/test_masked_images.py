# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Images with masks of the same names, images without masks, and the same image in training and test."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalib_aprilgan.data import AuxiliaryData, MaskedImages
from anomalib_aprilgan.data.image_files import UnreadableImageError
from anomalib_aprilgan.data.shared_images import check_disjoint, shared_images

SIDE = 40


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``image`` with 0.png to 3.png, ``mask`` with masks, of which the odd ones mark one corner."""
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
        save(tmp_path / "image" / f"{index}.png", pixels)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[-1, -1] = index % 2
        save(tmp_path / "mask" / f"{index}_mask.png", mask)
    return tmp_path


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def masked(root: Path, **changes: Any) -> MaskedImages:
    return MaskedImages(**{"name": "scan", "image_dir": "image", "mask_dir": "mask", "root": root, **changes})


def auxiliary(*roots: Path, **changes: Any) -> AuxiliaryData:
    """The masked images of each folder, named by it."""
    sources = [
        {
            "class_path": "anomalib_aprilgan.data.MaskedImages",
            "init_args": {"name": root.name, "image_dir": "image", "mask_dir": "mask", "root": str(root)},
        }
        for root in roots
    ]
    return AuxiliaryData(sources=sources, **{"image_size": SIDE, "num_workers": 0, **changes})


class TestMaskedImages:
    """Pairs, labels and what is refused."""

    def test_images_with_empty_masks_are_normal(self, root):
        data = masked(root, num_workers=0)
        data.setup()
        assert data.name == "scan"
        assert data.test_data.samples.label_index.tolist() == [0, 1, 0, 1]
        batch = next(iter(data.test_dataloader()))
        assert batch.gt_label.tolist() == [False, True, False, True]
        assert batch.gt_mask.flatten(1).sum(dim=1).tolist() == [0, 1, 0, 1]

    def test_masks_may_have_the_very_name_of_the_image(self, root):
        for path in (root / "mask").iterdir():
            path.rename(path.with_name(path.name.replace("_mask", "")))
        data = masked(root)
        data.setup()
        assert len(data.test_data) == 4

    def test_anomalous_images_alone(self, root):
        for folder, ending in (("image", ""), ("mask", "_mask")):
            for index in (0, 2):
                (root / folder / f"{index}{ending}.png").unlink()
        data = masked(root)
        data.setup()
        assert data.test_data.samples.label_index.tolist() == [1, 1]
        source = auxiliary(root)
        source.setup()
        assert len(source.train_data) == 2

    @pytest.mark.parametrize("missing", ["image/1.png", "mask/1_mask.png"])
    def test_partner_is_missing(self, root, missing):
        (root / missing).unlink()
        with pytest.raises(ValueError, match=r"Files of .* without a partner, 1 in all: 1\."):
            masked(root).setup()

    def test_no_more_than_three_without_partner_are_named(self, root):
        (root / "mask" / "0_mask.png").rename(root / "mask" / "first.png")
        with pytest.raises(ValueError, match=r"without a partner, 2 in all: 0, first\. Name each"):
            masked(root).setup()
        (root / "mask" / "1_mask.png").rename(root / "mask" / "second.png")
        with pytest.raises(ValueError, match=r"partner, 4 in all: 0, 1, first, \.\.\.\. .* black all over"):
            masked(root).setup()

    def test_mask_of_another_size(self, root):
        save(root / "mask" / "1_mask.png", np.ones((20, 30), np.uint8))
        with pytest.raises(ValueError, match=r"1\.png has 40 x 40 pixels, its mask 30 x 20\. Give a mask of"):
            masked(root).setup()

    def test_two_masks_of_one_image(self, root):
        shutil.copy(root / "mask" / "0_mask.png", root / "mask" / "1.png")
        with pytest.raises(ValueError, match=r"mask holds two masks of one image, with _mask and without it: 1_mask\."):
            masked(root).setup()

    def test_folder_is_missing_or_empty(self, root):
        with pytest.raises(ValueError, match=r"mask_dir='.*masks' is not a folder"):
            masked(root, mask_dir="masks").setup()
        (root / "masks").mkdir()
        with pytest.raises(ValueError, match=r"mask_dir='.*masks' holds 0 image files"):
            masked(root, mask_dir="masks").setup()

    def test_name_that_two_images_share(self, root):
        shutil.copy(root / "image" / "1.png", root / "image" / "1.bmp")
        with pytest.raises(ValueError, match="holds 5 image files with 4 names"):
            masked(root).setup()

    def test_lossy_masks_are_told(self, root, caplog):
        Image.open(root / "mask" / "1_mask.png").save(root / "mask" / "1_mask.jpg")
        (root / "mask" / "1_mask.png").unlink()
        masked(root).setup()
        assert "compressed with loss" in caplog.text


class TestLabelsAlone:
    """Anomalous images without masks count, and no masks are handed out."""

    @pytest.fixture
    def folder(self, root) -> dict[str, Any]:
        for index in (1, 3):
            save(root / "bad" / f"{index}.png", np.array(Image.open(root / "image" / f"{index}.png")))
            (root / "image" / f"{index}.png").unlink()
        init_args = {"name": "bolt", "root": str(root), "normal_dir": "image", "normal_test_dir": "image"}
        return {"class_path": "Folder", "init_args": {**init_args, "abnormal_dir": "bad"}}

    def test_batches_have_labels_and_no_masks(self, folder):
        data = AuxiliaryData(sources=[folder], labels_only=True, mosaic=0.5, image_size=SIDE, num_workers=0)
        data.setup()
        batch = next(iter(data.train_dataloader()))
        assert batch.gt_mask is None
        assert batch.image.shape == (4, 3, SIDE, SIDE)

    def test_labels_are_those_of_the_folders(self, folder):
        data = AuxiliaryData(sources=[folder], labels_only=True, image_size=SIDE, num_workers=0)
        data.setup()
        labels = {
            Path(item.image_path).stem: bool(item.gt_label) for item in map(data.train_data.__getitem__, range(4))
        }
        assert labels == {"0": False, "1": True, "2": False, "3": True}

    def test_else_masks_are_asked_for(self, folder):
        with pytest.raises(ValueError, match=r"no anomalous image with a mask of bolt.* or labels_only=True"):
            AuxiliaryData(sources=[folder], image_size=SIDE).setup()


class TestSharedImages:
    """Found by their pixels, under any name and in any form that loses none."""

    def test_copies_are_found(self, root, tmp_path):
        images = sorted((root / "image").iterdir())
        copy = shutil.copy(images[2], tmp_path / "renamed.png")
        assert shared_images(images[:3], [images[3], copy]) == [(images[2], Path(copy))]
        assert shared_images(images[:2], images[2:]) == []

    @pytest.mark.parametrize(
        ("name", "mode", "options"),
        [
            ("other.png", "RGB", {"compress_level": 0}),
            ("other.bmp", "RGB", {}),
            ("other.tiff", "RGB", {}),
            ("other.png", "RGBA", {}),
        ],
    )
    def test_pixels_in_other_bytes_are_found(self, root, name, mode, options, tmp_path):
        original = root / "image" / "1.png"
        Image.open(original).convert(mode).save(tmp_path / name, **options)
        assert (tmp_path / name).read_bytes() != original.read_bytes()
        assert shared_images([original], [tmp_path / name]) == [(original, tmp_path / name)]

    def test_metadata_do_not_matter(self, root, tmp_path):
        image = Image.open(root / "image" / "1.png")
        exif = image.getexif()
        exif[0x010E] = "station 7"
        image.save(tmp_path / "described.png", exif=exif)
        assert len(shared_images([tmp_path / "described.png"], [root / "image" / "1.png"])) == 1

    def test_grey_pixels_are_the_same_in_any_mode(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE)).astype(np.uint8)
        save(tmp_path / "grey.png", pixels)
        save(tmp_path / "rgb.png", np.stack([pixels] * 3, axis=2))
        save(tmp_path / "sixteen.png", pixels.astype(np.uint16) * 257)
        assert len(shared_images([tmp_path / "grey.png"], [tmp_path / "rgb.png", tmp_path / "sixteen.png"])) == 2

    def test_sixteen_bit_images_are_not_clipped(self, tmp_path):
        for name, level in (("first", 1000), ("second", 2000)):
            save(tmp_path / f"{name}.png", np.full((SIDE, SIDE), level, np.uint16))
        assert shared_images([tmp_path / "first.png"], [tmp_path / "second.png"]) == []

    def test_same_pixels_in_another_shape_are_another_image(self, tmp_path):
        save(tmp_path / "wide.png", np.zeros((2, 8, 3), np.uint8))
        save(tmp_path / "high.png", np.zeros((8, 2, 3), np.uint8))
        assert shared_images([tmp_path / "wide.png"], [tmp_path / "high.png"]) == []

    @pytest.mark.parametrize("kept", [0, 200])
    def test_unreadable_file_is_named(self, root, kept):
        broken = root / "image" / "2.png"
        broken.write_bytes(broken.read_bytes()[:kept])
        with pytest.raises(UnreadableImageError, match=r"2\.png cannot be read as an image"):
            shared_images([root / "image" / "1.png"], [broken])

    def test_error_names_them(self, root):
        images = sorted((root / "image").iterdir())
        with pytest.raises(ValueError, match=r"2 images are in training and in test, .*1\.png and .*1\.png"):
            check_disjoint(images[:3], images[1:3])

    def test_training_data_refuse_them(self, root, tmp_path):
        other = tmp_path / "other"
        for folder in ("image", "mask"):
            shutil.copytree(root / folder, other / folder)
        with pytest.raises(ValueError, match="4 images are in training and in test"):
            auxiliary(root, other, validation=["other"]).setup()
        for path in (other / "image").iterdir():
            save(path, 255 - np.array(Image.open(path)))
        data = auxiliary(root, other, validation=["other"])
        data.setup()
        assert (len(data.train_data), len(data.test_data)) == (4, 4)
