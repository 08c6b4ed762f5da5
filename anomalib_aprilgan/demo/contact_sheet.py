# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""All categories at a glance: ``python -m anomalib_aprilgan.demo.contact_sheet FILE``.

Below its name each category has a good part and, below that, a defective one of the same product line with the
mask's outline.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .categories import CATEGORIES, OWN_DEFECTS
from .defects import DEFECTS
from .rendering import render

COLUMNS = 11
OUTLINE = (255, 0, 255)
CAPTION = 14  # height in pixels


def draw_contact_sheet(path: Path, size: int = 96, line: int = 1) -> None:
    """Write one picture of all categories.

    Args:
        path: File to write, of a type that OpenCV knows.
        size: Side of each part in pixels.
        line: The product line to show.
    """
    cells = []
    for number, category in enumerate(CATEGORIES):
        kinds = list(OWN_DEFECTS.get(category, DEFECTS))
        good = render(category, line, 0, None, size)
        bad = render(category, line, 1, kinds[number % len(kinds)], size)
        mask, square = bad.mask.astype(np.uint8), np.ones((3, 3), np.uint8)
        # Nothing is defective beyond the border, so what covers all is outlined there.
        edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        outlined = np.where(edge[..., None] > 0, np.array(OUTLINE, np.uint8), bad.image)
        cells.append(np.concatenate([_caption(category, size), good.image, outlined]))
    blank = np.full_like(cells[0], 255)
    cells += [blank] * (-len(cells) % COLUMNS)
    rows = [np.concatenate(cells[start : start + COLUMNS], axis=1) for start in range(0, len(cells), COLUMNS)]
    if not cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1]):
        msg = f"{path} cannot be written. Give a file such as sheet.png in a folder where you may write."
        raise OSError(msg)


def _caption(text: str, width: int) -> NDArray[np.uint8]:
    """Black on white, (CAPTION, width, 3)."""
    strip = Image.new("RGB", (width, CAPTION), "white")
    ImageDraw.Draw(strip).text((1, 0), text, fill="black")
    return np.asarray(strip)


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(draw_contact_sheet, as_positional=True)
