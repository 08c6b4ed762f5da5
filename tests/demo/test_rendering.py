# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING, CATEGORIES, CLIP_TRAINING, HELD_OUT, defects_of
from anomalib_aprilgan.demo.cloth import fibrous
from anomalib_aprilgan.demo.defects import DEFECTS
from anomalib_aprilgan.demo.drawing import look
from anomalib_aprilgan.demo.objects import OBJECTS
from anomalib_aprilgan.demo.rendering import SMALLEST_DEFECT, render


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Largest difference of the channels, in grey levels."""
    return np.abs(a.astype(int) - b.astype(int)).max(axis=2)


def widened(mask: np.ndarray, reach: int) -> np.ndarray:
    """The mask and all that lies up to so many pixels from it, (S, S)."""
    size, padded = len(mask), np.pad(mask, reach)
    sides = range(2 * reach + 1)
    return np.max([padded[i : i + size, j : j + size] for i in sides for j in sides], axis=0)


def test_split_is_public_fixed_and_never_mixed():
    groups = [set(CLIP_TRAINING), set(ADAPTER_TRAINING), set(HELD_OUT)]
    assert sum(map(len, groups)) == len(CATEGORIES) == len(set.union(*groups))
    assert set(HELD_OUT) == {"carpet", "leather", "tile", "bottle", "coin", "nut", "pill", "circuit_board"}
    assert set(ADAPTER_TRAINING) == {"wood", "perforated_sheet", "knit", "wool", "gear", "lens", "capsule"}
    assert len(CATEGORIES) >= 20
    assert len(DEFECTS) >= 7


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_product_line_keeps_its_design_from_part_to_part(category):
    first, again, second = (
        render(category, 1, 0, size=64),
        render(category, 1, 0, size=64),
        render(category, 1, 1, size=64),
    )
    other_lines = [render(category, line, 0, size=64) for line in (2, 3, 4, 5)]
    assert first.image.shape == (64, 64, 3)
    assert first.image.dtype == np.uint8
    assert not first.mask.any()
    np.testing.assert_array_equal(first.image, again.image)
    assert difference(first.image, second.image).any()

    def palette(image: np.ndarray) -> np.ndarray:
        return image.reshape(-1, 3).mean(0)

    within = np.abs(palette(first.image) - palette(second.image)).max()
    between = [np.abs(palette(first.image) - palette(other.image)).max() for other in other_lines]
    assert within < max(between)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_shows_on_every_product_and_only_under_its_mask(category, defect):
    good, bad = render(category, 0, 7, size=96), render(category, 0, 7, defect, size=96)
    changed = difference(good.image, bad.image)
    assert bad.mask.mean() >= SMALLEST_DEFECT
    # Blur, noise and the soft edges of the largest defects change a little outside; nothing else does.
    near = widened(bad.mask, 5)
    assert changed[~near].max(initial=0) <= 60
    assert (changed[~near] > 12).mean() < 0.02
    assert changed[bad.mask].mean() > changed[~near].mean() + 2


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Spread of the grey levels under a mask."""
    return image.astype(float).mean(axis=2)[mask].std()


def steps(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean step from pixel to pixel under a mask, in grey levels."""
    return np.abs(np.diff(image.astype(float).mean(axis=2), axis=1))[mask[:, 1:] & mask[:, :-1]].mean()


@pytest.mark.parametrize(
    ("angle", "along", "across"),
    [(0, (0, 8), (8, 0)), (np.pi / 2, (8, 0), (0, 8)), (np.pi / 4, (6, 6), (6, -6)), (-np.pi / 4, (6, -6), (6, 6))],
)
def test_fibres_are_long_along_x_whichever_way_that_points_in_the_picture(angle, along, across):
    fibres = fibrous(look(256, angle), np.random.default_rng(0), length=0.3, width=0.03, smoothness=0.5)
    assert fibres.mean() == pytest.approx(0, abs=0.3)
    assert fibres.std() == pytest.approx(1, abs=1e-4)
    # Eight pixels are a fifth of the length, and two widths: correlations of e ** -0.2 and e ** -2.
    assert (fibres * np.roll(fibres, along, (0, 1))).mean() == pytest.approx(np.exp(-0.21), abs=0.12)
    assert (fibres * np.roll(fibres, across, (0, 1))).mean() == pytest.approx(np.exp(-2.1), abs=0.12)


@pytest.mark.parametrize("cloth", ["nonwoven", "wool"])
@pytest.mark.parametrize("line", range(6))
def test_frayed_cloth_is_rough_and_stands_out_where_the_mask_is(cloth, line):
    good, bad = render(cloth, line), render(cloth, line, defect="frayed")
    assert SMALLEST_DEFECT <= bad.mask.mean() < 0.1
    assert steps(bad.image, bad.mask) > 1.2 * steps(good.image, bad.mask)
    assert contrast(bad.image, bad.mask) > 1.2 * contrast(good.image, bad.mask)
    assert difference(good.image, bad.image)[~widened(bad.mask, 3)].max() <= 1


@pytest.mark.parametrize("cloth", ["nonwoven", "wool"])
@pytest.mark.parametrize("line", range(6))
def test_worn_cloth_has_shorter_fibres_all_over_and_neither_another_tone_nor_another_contrast(cloth, line):
    good, bad = render(cloth, line), render(cloth, line, defect="worn")
    assert bad.mask.all()
    assert steps(bad.image, bad.mask) > 1.01 * steps(good.image, bad.mask)  # fine grain hides some of it
    assert bad.image.mean((0, 1)) == pytest.approx(good.image.mean((0, 1)), abs=3)
    assert contrast(bad.image, bad.mask) == pytest.approx(contrast(good.image, bad.mask), rel=0.15)


def test_defects_of_cloth_are_no_other_products():
    own = {category: set(defects_of(category)) - set(DEFECTS) for category in CATEGORIES}
    cloth = {"frayed", "worn"}
    assert {category: kinds for category, kinds in own.items() if kinds} == {"nonwoven": cloth, "wool": cloth}
    with pytest.raises(ValueError, match=r"defect='frayed' must be None or one of scratch, .*burn, and size=64"):
        render("coin", defect="frayed", size=64)


@pytest.mark.parametrize("category", ["perforated_sheet", "label", "coin"])
def test_dents_bend_no_pattern_outside_of_their_mask(category):
    good, bad = render(category, 0, 1), render(category, 0, 1, "dent")
    changed = difference(good.image, bad.image)
    near = widened(bad.mask, 2)  # focus and the lens blur it this far
    assert changed[~near].max() <= 1
    assert np.median(changed[bad.mask]) > 8


@pytest.mark.parametrize(
    ("category", "defect", "size"),
    [("coin", "hole", 17), ("coin", "hole", 112), ("coin", "hole", 224), ("nonwoven", "frayed", 112)],
)
def test_any_size_shows_the_same_scene(category, defect, size):
    small, large = render(category, 3, 2, defect, size), render(category, 3, 2, defect, 2 * size)
    centre, centre_of_large = (np.argwhere(shot.mask).mean(0) / len(shot.mask) for shot in (small, large))
    np.testing.assert_allclose(centre, centre_of_large, atol=0.08)


def test_objects_lie_on_a_background_and_textures_fill_the_picture():
    assert {"coin", "nut", "bottle"} <= OBJECTS.keys()
    corners = render("coin", 1, 0, size=64).image[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
    assert np.ptp(corners, axis=0).max() < 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"category": "cheese"}, "category='cheese' is unknown. Choose one of grid"),
        ({"category": "coin", "defect": "rust"}, "defect='rust' must be None or one of scratch"),
        ({"category": "coin", "size": 8}, "size=8 at least 16"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        render(**arguments)
