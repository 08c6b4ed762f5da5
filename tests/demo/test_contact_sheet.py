# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

import cv2
import numpy as np
import pytest

from anomalib_aprilgan.demo.categories import CATEGORIES
from anomalib_aprilgan.demo.contact_sheet import CAPTION, COLUMNS, draw_contact_sheet
from anomalib_aprilgan.demo.rendering import render


def test_sheet_shows_every_category_good_above_defective(tmp_path):
    draw_contact_sheet(tmp_path / "sheet.png", size=32)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    assert sheet.shape == (-(-len(CATEGORIES) // COLUMNS) * (CAPTION + 64), COLUMNS * 32, 3)
    assert sheet[:CAPTION, 32:64].min() < 100  # a name
    sheet = sheet[CAPTION:]
    second = render(CATEGORIES[1], 1, 0, size=32)
    np.testing.assert_array_equal(sheet[:32, 32:64], second.image)
    is_outline = (sheet == (255, 0, 255)).all(axis=2)
    for number, category in enumerate(CATEGORIES):
        row, column = divmod(number, COLUMNS)
        bad = is_outline[row * (CAPTION + 64) + 32 :, column * 32 :][:32, :32]
        assert bad.sum() > 8, category


def test_a_bad_path_is_named(tmp_path):
    with pytest.raises(OSError, match=r"nowhere/sheet\.png cannot be written"):
        draw_contact_sheet(tmp_path / "nowhere" / "sheet.png", size=32)
