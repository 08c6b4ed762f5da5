# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Electronic parts: circuit board, microchip, connector and battery. See ``textures`` for the rules."""

import cv2
import numpy as np

from .drawing import Image, Product, View, box, circle, colour, cover, fill, noise, paint, turned
from .surface import among, bevelled, direction, illuminated, ink_on, jitter, repeated, rounded, stamp, word, write

_MASKS = (
    (0.05, 0.32, 0.16),
    (0.04, 0.2, 0.42),
    (0.5, 0.08, 0.08),
    (0.07, 0.07, 0.08),
    (0.75, 0.76, 0.74),
    (0.3, 0.12, 0.4),
)
_HOUSINGS = (
    (0.12, 0.12, 0.13),
    (0.85, 0.84, 0.78),
    (0.15, 0.3, 0.6),
    (0.2, 0.5, 0.3),
    (0.8, 0.5, 0.15),
    (0.6, 0.15, 0.15),
)
_GOLD, _TIN = (0.85, 0.68, 0.32), (0.78, 0.79, 0.8)


def circuit_board(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A board with tracks, vias, pads, chips and small components."""
    light, mask = direction(line, part), among(line, _MASKS, 0.02)
    half = (line.uniform(0.7, 0.86), line.uniform(0.55, 0.86))
    metal, bright = (_GOLD, _TIN)[line.integers(2)], 0.75 if mask[1] > 0.6 else 1.45
    tracks, pads, bodies = _layout(line)
    board = box(view, (0, 0), half, 0.05)
    copper, solder = stamp(view, tracks, (0, 0), half), stamp(view, pads, (0, 0), half)
    place = jitter(part, 0.004)
    body = stamp(view, bodies, place, half)
    image = fill(view, mask) * (1 + np.float32(0.04) * noise(view, part, 5)[..., None])
    image = paint(image, np.minimum(mask * bright + 0.04, 1), copper)
    image = paint(image, metal, solder)
    tone = np.where(body > 0.75, np.float32(0.1), np.float32(0.55))[..., None] * np.array((1, 0.95, 0.9), np.float32)
    image = paint(image, tone, np.minimum(body * 3, 1))
    name = write(view, word(line, 5), (place[0] - 0.55 * half[0], place[1] + 0.9 * half[1]), (0.3, 0.035))
    image = paint(image, (0.9, 0.9, 0.88), name)
    screws = np.hypot(np.abs(view.x) - np.float32(half[0] - 0.1), np.abs(view.y) - np.float32(half[1] - 0.1))
    image = paint(image, metal, cover(screws - np.float32(0.065), view.pixel))
    height = bevelled(board, 0.02) + np.float32(0.008) * copper + np.float32(0.015) * solder + np.float32(0.05) * body
    outline = np.maximum(board, np.float32(0.04) - screws)
    return Product(illuminated(view, image, height, light, 0.3), cover(outline, view.pixel))


def _layout(line: np.random.Generator) -> tuple[Image, Image, Image]:
    """Tracks, pads and components of a board, each a bitmap (160, 160)."""
    tracks, pads, bodies = (np.zeros((160, 160), np.uint8) for _ in range(3))
    for start, reach, bend in zip(
        line.integers(2, 18, (26, 2)) * 8, line.integers(-5, 6, (26, 2)) * 8, line.integers(-3, 4, 26) * 8, strict=True
    ):
        bent = np.array((abs(bend), bend))
        corner = start + np.array((reach[0], 0))
        points = np.array([start, corner, corner + bent, corner + bent + np.array((0, reach[1]))])
        cv2.polylines(tracks, [points.astype(np.int32)], isClosed=False, color=255, thickness=2, lineType=cv2.LINE_AA)
        cv2.circle(pads, start.tolist(), 3, 255, -1, cv2.LINE_AA)
        cv2.circle(pads, points[-1].tolist(), 3, 255, -1, cv2.LINE_AA)
    for column, row, upright in zip(
        line.integers(2, 18, 12) * 8, line.integers(2, 18, 12) * 8, line.integers(2, size=12), strict=True
    ):
        long, short = ((7, 3), (3, 7))[upright]
        cv2.rectangle(pads, (column - long, row - short), (column + long, row + short), 255, -1)
        long, short = ((4, 3), (3, 4))[upright]
        cv2.rectangle(bodies, (column - long, row - short), (column + long, row + short), 150, -1)
    quarters = np.array(((46, 46), (110, 46), (46, 110), (110, 110)))[line.permutation(4)[:3]]
    for middle, size in zip(quarters + line.integers(-8, 9, (3, 2)), line.integers(12, 26, (3, 2)), strict=True):
        low, high = middle - size, middle + size
        cv2.rectangle(tracks, (low - 7).tolist(), (high + 7).tolist(), 0, -1)
        cv2.rectangle(pads, (low - 7).tolist(), (high + 7).tolist(), 0, -1)
        cv2.rectangle(bodies, (low - 7).tolist(), (high + 7).tolist(), 0, -1)
        for first in range(int(low[0]) + 2, int(high[0]) - 2, 6):
            cv2.rectangle(pads, (first, int(low[1]) - 6), (first + 2, int(high[1]) + 6), 255, -1)
        cv2.rectangle(pads, low.tolist(), high.tolist(), 0, -1)
        cv2.rectangle(bodies, low.tolist(), high.tolist(), 255, -1)
        cv2.circle(bodies, (low + 5).tolist(), 2, 200, -1, cv2.LINE_AA)
    scale = np.float32(1 / 255)
    return tracks * scale, pads * scale, bodies * scale


def microchip(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A chip package with legs on two or four sides, a mark for the first leg and a printed type."""
    light, body = (
        direction(line, part),
        among(line, ((0.1, 0.1, 0.11), (0.16, 0.15, 0.15), (0.2, 0.2, 0.23), (0.45, 0.4, 0.36)), 0.02),
    )
    half = (line.uniform(0.5, 0.68), line.uniform(0.3, 0.66))
    legs, leg, four = int(line.integers(4, 13)), line.uniform(0.3, 0.5), line.random() < 0.5
    long, pin = line.uniform(0.1, 0.18), (_TIN, _GOLD)[int(line.random() < 0.25)]
    half = (half[0], half[0]) if four else half
    package = box(view, (0, 0), half, 0.03)
    fringe = _legs(view.x, view.y, half, legs, leg, long)
    if four:
        fringe = np.minimum(fringe, _legs(view.y, view.x, half, legs, leg, long))
    bend = np.minimum(np.abs(package) * 0.6, 0.06)
    height = np.where(package < 0, 0.16 + bevelled(package, 0.06), rounded(fringe, 0.03) - bend).astype(np.float32)
    image = fill(view, body) * (1 + np.float32(0.08) * noise(view, part, 30)[..., None])
    shift = jitter(part)
    first, second = word(line, int(line.integers(5, 9))), word(line, int(line.integers(4, 9)))
    ink = np.maximum(
        write(view, first, (shift[0], shift[1] - 0.18 * half[1]), (0.75 * half[0], 0.17 * half[1])),
        write(view, second, (shift[0], shift[1] + 0.35 * half[1]), (0.7 * half[0], 0.13 * half[1])),
    )
    image = paint(image, among(line, ((0.8, 0.8, 0.78), (0.6, 0.6, 0.6), (0.75, 0.7, 0.5))), ink * np.float32(0.9))
    dot = circle(view, (-half[0] * 0.78, half[1] * 0.7), 0.05)
    image = paint(image, body * 0.5, cover(dot, view.pixel))
    image = paint(fill(view, pin), image, cover(package, view.pixel))
    return Product(illuminated(view, image, height, light, 0.35), cover(np.minimum(package, fringe), view.pixel))


def _legs(x: Image, y: Image, half: tuple[float, float], legs: int, share: float, long: float) -> Image:
    """Distance to rows of legs above and below a package; ``share`` of their pitch is metal."""
    pitch = 2 * 0.92 * half[0] / legs
    within = repeated(x + np.float32(pitch / 2 * (1 - legs % 2)), pitch)
    sides = np.maximum(np.abs(within) - np.float32(share * pitch / 2), np.abs(x) - np.float32(0.92 * half[0]))
    return np.asarray(np.maximum(sides, np.abs(y) - np.float32(half[1] + long)), np.float32)


def connector(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A plug: housing with a recess, rows of pins or sockets, and ears or a key."""
    light, housing = direction(line, part), among(line, _HOUSINGS)
    columns, rows, pin = int(line.integers(3, 11)), int(line.integers(1, 4)), (_GOLD, _TIN)[line.integers(2)]
    pitch = min(1.3 / columns, 0.36)
    kind, ears, key = line.integers(3), line.random() < 0.4, line.uniform(-0.5, 0.5)
    inner = (columns * pitch / 2 + 0.03, rows * pitch / 2 + 0.03)
    wall, size = line.uniform(0.08, 0.13), pitch * line.uniform(0.22, 0.3)
    half = (inner[0] + wall, max(inner[1] + wall, 0.3))
    shell = box(view, (0, 0), half, 0.06)
    shell = np.minimum(shell, box(view, (key * inner[0], half[1]), (0.12, 0.06), 0.02))
    if ears:
        shell = np.minimum(shell, box(view, (0, 0), (min(half[0] + 0.16, 0.94), min(0.16, half[1])), 0.06))
    recess = box(view, (0, 0), inner, 0.03)
    x = repeated(view.x + np.float32(pitch / 2 * (1 - columns % 2)), pitch)
    y = repeated(view.y + np.float32(pitch / 2 * (1 - rows % 2)), pitch)
    local = View(x + np.float32(part.normal(0, 0.003)), y + np.float32(part.normal(0, 0.003)), view.pixel)
    tip = circle(local, radius=size) if kind == 0 else box(local, (0, 0), (size, size), 0.02)
    tip = np.maximum(tip, recess + np.float32(0.02))
    height = rounded(shell, 0.05) - bevelled(recess, 0.05)
    image = fill(view, housing) * (1 + np.float32(0.03) * noise(view, part, 20)[..., None])
    image = image * (1 - np.float32(0.45) * cover(recess, view.pixel, 0.04))[..., None]
    if kind == 2:
        socket = circle(local, radius=0.5 * size)
        image = paint(
            paint(image, housing * 0.9, cover(tip, view.pixel)),
            (0.03, 0.03, 0.03),
            cover(socket, view.pixel) * (recess < 0),
        )
    else:
        image = paint(image, pin, cover(tip, view.pixel))
    height = height + rounded(tip, max(size * 0.8, 0.02))
    return Product(illuminated(view, image, height, light, 0.4), cover(shell, view.pixel))


def battery(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A round cell from the side, with its wrapper, terminal, brand and poles."""
    light, local = direction(line, part), turned(view, (0.0, np.pi / 2, np.pi / 4, -np.pi / 4)[line.integers(4)])
    half, length = line.uniform(0.2, 0.36), line.uniform(0.72, 0.8)
    first, second = (
        colour(line, (0.08, 0.6), 0.45),
        among(line, ((0.8, 0.6, 0.3), (0.8, 0.8, 0.82), (0.1, 0.1, 0.1), (0.7, 0.15, 0.1))),
    )
    split, stripes, ink = line.uniform(0.1, 0.6), int(line.integers(0, 3)), ink_on(line, first)
    body = box(local, (0, 0), (length, half), 0.05)
    nub = box(local, (length + 0.03, 0), (0.06, 0.35 * half), 0.02)
    outline = np.minimum(body, nub)
    image = fill(view, first) * (1 + np.float32(0.03) * noise(view, part, 3)[..., None])
    image = paint(image, second, cover(np.float32(split) - local.x, view.pixel))
    for stripe in range(stripes):
        image = paint(
            image,
            ink,
            cover(np.abs(local.x - np.float32(split - 0.08 - 0.07 * stripe)) - np.float32(0.015), view.pixel),
        )
    shift = jitter(part)
    brand = write(
        local,
        word(line, int(line.integers(4, 8))),
        (shift[0] + (split - length) / 2, shift[1]),
        ((length + split) / 2 - 0.22, 0.45 * half),
        1,
    )
    poles = np.maximum(
        write(local, "+", (length - 0.14, 0), (0.07, 0.07)), write(local, "-", (0.12 - length, 0), (0.05, 0.02))
    )
    image = paint(image, ink, np.maximum(brand, poles))
    ends = np.maximum(np.float32(length - 0.05) - np.abs(local.x), outline)
    image = paint(image, (0.8, 0.8, 0.8), cover(ends, view.pixel))
    profile = np.where(np.abs(local.x) < length, np.float32(half), np.float32(0.35 * half))
    bulge = np.sqrt(np.clip(1 - (local.y / profile) ** 2, 0, 1)) * profile * np.float32(0.8)
    ridge = np.float32(0.015) * np.cos(np.clip((np.float32(length) - np.abs(local.x)) * 60, 0, np.pi))
    return Product(illuminated(view, image, bulge - ridge, light, 0.5), cover(outline, view.pixel))
