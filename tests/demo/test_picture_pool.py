# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

from collections import Counter

import numpy as np
import pytest

from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING, CLIP_TRAINING, HELD_OUT
from anomalib_aprilgan.demo.clip_batches import vary
from anomalib_aprilgan.demo.picture_pool import NAMED, SHARES, Pair, PicturePool, _category, _generator, draw_pair


def test_pairs_are_read_as_they_were_drawn(tmp_path):
    pool = PicturePool(tmp_path, pairs=5, size=24, seed=3)
    pool.draw(processes=1)
    assert len(pool) == 5
    pairs = list(pool)
    for number in (0, 4):
        drawn = draw_pair(3, number, 24)
        np.testing.assert_array_equal(pairs[number].images, drawn.images)
        np.testing.assert_array_equal(pairs[number].mask, drawn.mask)
        assert pairs[number].category == drawn.category
    assert all(pair.mask.any() for pair in pairs)


def test_only_missing_files_are_drawn(tmp_path):
    pool = PicturePool(tmp_path, pairs=2, size=16, seed=0)
    pool.draw(processes=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    pool.draw(processes=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    kept, lost = sorted(path for path in before if "masks" not in path.name), len(before)
    kept[0].unlink()
    pool.draw(processes=1)
    assert len(list(tmp_path.iterdir())) == lost


def test_training_pictures_are_of_training_categories_in_their_shares():
    drawn = Counter(_category(_generator(0, number)) for number in range(2000))
    assert set(drawn) == set(CLIP_TRAINING)
    assert not set(drawn) & {*ADAPTER_TRAINING, *HELD_OUT}
    for category, share in SHARES.items():
        assert drawn[category] / 2000 == pytest.approx(share, abs=0.04)
    rest = 1 - sum(SHARES.values())
    assert sum(drawn[category] for category in NAMED) / 2000 == pytest.approx(rest, abs=0.04)


@pytest.mark.parametrize("seed", range(20))
def test_varied_pictures_keep_most_of_the_defect_where_it_shows(seed):
    images = np.full((2, 64, 64, 3), 200, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:20, 30:50] = True
    images[1][mask] = 20
    shown = vary(Pair(images, mask, "tile"), 64, np.random.default_rng(seed))
    assert shown.images.shape == (2, 64, 64, 3)
    assert shown.mask.sum() >= 0.6 * mask.sum()
    changed = np.abs(shown.images[1].astype(int) - shown.images[0]).mean(-1) > 60
    assert (changed == shown.mask).mean() > 0.97
