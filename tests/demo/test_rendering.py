# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

from itertools import combinations

import numpy as np
import pytest

from anomalib_aprilgan.demo.categories import ADAPTER_TRAINING, CATEGORIES, CLIP_TRAINING, HELD_OUT, defects_of
from anomalib_aprilgan.demo.cloth import fibrous
from anomalib_aprilgan.demo.defects import DEFECTS, Damage, stain
from anomalib_aprilgan.demo.drawing import Product, fill, look
from anomalib_aprilgan.demo.objects import OBJECTS
from anomalib_aprilgan.demo.rendering import RENDERER, SMALLEST_DEFECT, Rendered, render

# Parts 0, 1, ... of line 2, none of them with letters: category, defect, means of 4 x 4 areas, means of red, green and
# blue, and the mean step from pixel to pixel.
PINNED_RENDERER = 9
FINGERPRINTS = """\
wood good 130 139 136 127 147 152 138 122 170 154 135 132 167 150 141 162 186 142 103 10
knit scratch 87 100 89 100 80 116 92 105 81 100 116 107 85 91 112 107 98 98 98 9
gear crack 80 104 116 83 121 151 158 125 126 167 158 117 100 129 130 98 119 133 117 7
leather hole 38 36 36 35 38 38 37 38 39 38 39 40 44 40 40 41 39 38 38 5
tile stain 130 119 141 140 143 138 147 148 155 140 134 138 161 155 152 146 120 90 220 3
brick contamination 121 95 132 136 122 125 128 131 117 120 122 124 112 115 117 119 119 119 124 4
bottle dent 111 145 141 131 167 143 173 144 179 150 192 145 122 141 157 133 147 155 143 5
screw discolouration 216 193 194 223 194 119 147 204 205 74 71 206 232 209 214 249 191 182 180 5
nut missing 14 39 25 17 42 109 95 54 57 86 92 57 13 66 63 18 64 56 39 3
grass fibre 92 103 109 116 107 107 108 121 102 102 110 121 97 107 109 120 108 108 108 4
grid deformation 94 99 88 105 111 118 98 110 121 122 105 120 121 113 110 134 104 121 108 5
marble misplaced 91 70 61 71 73 85 121 67 73 73 65 52 79 65 56 48 68 75 73 3
bearing burn 153 143 140 153 152 134 133 149 133 107 135 157 155 153 151 164 145 145 145 7
wool frayed 97 100 99 101 108 108 110 112 120 119 121 121 128 127 128 129 114 114 114 5
nonwoven worn 190 187 176 175 183 172 166 161 172 163 158 148 160 152 141 134 143 178 173 43
"""


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
    parts = [render(category, 1, part, size=64) for part in range(6)]
    lines = [parts[0], *(render(category, line, 0, size=64) for line in range(2, 12))]
    assert parts[0].image.shape == (64, 64, 3)
    assert parts[0].image.dtype == np.uint8
    assert not parts[0].mask.any()
    np.testing.assert_array_equal(parts[0].image, render(category, 1, 0, size=64).image)
    assert difference(parts[0].image, parts[1].image).any()

    def distances(shots: list[Rendered]) -> list[float]:
        """Between the mean colours of each two pictures."""
        means = [shot.image.mean((0, 1)) for shot in shots]
        return [np.abs(one - other).max() for one, other in combinations(means, 2)]

    # With colours drawn anew for each part these two would be equal, but for chance.
    assert np.mean(distances(parts)) < 0.6 * np.mean(distances(lines))


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
    # Dark cells are worn down to what is as dark.
    assert (changed[bad.mask] > 2).mean() > (0.4 if (category, defect) == ("solar_cell", "missing") else 0.7)


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """Spread of the grey levels under a mask."""
    return image.astype(float).mean(axis=2)[mask].std()


def steps(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean step from pixel to pixel under a mask, in grey levels."""
    return np.abs(np.diff(image.astype(float).mean(axis=2), axis=1))[mask[:, 1:] & mask[:, :-1]].mean()


@pytest.mark.parametrize("part", range(15))
def test_pictures_stay_as_they_are_while_the_renderer_keeps_its_number(part):
    category, kind, *pinned = FINGERPRINTS.splitlines()[part].split()
    image = render(category, 2, part, None if kind == "good" else kind).image
    areas = image.reshape(4, 56, 4, 56, 3).mean((1, 3, 4))
    found = [*areas.ravel(), *image.mean((0, 1)), steps(image, np.ones((224, 224), bool))]
    told = "Pictures have changed: raise RENDERER, so that old files are not taken for new ones, then pin anew."
    assert found == pytest.approx([int(level) for level in pinned], abs=1), told
    assert RENDERER == PINNED_RENDERER, "RENDERER has changed: pin the fingerprints anew, and the number with them."


@pytest.mark.parametrize("line", range(6))
def test_wood_is_brown_in_every_line(line):
    red, green, blue = render("wood", line, size=64).image.mean((0, 1))
    assert red > green + 10 > blue + 20


def test_masks_are_the_pixels_that_a_defect_covers_at_least_half(monkeypatch):
    shares = np.repeat(np.float32([0, 0.25, 0.49, 0.5, 0.75, 1]), 4)  # from left to right
    covered = np.tile(shares, (24, 1))
    monkeypatch.setitem(DEFECTS, "hole", lambda _view, product, *_: Damage(product, covered))
    np.testing.assert_array_equal(render("leather", defect="hole", size=24).mask, np.tile(np.arange(24) >= 12, (24, 1)))


def test_from_part_to_part_a_defect_lies_elsewhere_in_any_quarter_of_the_picture():
    holes = [render("leather", part=part, defect="hole", size=64).mask for part in range(16)]
    centres = np.array([np.argwhere(hole).mean(0) for hole in holes])
    assert {tuple(quadrant) for quadrant in (centres < 32).tolist()} == {(a, b) for a in (0, 1) for b in (0, 1)}


@pytest.mark.parametrize("seed", range(6))
def test_a_quarter_to_six_tenths_of_a_pattern_show_through_a_stain(seed):
    view = look(64)
    stripes = fill(view, (0.3, 0.3, 0.3))
    stripes[:, ::2] += np.float32(0.1)
    product, mask = stain(view, Product(stripes, np.ones((64, 64), np.float32)), (0, 0), np.random.default_rng(seed))
    inside = (mask[:, 1:] == 1) & (mask[:, :-1] == 1)
    left = np.median(np.abs(np.diff(product.image, axis=1))[inside]) / 0.1
    assert 0.25 <= left <= 0.6


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
    with pytest.raises(ValueError, match=r"defect='frayed' must be None or one of scratch, .*burn, which"):
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
        ({"category": "coin", "line": -1}, "line=-1 and part=0 must be 0 or more"),
        ({"category": "coin", "part": -2}, "line=0 and part=-2 must be 0 or more"),
        ({"category": "coin", "size": 8}, "size=8 must be at least 16 pixels; 224 is"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        render(**arguments)
