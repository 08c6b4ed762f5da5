# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Irregular textures: their structure differs from part to part, its statistics are fixed by the product line.

Every function follows the rules of ``textures``.
"""

from typing import NamedTuple

import numpy as np

from .drawing import Image, Product, View, bands, colour, cover, fill, lit, noise, paint, sheet, turned


class Cells(NamedTuple):
    """Cells around scattered points.

    Attributes:
        away (Image): Distance (S, S) to the nearest point, relative to the pitch.
        wall (Image): Distance (S, S) to the second nearest point minus ``away``: 0 on the wall between two cells.
        value (Image): A number (S, S) from 0 to 1, constant in each cell.
    """

    away: Image
    wall: Image
    value: Image


def cells(view: View, rng: np.random.Generator, pitch: float, warp: float = 0.0) -> Cells:
    """Scatter points about ``pitch`` apart and find each pixel's cell; ``warp`` bends the walls."""
    points = rng.random((3, 32 * 32)).astype(np.float32)
    x, y = view.x / np.float32(pitch), view.y / np.float32(pitch)
    if warp > 0:
        x, y = (
            x + np.float32(warp) * noise(view, rng, 1.2 / pitch),
            y + np.float32(warp) * noise(view, rng, 1.2 / pitch),
        )
    left, above = np.floor(x), np.floor(y)
    column, row = left.astype(np.int32), above.astype(np.int32)
    x, y = x - left, y - above
    first = np.full_like(x, np.inf)
    second, owner = first.copy(), np.zeros_like(column)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            index = ((row + down) & 31) * 32 + ((column + right) & 31)
            across, along = x - right - points[0].take(index), y - down - points[1].take(index)
            distance = across * across + along * along
            closer = distance < first
            second = np.where(closer, first, np.minimum(second, distance))
            first, owner = np.where(closer, distance, first), np.where(closer, index, owner)
    away = np.sqrt(first)
    return Cells(away, np.sqrt(second) - away, points[2].take(owner))


def dye(rng: np.random.Generator, lightness: tuple[float, float] = (0.2, 0.85)) -> Image:
    """A colour (3,): grey, muted or vivid."""
    return colour(rng, lightness, float(rng.choice([0.04, 0.2, 0.35, 0.6])))


def between(rng: np.random.Generator, first: tuple[float, ...], second: tuple[float, ...]) -> Image:
    """A colour (3,) between two, with a little variety of its own."""
    share = rng.uniform()
    mixed = np.asarray(first) * (1 - share) + np.asarray(second) * share + rng.normal(0, 0.012, 3)
    return np.clip(mixed, 0.02, 0.98).astype(np.float32)


def mottled(image: Image, view: View, part: np.random.Generator, cells_per_unit: float, strength: float) -> Image:
    """An image whose brightness varies by noise of two octaves."""
    return np.asarray(image * (1 + strength * noise(view, part, cells_per_unit, 2)[..., None]), np.float32)


def wood(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Sawn wood: year rings, fibres and pores; on some lines boards with joints."""
    light = between(line, (0.88, 0.72, 0.5), (0.42, 0.26, 0.16))
    rings, wave, contrast = line.uniform(3, 9), line.uniform(0.2, 0.9), line.uniform(0.25, 0.55)
    pores, boards, pitch = line.uniform(0, 0.5), line.random() < 0.4, line.uniform(0.4, 0.8)
    view = turned(view, np.pi / 2 * int(line.integers(2)) + line.normal(0, 0.05))
    board = np.floor(view.x / np.float32(pitch) + 0.5) if boards else np.zeros_like(view.x)
    shifted = View(view.x + 5 * board, view.y + np.float32(part.uniform(-20, 20)) + 3.3 * board, view.pixel)
    ring = shifted.x * np.float32(rings) + np.float32(wave * rings / 3) * noise(shifted, part, (1.1, 0.35), 2)
    place = np.mod(ring, 1)
    late = np.minimum(place**2, (1 - place) * 8)  # slowly darker to the end of a year, then a sharp border
    fibre = noise(shifted, part, (29, 1.3)) + 0.6 * noise(shifted, part, (53, 2.9))
    image = fill(view, light) * (1 - contrast * late + 0.07 * fibre)[..., None]
    image *= (1 + 0.12 * np.sin(2.4 * board))[..., None]
    image = paint(image, light * 0.35, pores * np.clip(noise(shifted, part, (41, 4.5)) * 3 - 1.8, 0, 1))
    if boards:
        image = paint(image, light * 0.2, bands(view.x - np.float32(pitch / 2), pitch, 0.02 / pitch, view.pixel))
    return sheet(image)


def leather(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Leather: grain of small pebbles between creases, and pores."""
    hide = between(line, (0.62, 0.38, 0.2), (0.12, 0.08, 0.07)) if line.random() < 0.6 else dye(line, (0.15, 0.8))
    pitch, depth, shine = line.uniform(0.05, 0.2), line.uniform(0.25, 0.6), line.uniform(0.2, 0.8)
    stretch, crease = line.uniform(0.75, 1.3), line.uniform(0.15, 0.3)
    grain = cells(View(view.x * np.float32(stretch), view.y, view.pixel), part, pitch, 0.35)
    height = np.clip(grain.wall / np.float32(crease), 0, 1) * (0.85 + 0.3 * grain.value)
    height = height + 0.25 * noise(view, part, 3 / pitch)
    image = fill(view, hide) * (1 - depth * (1 - np.clip(height, 0, 1)))[..., None]
    image = mottled(lit(image, height, shine), view, part, 2, 0.06)
    return sheet(image + 0.02 * np.clip(height - 0.8, 0, 1)[..., None])


def carpet(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Carpet: tufts of mixed yarns, cut or in loops, plain or flecked or in broad stripes."""
    yarns = np.stack([dye(line, (0.2, 0.7))] * 3 + [dye(line) for _ in range(3)])
    fleck, pitch, depth = float(line.choice([0.0, 0.25, 0.6])), line.uniform(0.035, 0.08), line.uniform(0.35, 0.6)
    flat, stripe, striped = line.uniform(0.6, 1.0), line.uniform(0.4, 0.8), line.random() < 0.3
    tuft = cells(View(view.x * np.float32(flat), view.y, view.pixel), part, pitch, 0.3)
    shade = yarns[0] * (1 - fleck) + yarns[(tuft.value * 5.999).astype(np.int32)] * fleck
    if striped:
        shade = paint(np.asarray(shade, np.float32), yarns[4], 0.7 * bands(view.x, stripe, 0.35, 3 * view.pixel))
    dome = 1 - np.clip(tuft.away * 1.2, 0, 1) ** 2
    hair = noise(view, part, 31) + noise(view, part, 57)
    image = shade * (1 - depth + depth * dome + 0.12 * hair + 0.15 * (tuft.value - 0.5))[..., None]
    return sheet(mottled(lit(image, dome, 0.5), view, part, 1.5, 0.08))


def marble(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Polished marble: clouds, and veins in one main direction."""
    dark = line.random() < 0.4
    stone = colour(line, (0.08, 0.3) if dark else (0.6, 0.92), 0.15)
    vein = colour(line, (0.6, 0.9) if dark else (0.15, 0.45), 0.2)
    scale, width = line.uniform(0.9, 2.2), line.uniform(0.006, 0.02)
    stretch, strength, cloud = line.uniform(0.25, 0.7), line.uniform(0.5, 0.95), line.uniform(0.05, 0.18)
    view = turned(view, line.uniform(0, np.pi))
    bent, faint = noise(view, part, 1.3 * scale, 4, 0.45), np.clip(0.5 + noise(view, part, 1.5), 0.1, 1)
    image = paint(fill(view, stone), vein, np.clip(cloud * (1 + 1.4 * bent), 0, 1))
    for size, share in ((1.0, 1.0), (1.9, 0.7), (3.7, 0.4)):
        shift = np.float32(0.3 / scale / size) * bent
        shifted = View(view.x + shift, view.y + np.float32(0.4) * shift, view.pixel)
        away = np.abs(noise(shifted, part, (scale * size, scale * size * stretch)))
        sharp = np.exp(-away / np.float32(width * size**0.5 * 2)) + 0.25 * np.exp(
            -away / np.float32(9 * width * size**0.5)
        )
        image = paint(image, vein, np.clip(strength * share * faint * sharp, 0, 1))
    return sheet(image * (1 + 0.02 * noise(view, part, 31))[..., None])


def brushed_metal(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Brushed metal sheet: fine streaks, straight or around a centre, and a broad reflection."""
    metals = ((0.62, 0.63, 0.65), (0.78, 0.78, 0.77), (0.3, 0.31, 0.33), (0.75, 0.62, 0.36), (0.7, 0.45, 0.33))
    metal = np.asarray(metals[line.integers(5)], np.float32) * np.float32(line.uniform(0.85, 1.1))
    streak, gloss, spun = line.uniform(0.05, 0.14), line.uniform(0.05, 0.25), line.random() < 0.25
    centre, angle = (
        line.uniform(-0.6, 0.6, 2).astype(np.float32),
        np.pi / 2 * int(line.integers(2)) + line.normal(0, 0.1),
    )
    width, fan = line.uniform(0.5, 1.1), int(line.integers(1, 3))
    if spun:
        x, y = view.x - centre[0], view.y - centre[1]
        turn, radius = np.arctan2(y, x), np.hypot(x, y)
        brushed = View(2 * np.cos(turn + np.float32(angle)), radius, view.pixel)  # the same on both ends of a turn
        shine = np.cos(2 * fan * turn + np.float32(part.normal(0, 0.2)))
    else:
        brushed = turned(view, angle)
        shine = (
            np.exp(-(((brushed.y - (centre[0] + np.float32(part.normal(0, 0.1)))) / np.float32(width)) ** 2)) * 2 - 1
        )
    lines = noise(brushed, part, (0.7, 37)) + noise(brushed, part, (1.6, 61)) + 0.35 * noise(brushed, part, (0.4, 11))
    return sheet(fill(view, metal) * (1 + streak * lines + gloss * shine)[..., None])


def paper(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Paper: cloudy, with fibres; plain, ruled or squared."""
    white = line.random() < 0.6
    pulp = between(line, (0.95, 0.94, 0.9), (0.82, 0.8, 0.76)) if white else dye(line, (0.45, 0.8))
    fibre, cloud, fine = line.uniform(0.0, 0.45), line.uniform(0.01, 0.04), line.uniform(0.01, 0.05)
    ink, ruling, pitch = colour(line, (0.3, 0.6), 0.6), line.integers(4), line.uniform(0.14, 0.32)
    laid = line.uniform(0, 0.03) * (line.random() < 0.4)
    image = mottled(fill(view, pulp), view, part, 7, cloud)
    tooth = noise(view, part, 31) + noise(view, part, 55)
    image *= (1 + fine * tooth + laid * np.cos(view.x * np.float32(2 * np.pi / 0.055)))[..., None]
    for cells_per_unit in (7.0, 11.0):
        near = 0.12 - np.abs(noise(view, part, cells_per_unit))  # thin curves, of which the noise below leaves pieces
        piece = np.clip(noise(view, part, cells_per_unit * 0.8) * 3 - 1, 0, 1)
        image = paint(image, pulp * 0.55, np.asarray(fibre * np.clip(near * 8, 0, 1) * piece, np.float32))
    shift = np.float32(part.uniform(-0.5, 0.5) * pitch)
    if ruling >= 2:
        image = paint(image, ink, 0.7 * bands(view.y + shift, pitch, 0.012 / pitch, view.pixel))
    if ruling == 3:
        image = paint(image, ink, 0.7 * bands(view.x + shift, pitch, 0.012 / pitch, view.pixel))
    return sheet(image)


def terrazzo(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Terrazzo: stone chips of several colours and sizes in cement."""
    cement, hue = colour(line, (0.2, 0.85), 0.12), line.uniform(0.02, 0.4)
    chips = np.stack([colour(line, (0.1, 0.95), hue) for _ in range(5)])
    pitch, dense, gap = line.uniform(0.18, 0.4), line.uniform(0.35, 0.85), line.uniform(0.12, 0.3)
    grain = noise(view, part, 9, 2)
    image = fill(view, cement) * (1 + 0.04 * grain)[..., None]
    for size, warp in ((0.35, 0.2), (1.0, 0.3)):
        stone = cells(view, part, pitch * size, warp)
        shape = np.maximum(np.float32(gap) - stone.wall, stone.away - np.float32(0.35 + 0.25 * dense)) * pitch * size
        there = cover(np.asarray(shape, np.float32), view.pixel) * (stone.value < dense)
        shade = chips[(stone.value / np.float32(dense) * 4.999).clip(0, 4).astype(np.int32)]
        image = paint(image, shade * (1 + 0.08 * grain)[..., None], there)
    return sheet(image)


def concrete(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Concrete: grey, cloudy and gritty, with small air holes; on some lines the joints of the form boards."""
    grey = between(line, (0.72, 0.71, 0.68), (0.4, 0.4, 0.41))
    cloud, grit, pitch = line.uniform(0.05, 0.14), line.uniform(0.03, 0.09), line.uniform(0.1, 0.22)
    share, radius = line.uniform(0.05, 0.3), line.uniform(0.08, 0.16)
    boards, spacing, across = line.random() < 0.35, line.uniform(0.5, 0.9), line.random() < 0.5
    rough = noise(view, part, 17, 2, 0.8) + noise(view, part, 47)
    image = mottled(fill(view, grey), view, part, 1.7, cloud) * (1 + grit * rough)[..., None]
    air = cells(view, part, pitch)
    size = np.float32(radius) * (0.4 + 0.6 * air.value / np.float32(share))
    hole = (air.value < share) * cover(np.asarray((air.away - size) * pitch, np.float32), view.pixel)
    image = lit(paint(image, grey * 0.45, 0.8 * hole), -hole, 0.5)
    if boards:
        place = (view.x if across else view.y) + np.float32(part.uniform(-0.2, 0.2))
        image = paint(image, grey * 0.6, 0.8 * bands(place, spacing, 0.025 / spacing, view.pixel))
    return sheet(image)


def foam(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Foam: a sponge of open pores, or pressed beads."""
    pulp, beads, depth = dye(line, (0.35, 0.9)), line.random() < 0.4, line.uniform(0.3, 0.75)
    pitch, share, size = line.uniform(0.09, 0.2), line.uniform(0.3, 0.9), line.uniform(0.25, 0.45)
    bubble = cells(view, part, pitch, 0.05 if beads else 0.15)
    if beads:
        height = np.clip(bubble.wall * 4, 0, 1) + 0.5 - 0.5 * bubble.away**2
        tone = 1 - 0.5 * depth * (1 - np.clip(bubble.wall * 5, 0, 1)) + 0.08 * (bubble.value - 0.5)
        return sheet(mottled(lit(fill(view, pulp) * tone[..., None], height, 0.35), view, part, 3, 0.04))
    image, fine = mottled(fill(view, pulp), view, part, 13, 0.1), noise(view, part, 19)
    for scale in (0.45, 1.0):
        pore = View(view.x / np.float32(scale), view.y / np.float32(scale), view.pixel / scale)
        hole = bubble if scale == 1 else cells(pore, part, pitch)
        reach = np.minimum(hole.away - np.float32(size) * (0.4 + 0.8 * hole.value / np.float32(share)), 1)
        edge = np.maximum(reach + 0.08 * fine, 0.06 - hole.wall) * np.float32(pitch * scale)
        inside = (hole.value < share) * cover(edge, view.pixel, 0.02)
        image = lit(paint(image, pulp * (1 - depth), inside * np.clip(0.75 - 4 * edge / pitch, 0, 1)), -inside, 0.3)
    return sheet(image)
