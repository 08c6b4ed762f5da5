# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Textures cut from the photographs that scikit-image ships: brick, grass and gravel, public domain, 512 px, grey."""

from functools import cache, partial

import cv2
import numpy as np
import skimage.data

from .drawing import Draw, Image, Product, View, colour


def photograph(name: str, view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A tinted cut-out; the line fixes scale, tint and contrast, the part the place.

    Args:
        name (str): ``brick``, ``grass`` or ``gravel``.
        view (View): How the camera sees it.
        line (np.random.Generator): Draws what the product line fixes.
        part (np.random.Generator): Draws what differs from part to part.

    Returns:
        Product: A texture that fills the picture.
    """
    reach = line.uniform(60, 130)  # photograph's pixels in one product unit
    dark, light = colour(line, (0.0, 0.35), 0.3), colour(line, (0.6, 1.0), 0.3)
    level = max(0, round(np.log2(max(1.0, reach * view.pixel))))
    picture = _pyramid(name, level)
    x, y = part.uniform(130, 380, 2)
    columns, rows = (view.x * reach + x) / 2**level, (view.y * reach + y) / 2**level
    grey = cv2.remap(
        picture, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    image = dark + (light - dark) * grey[..., None]  # (S, S, 3)
    return Product(image.astype(np.float32), np.ones_like(view.x))


@cache
def _pyramid(name: str, level: int) -> Image:
    picture = np.asarray(getattr(skimage.data, name)(), np.float32) / 255
    side = picture.shape[0] >> level
    return np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA), np.float32)


PHOTOGRAPHED: dict[str, Draw] = {name: partial(photograph, name) for name in ("brick", "grass", "gravel")}
