# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""From a category to a picture: product line, part, defect, background, light, focus and sensor noise."""

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .categories import DRAWINGS, check_category, defects_of
from .defects import Damage, Defect
from .drawing import Image, Product, View, blur, colour, log_uniform, look, noise, paint
from .objects import OBJECTS

RENDERER = 9  # raised when pictures change, so that old files are not taken for new ones
SMALLEST = 16  # pixels, of a picture's side
SMALLEST_DEFECT = 0.004  # of the picture's area
ATTEMPTS = 12
DEFECT_SIZES = (1.3, 2.4)  # smallest and largest factor


class Rendered(NamedTuple):
    """A photograph of a part.

    Attributes:
        image (NDArray[np.uint8]): RGB (S, S, 3), 0 to 255.
        mask (NDArray[np.bool_]): Defective pixels (S, S).
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def render(category: str, line: int = 0, part: int = 0, defect: str | None = None, size: int = 224) -> Rendered:
    """Photograph one part of a product line.

    The same arguments give the same picture on every machine, but for letters, which OpenCV 4 and 5 draw differently.
    Line fixes colours, pattern, geometry, background and camera; part varies pose, light, focus and noise a little.
    With a defect, the part is otherwise the same.

    Args:
        category (str): One of ``categories.CATEGORIES``.
        line (int): Number of the product line, 0 or more.
        part (int): Number of the part, 0 or more.
        defect (str | None): One of ``categories.defects_of(category)``, or None for a good part.
        size (int): Side S of the picture in pixels.

    Returns:
        Rendered: The picture, and the mask of the defect.

    Raises:
        ValueError: If category or defect is unknown, the category cannot have it, line or part is negative, or size is
            below 16.

    Example:
        >>> good, bad = render("coin", part=3), render("coin", part=3, defect="scratch")
        >>> good.image.shape, bool(good.mask.any()), bool(bad.mask.any())
        ((224, 224, 3), False, True)
    """
    check_category(category)
    known = defects_of(category)
    if defect is not None and defect not in known:
        msg = f"defect={defect!r} must be None or one of {', '.join(known)}, which {category} can have."
        raise ValueError(msg)
    if line < 0 or part < 0:
        msg = f"line={line} and part={part} must be 0 or more: they number product lines and their parts."
        raise ValueError(msg)
    if size < SMALLEST:
        msg = f"size={size} must be at least {SMALLEST} pixels; 224 is the default."
        raise ValueError(msg)
    seed = zlib.crc32(category.encode())  # unlike hash(), the same in every process
    design, posing = np.random.default_rng([seed, line, 0]), np.random.default_rng([seed, line, 1, part])
    backdrop = np.random.default_rng([seed, line, 2])
    view = _pose(size, posing, is_object=category in OBJECTS, line=backdrop)
    product = DRAWINGS[category](view, design, posing)
    mask = np.zeros((size, size), np.float32)
    if defect is not None:
        product, mask = _break(known[defect], view, product, np.random.default_rng([seed, line, 3, part]))
    scene = paint(_background(view, backdrop), product.image, product.cover)
    image = _photograph(scene, backdrop, posing)
    return Rendered((image * 255 + 0.5).astype(np.uint8), mask >= 0.5)


def _pose(size: int, part: np.random.Generator, *, is_object: bool, line: np.random.Generator) -> View:
    turn = line.uniform(0, 2 * np.pi) if line.random() < 0.5 else 0.0
    reach = 1.0 if is_object else 0.4
    zoom = line.uniform(0.9, 1.1) if is_object else line.uniform(0.6, 1.2)
    angle = turn + reach * part.normal(0, 0.05)
    x, y = part.normal(0, 0.03, 2)
    return look(size, angle, (float(x), float(y)), zoom * float(np.exp(part.normal(0, 0.015))))


def _break(defect: Defect, view: View, product: Product, rng: np.random.Generator) -> Damage:
    """Damage a product where it can be seen: a plain surface does not show that it is bent."""
    attempts: list[Damage] = []
    while not attempts or (len(attempts) < ATTEMPTS and (attempts[-1].mask >= 0.5).mean() < SMALLEST_DEFECT):
        x, y = _place(view, product, rng)
        size = np.float32(log_uniform(rng, *DEFECT_SIZES))
        near = View((view.x - x) / size + x, (view.y - y) / size + y, view.pixel / float(size))
        attempts.append(defect(near, product, (x, y), rng))
    return max(attempts, key=lambda damage: float(damage.mask.sum()))


def _place(view: View, product: Product, rng: np.random.Generator) -> tuple[float, float]:
    """A point on the product and in the picture, in product coordinates."""
    points = rng.uniform(0.08, 0.92, (512, 2))  # in the picture, so that its size does not matter
    rows, columns = (points * len(product.cover)).astype(int).T
    chosen = int(np.argmax(product.cover[rows, columns] > 0.9))
    return float(view.x[rows[chosen], columns[chosen]]), float(view.y[rows[chosen], columns[chosen]])


def _background(view: View, line: np.random.Generator) -> Image:
    tone, uneven = colour(line, (0.05, 0.95), 0.15), line.uniform(0, 0.04)
    return np.clip(tone + uneven * noise(view, line, 3, octaves=3)[..., None], 0, 1).astype(np.float32)


def _photograph(scene: Image, line: np.random.Generator, part: np.random.Generator) -> Image:
    """Light, lens and sensor; (S, S, 3) in [0, 1]."""
    size = len(scene)
    frame = look(size)
    direction, fall = line.uniform(0, 2 * np.pi) + part.normal(0, 0.2), line.uniform(0, 0.2)
    gradient = fall * (np.cos(direction) * frame.x + np.sin(direction) * frame.y)
    exposure = np.exp(part.normal(0, 0.05))
    tint = 1 + line.uniform(-0.03, 0.03, 3) + part.normal(0, 0.01, 3)
    lit = np.clip(scene * (exposure * (1 + gradient[..., None]) * tint), 0, 1).astype(np.float32)
    focus = (line.uniform(0.2, 0.7) + np.abs(part.normal(0, 0.15))) * size / 224
    sharp = blur(lit, float(focus))
    is_grey, grain = line.random() < 0.3, line.uniform(0.004, 0.025)
    seen = np.repeat(sharp.mean(2, keepdims=True), 3, 2) if is_grey else sharp  # (S, S, 3)
    sensor = part.standard_normal((size, size, 1 if is_grey else 3), dtype=np.float32)
    return np.asarray(np.clip(seen + np.float32(grain) * sensor, 0, 1), np.float32)
