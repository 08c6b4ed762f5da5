# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The references of few-shot detection: where they come from and which are drawn."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from PIL import Image

from anomalib_aprilgan.data.image_files import UnreadableImageError
from anomalib_aprilgan.data.references import (
    draw_references,
    list_normal_training_images,
    list_source,
    load_references,
)

ABC = [Path("a.png"), Path("b.png"), Path("c.png")]


@pytest.fixture
def folder(tmp_path):
    """Three images in a folder and a subfolder, grey levels 0, 51 and 102, and a file that is none."""
    (tmp_path / "sub").mkdir()
    for level, name in ((0, "b.png"), (51, "a.jpg"), (102, "sub/c.png")):
        Image.fromarray(np.full((4, 4, 3), level, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


class TestSource:
    def test_folder_is_searched_with_its_subfolders_and_sorted(self, folder):
        expected = [folder / "a.jpg", folder / "b.png", folder / "sub" / "c.png"]
        assert list_source(folder) == list_source(str(folder)) == expected

    def test_list_keeps_its_order(self, folder):
        given = [str(folder / "sub" / "c.png"), folder / "a.jpg"]
        assert list_source(given) == [Path(path) for path in given]

    def test_file_that_is_named_twice_is_refused(self, folder):
        with pytest.raises(ValueError, match=r"names the same file more than once: .*a\.jpg"):
            list_source([folder / "a.jpg", folder / "b.png", str(folder / "a.jpg")])

    def test_single_image_is_a_source(self, folder):
        assert list_source(folder / "b.png") == [folder / "b.png"]

    def test_home_is_understood(self, folder, monkeypatch):
        monkeypatch.setenv("HOME", str(folder))
        assert list_source("~/sub") == list_source(["~/sub/c.png"]) == [folder / "sub" / "c.png"]

    @pytest.mark.parametrize("name", ["empty", "notes.txt"])
    def test_source_without_images_is_refused(self, folder, name):
        (folder / "empty").mkdir()
        with pytest.raises(
            ValueError, match=rf"few_shot_source='.*{name}' holds no images. Put at least k_shot normal"
        ):
            list_source(folder / name)

    def test_missing_folder_is_refused(self):
        with pytest.raises(FileNotFoundError, match=r"few_shot_source='/no/where' does not exist. Give a folder"):
            list_source("/no/where")

    def test_missing_files_of_a_list_are_named(self, folder):
        expected = f"names files that do not exist: no.png, {folder / 'sub'}."
        with pytest.raises(FileNotFoundError, match=re.escape(expected)):
            list_source(["no.png", folder / "b.png", folder / "sub"])

    def test_empty_list_is_refused(self):
        with pytest.raises(ValueError, match="few_shot_source is an empty list"):
            list_source([])


class TestDatamodule:
    def test_normal_training_images_come_in_their_order(self):
        samples = pd.DataFrame({"image_path": ["c.png", "x.png", "a.png"], "label_index": [0, 1, 0]})
        datamodule = SimpleNamespace(train_data=SimpleNamespace(samples=samples))
        assert list_normal_training_images(datamodule) == [Path("c.png"), Path("a.png")]

    @pytest.mark.parametrize("datamodule", [SimpleNamespace(), SimpleNamespace(train_data=None)])
    def test_datamodule_without_a_list_is_refused(self, datamodule):
        with pytest.raises(
            ValueError, match=r"SimpleNamespace lists no training images. Name references with few_shot"
        ):
            list_normal_training_images(datamodule)


class TestDraw:
    def test_draw_is_pinned(self):
        candidates = [Path(f"{number}.png") for number in range(10)]
        assert [path.stem for path in draw_references(candidates, 4, seed=0)] == ["6", "9", "0", "2"]
        assert [path.stem for path in draw_references(candidates, 4, seed=1)] == ["2", "1", "4", "0"]

    @given(number=st.integers(1, 30), seed=st.integers(0, 1000), data=st.data())
    def test_different_candidates_are_drawn_and_the_same_again(self, number, seed, data):
        candidates = [Path(f"{index}.png") for index in range(number)]
        k_shot = data.draw(st.integers(1, number))
        drawn = draw_references(candidates, k_shot, seed)
        assert len(set(drawn)) == len(drawn) == k_shot
        assert set(drawn) <= set(candidates)
        assert drawn == draw_references(tuple(candidates), k_shot, seed)

    def test_every_candidate_has_its_chance(self):
        drawn = Counter(draw_references(ABC, 1, seed)[0] for seed in range(300))
        assert all(70 < drawn[path] < 130 for path in ABC)

    @pytest.mark.parametrize("seed", range(3))
    def test_exactly_k_candidates_are_all_taken_in_their_order(self, seed):
        assert draw_references(ABC[::-1], 3, seed) == ABC[::-1]

    def test_too_few_candidates_are_refused(self):
        with pytest.raises(ValueError, match="k_shot=4, but there are only 3 normal images to take references from"):
            draw_references(ABC, 4, seed=0)


class TestLoading:
    def test_images_are_stacked_in_order(self, folder):
        images = load_references([folder / "b.png", folder / "sub" / "c.png"], None)
        assert images.shape == (2, 3, 4, 4)
        assert images.mean(dim=(1, 2, 3)).tolist() == pytest.approx([0.0, 0.4])

    def test_transform_sees_each_image_alone(self, folder):
        shapes = []

        def transform(image: torch.Tensor) -> torch.Tensor:
            shapes.append(tuple(image.shape))
            return image[:, :2, :2] + 1

        images = load_references([folder / "b.png", folder / "a.jpg"], transform)
        assert shapes == [(3, 4, 4)] * 2
        assert images.shape == (2, 3, 2, 2)
        assert images[0].unique().tolist() == [1.0]

    def test_images_of_16_bits_are_not_clipped(self, tmp_path):
        Image.fromarray(np.full((2, 2), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
        assert load_references([tmp_path / "deep.png"], None).max() == pytest.approx(0.5, abs=1e-4)

    def test_images_of_different_sizes_are_refused_by_name(self, folder):
        Image.fromarray(np.zeros((2, 3, 3), dtype=np.uint8)).save(folder / "small.png")
        expected = r"different sizes: \{'.*b.png': \(3, 4, 4\), '.*small.png': \(3, 2, 3\)\}. Use a pre_processor that"
        with pytest.raises(ValueError, match=expected):
            load_references([folder / "b.png", folder / "small.png"], None)

    def test_unreadable_image_is_named(self, folder):
        with pytest.raises(UnreadableImageError, match=r"notes.txt cannot be read as an image"):
            load_references([folder / "b.png", folder / "notes.txt"], None)
