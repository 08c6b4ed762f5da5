# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Products that nobody makes: every product line has another design, so that no shape is a defect by itself.

They serve the training of the small CLIP only. See ``textures`` for the rules of drawing.
"""

from collections.abc import Callable

import numpy as np

from .drawing import (
    Image,
    Product,
    View,
    bands,
    box,
    circle,
    colour,
    cover,
    drifted,
    fill,
    noise,
    paint,
    polygon,
    sheet,
    stroke,
    turned,
)
from .photographed import PHOTOGRAPHED
from .surface import bevelled, direction, illuminated, ink_on, metal, polar, repeated, rounded, word, write


def invented_part(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """An object of a random outline, with random openings, rings, prints, inlays, gloss and grain."""
    light, view = direction(line, part), turned(view, line.uniform(0, 2 * np.pi))
    size, aspect = line.uniform(0.5, 0.85), line.uniform(0.5, 1.0)
    outline = _outline(view, size, aspect, line)
    base = metal(line) if line.random() < 0.4 else colour(line, (0.08, 0.92), 0.8)
    relief = rounded(outline, line.uniform(0.02, 0.5)) * line.uniform(0.3, 1.0)
    image = fill(view, base) * (1 + line.uniform(0, 0.12) * noise(view, part, (2, line.uniform(2, 30))))[..., None]
    for layer in line.permutation(len(_LAYERS))[: line.integers(1, 6)]:
        image, relief, outline = _LAYERS[layer](view, (image, relief, outline), size * aspect, line)
    gloss = line.uniform(0, 0.8)
    return Product(illuminated(view, image, relief.astype(np.float32), light, gloss), cover(outline, view.pixel))


def invented_surface(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A texture of one to three random layers: bands, lattices of shapes, clouds, seams, or a photograph."""
    first, second = colour(line, (0.05, 0.95), 0.7), colour(line, (0.05, 0.95), 0.7)
    moved = drifted(turned(view, line.uniform(0, np.pi)), part, line.uniform(0, 0.3), 0.01)
    image = fill(view, first)
    if line.random() < 0.3:
        names = list(PHOTOGRAPHED)
        image = PHOTOGRAPHED[names[line.integers(len(names))]](moved, line, part).image
    for kind in line.integers(0, 5, line.integers(1, 4)):
        tone = second + line.normal(0, 0.12, 3)
        image = paint(image, np.clip(tone, 0, 1).astype(np.float32), _pattern(int(kind), moved, line, part))
    grain = line.uniform(0, 0.15) * noise(view, part, line.uniform(15, 60))
    return sheet(image * (1 + grain[..., None]))


def _pattern(kind: int, view: View, line: np.random.Generator, part: np.random.Generator) -> Image:
    """How far one layer of a surface covers each pixel, (S, S)."""
    pitch, share, opacity = line.uniform(0.06, 0.4), line.uniform(0.1, 0.6), np.float32(line.uniform(0.2, 1.0))
    across, along = repeated(view.x, pitch), repeated(view.y, pitch * line.uniform(0.6, 1.6))
    cell = View(across, along, view.pixel)
    if kind == 0:
        covered = bands(view.x, pitch, share, view.pixel)
    elif kind == 1:
        covered = np.maximum(bands(view.x, pitch, share / 2, view.pixel), bands(view.y, pitch, share / 2, view.pixel))
    elif kind == 2:
        covered = cover(polygon(cell, int(line.integers(3, 8)), pitch * share / 2, line.uniform(0, 3)), view.pixel)
    elif kind == 3:
        across, along = np.exp(line.uniform(0, np.log(32), 2)).tolist()  # from clouds to oriented, fine fibres
        clouds = noise(view, part, (across, along), octaves=3)
        covered = np.clip(0.5 + line.uniform(0.5, 4) * (clouds - line.uniform(-0.3, 0.5)), 0, 1)
    else:
        covered = bands(view.x, pitch * 3, 0.06, view.pixel)  # seams
    return np.asarray(covered * opacity, np.float32)


def _outline(view: View, size: float, aspect: float, line: np.random.Generator) -> Image:
    """Signed distance to a random body about the origin."""
    radius, angle = polar(view)
    corners, depth, kind = int(line.integers(3, 9)), line.uniform(0.02, 0.2), line.integers(7)
    if kind in {0, 6}:  # round parts are the most common ones
        outline = circle(view, radius=size)
    elif kind == 1:
        outline = polygon(view, corners, size * 0.85, line.uniform(0, 3))
    elif kind == 2:
        outline = box(view, (0.0, 0.0), (size, size * aspect), line.uniform(0, 0.3) * size * aspect)
    elif kind == 3:
        waves = np.cos(angle * (3 * corners if line.random() < 0.5 else corners))
        outline = (radius - np.float32(size) * (1 - np.float32(depth) * (1 + waves) / 2)) * np.float32(0.8)
    elif kind == 4:
        outline = stroke(view, (-size + 0.3 * aspect, 0.0), (size - 0.3 * aspect, 0.0), 0.6 * aspect)
    else:
        arm = box(view, (line.uniform(-0.3, 0.3) * size, 0.0), (line.uniform(0.15, 0.4) * size, size))
        outline = np.minimum(box(view, (0.0, 0.0), (size, 0.4 * size * aspect), 0.03), arm)
    return np.asarray(outline, np.float32)


_Body = tuple[Image, Image, Image]  # colours (S, S, 3), height (S, S), signed distance to the outline (S, S)
_Layer = Callable[[View, _Body, float, np.random.Generator], _Body]


def _bore(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """A round or many-sided opening in the middle."""
    image, relief, outline = body
    inside = polygon(view, int(line.integers(3, 30)), size * line.uniform(0.15, 0.6))
    relief = relief - bevelled(inside, 0.05)
    return image, relief, np.maximum(outline, -inside)


def _bolt_holes(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Holes or studs on a circle."""
    image, relief, outline = body
    radius, angle = polar(view)
    away, count = size * line.uniform(0.4, 0.85), int(line.integers(2, 13))
    sector = repeated(angle, 2 * np.pi / count)
    middle = View(radius * np.cos(sector) - np.float32(away), radius * np.sin(sector), view.pixel)
    hole = circle(middle, radius=min(size * line.uniform(0.04, 0.14), away * 2.5 / count))
    if line.random() < 0.4:
        return image, relief, np.maximum(outline, -hole)
    tone = colour(line, (0.02, 0.9), 0.4)
    return paint(image, tone, cover(hole, view.pixel)), relief + line.choice([-1, 1]) * rounded(hole, 0.05), outline


def _rings(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Turned grooves or painted rings around the middle."""
    image, relief, outline = body
    away, _ = polar(view)
    pitch, share = size * line.uniform(0.1, 0.6), line.uniform(0.1, 0.6)
    ring = bands(away, pitch, share, view.pixel)
    if line.random() < 0.5:
        return paint(image, colour(line, (0.05, 0.95), 0.7), ring), relief, outline
    return image, relief + np.float32(0.1 * pitch) * np.cos(away * np.float32(2 * np.pi / pitch)), outline


def _lathe(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Steps, beads and hollows around the middle, and a darker or lighter inside."""
    image, relief, outline = body
    away, _ = polar(view)
    for _ in range(line.integers(2, 7)):
        half = size * line.uniform(0.02, 0.15)
        bead = np.abs(away - np.float32(size * line.uniform(0.1, 1.0))) - np.float32(half)
        relief = relief + np.float32(line.uniform(-1, 1)) * (rounded if line.random() < 0.6 else bevelled)(bead, half)
    inside = circle(view, radius=size * line.uniform(0.2, 0.9))
    shade = np.float32(line.uniform(0.05, 1.3)) - 1
    return image * (1 + shade * cover(inside, view.pixel, line.uniform(0, 0.3)))[..., None], relief, outline


def _glints(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Windows that a turned, polished body reflects: bright or dark arcs, at the same angles in every ring."""
    image, relief, outline = body
    away, angle = polar(view)
    sharp, facing = line.uniform(2, 8), np.cos((angle - np.float32(line.uniform(0, 2 * np.pi))) * line.integers(1, 4))
    window = np.clip(np.float32(sharp) * (facing - np.float32(line.uniform(0, 0.8))), 0, 1)
    for _ in range(line.integers(1, 5)):
        ring = np.abs(away - np.float32(size * line.uniform(0.15, 1.0))) - np.float32(size * line.uniform(0.005, 0.06))
        tone = np.full(3, 0.97 if line.random() < 0.75 else 0.03, np.float32)
        there = cover(ring, view.pixel, line.uniform(0, 0.04)) * window * np.float32(line.uniform(0.3, 1.0))
        image = paint(image, tone, there.astype(np.float32))
    return image, relief, outline


def _print(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """One to three words."""
    image, relief, outline = body
    base = image.reshape(-1, 3).mean(0)  # (3,)
    ink = ink_on(line, base)
    for _ in range(line.integers(1, 4)):
        place = (line.uniform(-0.3, 0.3) * size, line.uniform(-0.7, 0.7) * size)
        tall = size * line.uniform(0.08, 0.3)
        local = turned(view, float(line.choice([0, 0, np.pi / 2])))
        written = write(local, word(line, int(line.integers(1, 7))), place, (3 * tall, tall), int(line.integers(3)))
        image = paint(image, ink, written)
    return image, relief, outline


def _inlays(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Boxes and discs of other colours, at random places or in a row."""
    image, relief, outline = body
    tone, in_row = colour(line, (0.03, 0.95), 0.8), line.random() < 0.4
    half, count = (size * line.uniform(0.05, 0.25), size * line.uniform(0.05, 0.25)), int(line.integers(2, 9))
    for number in range(count):
        place = line.uniform(-0.75, 0.75, 2) * size
        if in_row:
            place = np.array([(2 * (number + 0.5) / count - 1) * size * 0.85, 0.0])
        elif line.random() < 0.5:
            half, tone = (half[1], half[0]), colour(line, (0.03, 0.95), 0.8)
        else:
            half = (half[0] * line.uniform(0.7, 1.4), half[1])
        inlay = box(view, (float(place[0]), float(place[1])), half, line.uniform(0, 1) * min(half))
        image = paint(image, tone, cover(inlay, view.pixel))
        relief = relief + line.uniform(0, 0.6) * rounded(inlay, 0.03)
    return image, relief, outline


def _crowd(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Many small boxes and discs in rows, with thin lines between them, as on a board or a dial."""
    image, relief, outline = body
    rows = int(line.integers(5, 14))
    tones = [colour(line, (0.02, 0.98), 0.7) for _ in range(3)]
    if line.random() < 0.6:
        lines = np.maximum(*(bands(axis, 2 * size / rows, 0.12, view.pixel) for axis in (view.x, view.y)))
        open_to = noise(view, line, 2.5 / size) > line.uniform(-0.2, 0.5)
        image = paint(image, tones[0], lines * open_to)
    for _ in range(line.integers(10, 41)):
        x, y = (line.integers(-rows, rows + 1, 2) / rows * size * 0.85).tolist()
        half = size / rows * line.uniform(0.2, 0.9, 2)
        piece = box(view, (x, y), (float(half[0]), float(half[1])), float(line.choice([0, 1]) * min(half)))
        image = paint(image, tones[line.integers(3)], cover(piece, view.pixel))
    return image, relief, outline


def _gloss(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Soft reflections: bright or dark spots that every part has."""
    image, relief, outline = body
    for _ in range(line.integers(1, 4)):
        place, wide = line.uniform(-0.6, 0.6, 2) * size, line.uniform(0.05, 0.3) * size
        spot = circle(view, (float(place[0]), float(place[1])), wide)
        tone = 1.0 if line.random() < 0.7 else 0.03
        image = paint(image, (tone, tone, tone), cover(spot, view.pixel, wide))
    return image, relief, outline


def _halves(view: View, body: _Body, _size: float, line: np.random.Generator) -> _Body:
    """A second colour on one side, or in bands."""
    image, relief, outline = body
    tone, edge = colour(line, (0.05, 0.95), 0.8), np.float32(line.uniform(-0.3, 0.3))
    side = cover(view.x - edge, view.pixel)
    if line.random() < 0.5:
        side = bands(view.y, line.uniform(0.08, 0.6), line.uniform(0.1, 0.6), view.pixel)
    return paint(image, tone, side), relief, outline


def _score(view: View, body: _Body, size: float, line: np.random.Generator) -> _Body:
    """Straight grooves or ridges through the middle, as on a tablet or a slotted head."""
    image, relief, outline = body
    for turn in np.arange(line.integers(1, 4)) * np.pi / 2 * line.uniform(0.3, 1.0):
        groove = np.abs(turned(view, float(turn)).y) - np.float32(size * line.uniform(0.02, 0.1))
        relief = relief + np.float32(line.choice([-0.5, 0.5])) * bevelled(groove, 0.04)
    return image, relief, outline


_LAYERS: tuple[_Layer, ...] = (
    _bore, _bolt_holes, _rings, _lathe, _glints, _print, _inlays, _crowd, _gloss, _halves, _score,
)  # fmt: skip
