# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Textures that fill the picture: one function a category, all with the same signature; here the regular ones.

Each draws what is fixed for a product line (colours, pattern, geometry) from ``line``, which starts anew with the same
numbers for every part, and what differs from part to part from ``part``. The number of draws from ``line`` must never
depend on ``part``.
"""

import numpy as np
from numpy.typing import NDArray

from . import natural_textures as natural
from .cloth import nonwoven, wool
from .drawing import (
    Draw,
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
    lit,
    noise,
    paint,
    sheet,
    turned,
)


def grid(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A wire mesh over a plain ground: square, oblong or diamond, of flat or round wires."""
    ground, wire = colour(line, (0.05, 0.35), 0.2), colour(line, (0.5, 0.9), 0.2)
    if line.random() < 0.3:
        ground, wire = wire, ground
    pitch, width, oblong = line.uniform(0.14, 0.34), line.uniform(0.15, 0.38), float(line.choice([1.0, 1.0, 0.6]))
    slant, bulge = np.pi / 4 * int(line.integers(2)), line.uniform(0, 0.6)
    image = natural.mottled(fill(view, ground), view, part, 3, 0.08)
    mesh = drifted(turned(view, slant), part, pitch / 2, 0.01)
    for axis, step in ((mesh.x, pitch), (mesh.y, pitch * oblong)):
        away = np.abs(np.mod(axis + np.float32(step / 2), step) - np.float32(step / 2))
        reach = width * pitch * oblong / 2
        shade = 1 - bulge * np.clip(away / np.float32(reach), 0, 1) ** 2 + 0.06 * noise(view, part, 6)
        image = paint(image, wire * shade[..., None], cover(away - np.float32(reach), view.pixel))
    return sheet(image)


def _woven(
    view: View, part: np.random.Generator, warp: Image, weft: Image, over: NDArray[np.bool_], end: float
) -> Image:
    """Yarns crossing at every unit of the view; ``over`` tells where the warp is on top, ``end`` how far yarns dive."""
    across, along = view.x - np.floor(view.x), view.y - np.floor(view.y)
    first, second = np.sin(np.pi * across), np.sin(np.pi * along)
    warp_shade = first * (1 - end + end * second) * (1 + 0.12 * noise(view, part, (0.97, 0.11)))
    weft_shade = second * (1 - end + end * first) * (1 + 0.12 * noise(view, part, (0.11, 0.97)))
    top = np.where(over[..., None], warp * warp_shade[..., None], weft * weft_shade[..., None])
    return np.asarray(0.45 * np.where(over[..., None], warp, weft) + 0.65 * top, np.float32)


def _yarns(view: View, line: np.random.Generator, part: np.random.Generator) -> View:
    """The view in units of yarns."""
    pitch, thick = line.uniform(0.05, 0.14), line.uniform(0.8, 1.25)
    cloth = drifted(view, part, 1.0, 0.02)
    return View(cloth.x / np.float32(pitch), cloth.y / np.float32(pitch * thick), view.pixel / pitch)


def fabric(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Plain weave of two yarns; on some lines checked or striped by a third."""
    warp, third = natural.dye(line, (0.2, 0.85)), natural.dye(line, (0.15, 0.85))
    weft = warp * np.float32(0.9) if line.random() < 0.5 else natural.dye(line, (0.2, 0.85))
    pattern, repeat, wide = line.integers(4), int(line.integers(8, 16)), int(line.integers(2, 5))
    cloth = _yarns(view, line, part)
    column, row = np.floor(cloth.x), np.floor(cloth.y)
    striped = (np.mod(column, repeat) < wide) & (pattern >= 2)
    checked = (np.mod(row, repeat) < wide) & (pattern == 3)
    first = paint(fill(view, warp), third, striped.astype(np.float32))
    second = paint(fill(view, weft), third, checked.astype(np.float32))
    image = _woven(cloth, part, first, second, np.mod(column + row, 2) < 1, 0.5)
    return sheet(natural.mottled(image, view, part, 1.5, 0.03))


def twill(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Twill such as denim: the crossings move on by one yarn a row, which gives slanted ribs."""
    dark = natural.dye(line, (0.18, 0.5))
    light = colour(line, (0.6, 0.9), 0.2) if line.random() < 0.6 else dark * np.float32(1.25)
    repeat, over = ((3, 2), (4, 2), (4, 3))[line.integers(3)]
    slope, zigzag, broad = float(line.choice([-1, 1])), line.random() < 0.25, int(line.integers(8, 14))
    cloth = _yarns(view, line, part)
    cloth = View(cloth.x * np.float32(1.3), cloth.y * np.float32(1.3), cloth.pixel * 1.3)
    column, row = np.floor(cloth.x), np.floor(cloth.y)
    if zigzag:  # herringbone
        column = np.abs(np.mod(column, 2 * broad) - broad)
    image = _woven(cloth, part, dark, light, np.mod(column + slope * row, repeat) < over, 0.15)
    return sheet(natural.mottled(image, view, part, 1.5, 0.04))


def knit(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Knitwear: columns of V-shaped stitches, plain, ringed or with a small figure that repeats."""
    yarn, second = natural.dye(line, (0.2, 0.85)), natural.dye(line, (0.15, 0.9))
    pitch, flat, steep = line.uniform(0.12, 0.24), line.uniform(0.5, 0.8), line.uniform(0.5, 0.9)
    figure, pattern = line.random((8, 8)) < 0.35, line.integers(3)
    figure = figure | figure[:, ::-1]
    cloth = drifted(view, part, pitch, 0.02)
    column = np.floor(cloth.x / np.float32(pitch))
    side = np.abs(cloth.x / np.float32(pitch) - column - np.float32(0.5)) * 2  # 0 in the middle of a stitch, 1 between
    along = cloth.y / np.float32(pitch * flat) + np.float32(steep) * side
    row = np.floor(along)
    rings = np.repeat(figure[:, :1], 8, axis=1)
    table = (np.zeros_like(rings), rings, figure)[pattern]
    there = table[np.mod(row, 8).astype(np.int32), np.mod(column, 8).astype(np.int32)]
    loop = np.sqrt(np.abs(np.sin(np.pi * side))) * (0.45 + 0.55 * np.sin(np.pi * (along - row)))
    hair = noise(view, part, 29) + noise(view, part, 53)
    image = paint(fill(view, yarn), second, there.astype(np.float32)) * (0.35 + 0.7 * loop + 0.06 * hair)[..., None]
    return sheet(natural.mottled(image, view, part, 1.5, 0.04))


def tile(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Tiles with joints, in a grid or a bond, glazed or speckled, of one or two colours."""
    glaze, second = natural.dye(line, (0.25, 0.9)), natural.dye(line, (0.15, 0.9))
    joint = colour(line, (0.15, 0.4) if glaze.mean() > 0.6 else (0.65, 0.9), 0.1)
    width, height = line.uniform(0.35, 0.8), float(line.choice([1.0, 1.0, 0.5, 0.33]))
    bond, gap = float(line.choice([0.0, 0.0, 0.5])), line.uniform(0.015, 0.04)
    slant, two, speckle = np.pi / 4 * (line.random() < 0.2), line.random() < 0.3, 0.1 * line.uniform() ** 2
    laid, tones = drifted(turned(view, slant), part, 0.08), line.normal(0, line.uniform(0.01, 0.07), 64)
    row = np.floor(laid.y / np.float32(width * height))
    shift = laid.x / np.float32(width) + np.float32(bond) * row
    column = np.floor(shift)
    place = View(
        (shift - column - 0.5) * np.float32(width), laid.y - (row + 0.5) * np.float32(width * height), view.pixel
    )
    edge = box(place, (0, 0), ((width - gap) / 2, (width * height - gap) / 2), 0.02)
    tone = 1 + tones.astype(np.float32)[np.mod(column + 7 * row, 64).astype(np.int32)]
    grit = np.clip(noise(view, part, 27) + noise(view, part, 13), -1, 1)
    face = paint(fill(view, glaze), second, (np.mod(column + row, 2) * two).astype(np.float32))
    face = natural.mottled(face * (tone * (1 + speckle * grit))[..., None], view, part, 2, 0.025)
    cushion = np.clip(-edge / np.float32(0.05), 0, 1)  # the face drops towards its border
    ground = fill(view, joint) * (1 + 0.08 * grit)[..., None]
    return sheet(paint(ground, lit(face, cushion, 0.2), cover(edge, view.pixel)))


def solar_cell(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A photovoltaic cell: fingers and bus bars on silicon, photographed or, glowing, as electroluminescence image."""
    glowing, crystals, upright = line.random() < 0.45, line.random() < 0.4, line.random() < 0.5
    bars, half, chamfer = int(line.integers(2, 6)), line.uniform(0.9, 1.0), line.uniform(1.3, 1.45)
    pitch, bar, strength = line.uniform(0.035, 0.09), line.uniform(0.025, 0.06), line.uniform(0.15, 0.5)
    blue = np.asarray([0.1, 0.16, 0.34], np.float32) * np.float32(line.uniform(0.5, 1.5))
    if line.random() < 0.4:
        blue = np.float32(blue.mean())
    glow, cloud, rim = (
        line.uniform(0.4, 0.75) * part.uniform(0.9, 1.1),
        line.uniform(0.05, 0.16),
        line.uniform(0.1, 0.5),
    )
    cell = turned(view, np.pi / 2 * upright)
    edge = box(view, (0, 0), (half, half), 0.02)
    if not crystals:  # one crystal is sawn from a round rod, so its corners are cut
        edge = np.maximum(edge, circle(view, radius=half * chamfer))
    spots = noise(view, part, 2.2, 3)
    grains = natural.cells(view, part, line.uniform(0.15, 0.35), 0.4).value - 0.5 if crystals else np.zeros_like(view.x)
    fingers = bands(cell.x, pitch, 0.2, view.pixel)
    spacing = 2 * half / bars
    mains = bands(cell.y - np.float32(0.5 * spacing * (bars % 2 == 0)), spacing, bar / spacing, view.pixel)
    if glowing:
        inner = np.clip(-edge / np.float32(0.5), 0, 1)
        bright = glow * (1 - rim * (1 - inner) ** 2) * (1 + cloud * spots + 0.2 * grains * (1 + spots))
        bright = bright * (1 + 0.05 * noise(view, part, 27)) * (1 - 0.4 * strength * fingers)
        surface, metal = np.repeat(bright[..., None], 3, axis=2), np.float32(0.06 + 0.25 * strength)
        ground = np.float32(0.03)
    else:
        surface = fill(view, np.broadcast_to(blue, 3)) * (1 + 0.06 * spots + 0.9 * grains)[..., None]
        surface = paint(surface, (0.7, 0.72, 0.75), strength * fingers)
        metal, ground = np.float32(line.uniform(0.7, 0.9)), np.float32(line.choice([0.08, 0.85]))
    surface = paint(surface, np.full(3, metal), mains)
    return sheet(paint(np.full_like(surface, ground), surface, cover(edge, view.pixel)))


def perforated_sheet(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Sheet metal or plastic with round, square or slotted holes in rows, side by side or staggered."""
    surface, behind = colour(line, (0.45, 0.85), float(line.choice([0.05, 0.05, 0.3]))), colour(line, (0.03, 0.25), 0.2)
    pitch, size, kind = line.uniform(0.16, 0.36), line.uniform(0.22, 0.36), int(line.choice([0, 0, 1, 2]))
    staggered, brushed = line.random() < 0.5, line.uniform(0, 0.06)
    plate = drifted(view, part, pitch / 2)
    step = (pitch * (1.6 if kind == 2 else 1.0), pitch * (1.73 if staggered else 1.0))
    hole = np.full_like(view.x, np.inf)
    for right, down in ((0.0, 0.0), (step[0] / 2, step[1] / 2)) if staggered else ((0.0, 0.0),):
        x = np.mod(plate.x + np.float32(right), step[0]) - np.float32(step[0] / 2)
        y = np.mod(plate.y + np.float32(down), step[1]) - np.float32(step[1] / 2)
        local, half = View(x, y, view.pixel), size * pitch
        if kind == 0:
            distance = circle(local, radius=half)
        else:
            distance = box(
                local, (0, 0), (half * (1.8 if kind == 2 else 0.9), half * (0.6 if kind == 2 else 0.9)), 0.02
            )
        hole = np.minimum(hole, distance)
    streaks = noise(view, part, (0.7, 31)) + noise(view, part, (1.1, 53))
    image = natural.mottled(fill(view, surface) * (1 + brushed * streaks)[..., None], view, part, 1.2, 0.05)
    image = lit(image, np.clip(hole / np.float32(0.03), -1, 0.5), 0.5)  # a burr around the holes catches the light
    return sheet(paint(image, behind, cover(hole, view.pixel)))


def corrugated_sheet(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Corrugated sheet, round or trapezoidal, of metal, painted or of cardboard; on some lines with rows of screws."""
    surface = colour(line, (0.35, 0.8), float(line.choice([0.05, 0.5])))
    pitch, sharp, contrast = line.uniform(0.16, 0.42), float(line.choice([0.3, 3.0])), line.uniform(0.2, 0.45)
    upright, sun, gloss = line.random() < 0.5, line.uniform(-0.8, 0.8), line.uniform(0, 0.3)
    screws, every, spacing = line.random() < 0.4, int(line.integers(1, 4)), line.uniform(0.5, 1.0)
    panel = drifted(turned(view, np.pi / 2 * upright), part, pitch / 2, 0.008)
    phase = panel.x * np.float32(2 * np.pi / pitch)
    slope = np.tanh(sharp * np.cos(phase)) / float(np.tanh(sharp))
    shade = (
        1
        - contrast / 2
        + contrast * slope * float(np.sign(sun))
        + gloss * np.exp(-(((slope - np.float32(sun)) / 0.25) ** 2))
    )
    dirt = 0.05 * noise(panel, part, (9, 1.1), 2) + 0.04 * noise(panel, part, 23)
    image = natural.mottled(fill(view, surface) * (shade + dirt)[..., None], view, part, 1.0, 0.04)
    if screws:
        step = pitch * every
        x = np.mod(panel.x + np.float32(pitch / 4), step) - np.float32(step / 2)
        y = np.mod(panel.y, spacing) - np.float32(spacing / 2)
        head = circle(View(x, y, view.pixel), radius=0.035)
        image = paint(image, surface * 0.35, 0.6 * cover(head - np.float32(0.012), view.pixel))
        image = paint(image, np.clip(surface * 1.35, 0, 1), cover(head, view.pixel))
    return sheet(image)


def _print(x: Image, y: Image, kind: int) -> Image:
    """Signed distance to a figure about the origin of a field from -0.5 to 0.5."""
    radius, turn = np.hypot(x, y), np.arctan2(y, x)
    figures = (
        lambda: radius - 0.24,  # dot
        lambda: np.abs(radius - 0.25) - 0.07,  # ring
        lambda: np.minimum(np.maximum(abs(x) - 0.3, abs(y) - 0.08), np.maximum(abs(x) - 0.08, abs(y) - 0.3)),  # cross
        lambda: (np.abs(x) * 1.4 + np.abs(y) - 0.38) * 0.7,  # diamond
        lambda: np.maximum(radius - 0.3 - 0.1 * np.cos(5 * turn), 0.07 - radius),  # flower
        lambda: np.maximum(np.abs(y + 0.6 * np.abs(x) - 0.15) - 0.09, np.abs(x) - 0.46),  # chevron
        lambda: np.maximum(np.abs(x) - 0.22, -0.6 - y),  # stripe
    )
    return np.asarray(figures[kind](), np.float32)


def printed_cloth(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Fine cloth with a small print that repeats, and on some lines stitched seams."""
    ground = natural.dye(line, (0.15, 0.92))
    apart = (0.08, 0.4) if ground.mean() > 0.5 else (0.6, 0.95)  # a print that can be seen
    inks = (natural.dye(line, apart), natural.dye(line, apart))
    pitch, kind, staggered = line.uniform(0.22, 0.5), int(line.integers(7)), line.random() < 0.5
    seams, upright, thread = int(line.integers(3)), line.random() < 0.5, colour(line, (0.3, 0.95), 0.3)
    seam_places, yarn = (-0.55 + line.uniform(-0.2, 0.2), 0.5 + line.uniform(-0.2, 0.2)), line.uniform(0.05, 0.1)
    cloth = drifted(view, part, pitch / 2, 0.03)
    row = np.floor(cloth.y / np.float32(pitch))
    across = cloth.x / np.float32(pitch) + (0.5 * np.mod(row, 2) if staggered and kind < 5 else 0)
    column = np.floor(across)
    figure = _print(across - column - 0.5, cloth.y / np.float32(pitch) - row - 0.5, kind)
    ink = np.where((np.mod(column + (row if kind < 6 else 0), 2) < 1)[..., None], *inks)
    image = paint(fill(view, ground), ink, cover(figure * np.float32(pitch), view.pixel, 0.01))
    weave = np.sin(cloth.x * np.float32(2 * np.pi / yarn)) * np.sin(cloth.y * np.float32(2 * np.pi / yarn))
    image = natural.mottled(image * (1 + 0.07 * weave)[..., None], view, part, 2, 0.04)
    sewn = drifted(turned(view, np.pi / 2 * upright), part, 0.03, 0.01)
    for place in seam_places[:seams]:
        away = sewn.x - np.float32(place)
        image = (
            image
            * (1 - 0.45 * np.exp(-((away / np.float32(0.025)) ** 2)) + 0.1 * np.exp(-((away / 0.09) ** 2)))[..., None]
        )
        stitch = bands(sewn.y, 0.12, 0.65, view.pixel) * cover(
            np.abs(away - np.float32(0.07)) - np.float32(0.012), view.pixel
        )
        image = paint(image, thread, stitch)
    return sheet(image)


TEXTURES: dict[str, Draw] = {
    "grid": grid,
    "fabric": fabric,
    "knit": knit,
    "twill": twill,
    "wood": natural.wood,
    "leather": natural.leather,
    "tile": tile,
    "carpet": natural.carpet,
    "marble": natural.marble,
    "brushed_metal": natural.brushed_metal,
    "solar_cell": solar_cell,
    "paper": natural.paper,
    "perforated_sheet": perforated_sheet,
    "corrugated_sheet": corrugated_sheet,
    "terrazzo": natural.terrazzo,
    "printed_cloth": printed_cloth,
    "concrete": natural.concrete,
    "foam": natural.foam,
    "nonwoven": nonwoven,
    "wool": wool,
}
