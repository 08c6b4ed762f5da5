# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

from collections import Counter

import numpy as np
import pytest

from anomalib_aprilgan.demo import picture_pool
from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING, CLIP_TRAINING, HELD_OUT, OWN_DEFECTS
from anomalib_aprilgan.demo.clip_batches import FADED, FAINTEST, vary
from anomalib_aprilgan.demo.picture_pool import OWN_SHARE, Pair, PicturePool, _order, draw_pair

SHARES = {"invented_part": 0.4, "nonwoven": 0.1, "paper": 0.0}


@pytest.mark.parametrize("processes", [1, 2])
def test_pairs_are_read_as_they_were_drawn(tmp_path, processes, monkeypatch):
    monkeypatch.setattr(picture_pool, "CHUNK", 2)
    pool = PicturePool(tmp_path, pairs=5, size=24, seed=3, shares=SHARES)
    pool.draw(processes)
    assert len(pool) == 6
    pairs = list(pool)
    for number in (0, 4):
        drawn = draw_pair(3, number, 24, SHARES)
        np.testing.assert_array_equal(pairs[number].images, drawn.images)
        np.testing.assert_array_equal(pairs[number].mask, drawn.mask)
        assert pairs[number].category == drawn.category
        assert pairs[number].is_same_part == drawn.is_same_part
    assert all(pair.mask.any() for pair in pairs)


def test_half_of_the_pairs_show_one_part_twice():
    pairs = [draw_pair(0, number, 32, SHARES) for number in range(24)]
    assert 6 <= sum(pair.is_same_part for pair in pairs) <= 18
    for pair in pairs:
        if pair.mask.all():
            continue  # a defect all over differs everywhere, in the same part as well
        differing = (np.abs(pair.images[0].astype(int) - pair.images[1]).max(-1) > 0).mean()
        assert (differing < 0.7) == pair.is_same_part  # sensor noise is another in another part


def test_only_missing_files_are_drawn(tmp_path):
    pool = PicturePool(tmp_path, pairs=2, size=16, seed=0, shares=SHARES)
    pool.draw(processes=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    pool.draw(processes=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    kept, lost = sorted(path for path in before if "masks" not in path.name), len(before)
    kept[0].unlink()
    pool.draw(processes=1)
    assert len(list(tmp_path.iterdir())) == lost


def test_training_pictures_are_of_training_categories_in_their_shares():
    orders = [_order(0, number, SHARES) for number in range(4000)]
    drawn = Counter(order.category for order in orders)
    others = {*CLIP_TRAINING} - {*SHARES}
    assert set(drawn) == {*others, "invented_part", "nonwoven"}
    assert not set(drawn) & {*ADAPTER_TRAINING, *HELD_OUT}
    own = [order.defect in OWN_DEFECTS["nonwoven"] for order in orders if order.category == "nonwoven"]
    assert np.mean(own) == pytest.approx(OWN_SHARE, abs=0.1)
    assert drawn["invented_part"] / 4000 == pytest.approx(0.4, abs=0.03)
    assert drawn["nonwoven"] / 4000 == pytest.approx(0.1, abs=0.02)
    for category in others:
        assert drawn[category] / 4000 == pytest.approx(0.5 / len(others), abs=0.015)


@pytest.mark.parametrize("shares", [{"invented_part": 0.7, "nonwoven": 0.4}, {"wood": 0.0}, {"nonwofen": 0.1}])
def test_shares_of_more_than_all_and_of_no_training_category_are_refused(tmp_path, shares):
    with pytest.raises(ValueError, match=r"shares=\{.* must be at most 1 in all, of categories among grid, "):
        PicturePool(tmp_path, pairs=2, size=16, seed=0, shares=shares)


def test_pictures_of_other_shares_are_others(tmp_path):
    for shares in ({"invented_part": 1.0}, {"paper": 0.0, "nonwoven": 1.0}):
        pool = PicturePool(tmp_path, pairs=2, size=16, seed=0, shares=shares)
        pool.draw(processes=1)
        category = max(shares, key=shares.__getitem__)
        assert [pair.category for pair in pool] == [category] * 2
        for number, pair in enumerate(pool):
            np.testing.assert_array_equal(pair.images, draw_pair(0, number, 16, {category: 1.0}).images)


@pytest.mark.parametrize("seed", range(20))
def test_varied_pictures_keep_most_of_the_defect_where_it_shows(seed):
    images = np.full((2, 64, 64, 3), 200, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:20, 30:50] = True
    images[1][mask] = 20
    shown = vary(Pair(images, mask, "tile", is_same_part=False), 64, np.random.default_rng(seed))
    assert shown.images.shape == (2, 64, 64, 3)
    assert shown.mask.sum() >= 0.6 * mask.sum()
    changed = np.abs(shown.images[1].astype(int) - shown.images[0]).mean(-1) > 60
    assert (changed == shown.mask).mean() > 0.97


@pytest.mark.parametrize("seed", range(20))
def test_both_pictures_are_shown_in_the_same_colours(seed):
    images = np.full((2, 64, 64, 3), (200, 120, 40), np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[24:32, 24:32] = True
    images[1][mask] = 255
    shown = vary(Pair(images, mask, "tile", is_same_part=False), 32, np.random.default_rng(seed))
    good, bad = shown.images[:, ~shown.mask].mean(1)
    np.testing.assert_allclose(good, bad, atol=5)  # channels are at least 60 apart, if there is colour


@pytest.mark.parametrize(("rows", "columns", "is_defect"), [(2, 1, True), (8, 8, False)], ids=["stripes", "dots"])
def test_a_pixel_is_defective_if_a_third_of_it_was(rows, columns, is_defect):
    mask = np.zeros((64, 64), bool)
    mask[::rows, ::columns] = True
    pair = Pair(np.zeros((2, 64, 64, 3), np.uint8), mask, "tile", is_same_part=False)
    for seed in range(20):  # 2.8 to 4 pixels on a side become one
        assert (vary(pair, 16, np.random.default_rng(seed)).mask == is_defect).all()


def test_defects_fade_only_where_the_same_part_is_shown():
    images, mask = np.full((2, 32, 32, 3), 160, np.uint8), np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    images[1][mask] = 60

    def strengths(*, is_same_part: bool) -> list[float]:
        pair = Pair(images, mask, "tile", is_same_part)
        shown = [vary(pair, 32, np.random.default_rng(seed)).images.astype(float) for seed in range(200)]
        # A negative turns the sign; brightness scales the difference by 0.75 to 1.2.
        return [abs(good.mean() - bad.mean()) * 1024 / 256 / 100 for good, bad in shown]

    always, at_times = np.array(strengths(is_same_part=False)), np.array(strengths(is_same_part=True))
    assert always.min() > 0.7
    assert at_times.min() > 0.7 * FAINTEST
    assert (at_times < 0.7).mean() == pytest.approx(FADED * (0.7 - FAINTEST) / (1 - FAINTEST), abs=0.1)
