# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Turned, milled and ground parts: nut, washer, gear, screw, bearing, coin and lens. See ``textures`` for the rules."""

import numpy as np

from .drawing import Image, Product, View, box, circle, colour, cover, fill, noise, paint, polygon, turned
from .surface import among, bevelled, direction, illuminated, metal, polar, repeated, rounded, unrolled, word, write

_COATINGS = ((0.35, 0.2, 0.55), (0.15, 0.4, 0.35), (0.2, 0.3, 0.6), (0.5, 0.35, 0.15), (0.3, 0.34, 0.36))


def nut(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A hexagonal nut with a threaded hole, with or without flange."""
    light, base = direction(line, part), metal(line)
    flange, size, hole = line.random() < 0.3, line.uniform(0.58, 0.72), line.uniform(0.5, 0.62)
    size, hole = (0.8 * size if flange else size), hole * size
    threads, brushed = line.integers(3, 6), line.uniform(0.03, 0.1)
    radius, angle = polar(view)
    hexagon = polygon(view, 6, size, line.uniform(0, 1))
    chamfer = np.clip((np.float32(1.02 * size) - radius) * np.float32(0.6), -0.08, 0)
    height = np.where(hexagon < 0, 0.12 + rounded(hexagon, 0.04) + chamfer, 0)
    outline = hexagon
    if flange:
        outline = np.minimum(hexagon, radius - np.float32(1.45 * size))
        height = height + rounded(outline, 0.06)
    winding = np.mod(radius * threads * 5 / size + angle / np.float32(2 * np.pi), 1)
    inner = radius < hole
    height = np.where(
        inner, 0.02 * np.abs(winding - 0.5) + 0.5 * (radius - hole), height + bevelled(hole - radius, 0.03)
    )
    image = _turned_metal(view, base, angle, brushed, part)
    image = image * np.where(inner, np.float32(0.35) + np.float32(0.4) * winding, 1)[..., None]
    through = np.maximum(outline, np.float32(0.78 * hole) - radius)
    return Product(illuminated(view, image, height.astype(np.float32), light, 0.5), cover(through, view.pixel))


def washer(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A washer: flat, split as a spring, toothed, or of rubber."""
    light, kind = direction(line, part), line.integers(4)
    base = colour(line, (0.12, 0.6), 0.5) if kind == 3 else metal(line)
    outer, grooves, teeth = line.uniform(0.65, 0.85), line.uniform(15, 40), int(line.integers(10, 22))
    hole, brushed = outer * line.uniform(0.4, 0.68), line.uniform(0.0, 0.12)
    radius, angle = polar(view)
    ring = np.maximum(radius - np.float32(outer), np.float32(hole) - radius)
    if kind == 1:
        gap = box(turned(view, 0.3), (outer, 0.0), (outer, 0.025))
        ring = np.maximum(ring, -gap)
    elif kind == 2:
        notch = np.abs(repeated(angle, 2 * np.pi / teeth)) * radius - np.float32(1.5 * hole / teeth)
        ring = np.maximum(ring, -np.maximum(notch, radius - np.float32(0.4 * hole + 0.6 * outer)))
    else:
        ring = np.asarray(ring, np.float32)
    edge = 0.14 if kind == 3 else line.uniform(0.02, 0.06)
    height = rounded(ring, edge) + np.float32(0.0015) * np.sin(radius * np.float32(2 * np.pi * grooves))
    image = fill(view, base) if kind == 3 else _turned_metal(view, base, angle, brushed, part)
    return Product(illuminated(view, image, height, light, 0.25 if kind == 3 else 0.5), cover(ring, view.pixel))


def gear(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A toothed wheel with bore and hub, and with spokes, holes or a full web."""
    light, plastic = direction(line, part), line.random() < 0.3
    base = colour(line, (0.15, 0.9), 0.7) if plastic else metal(line)
    teeth, outer, depth = int(line.integers(10, 34)), line.uniform(0.7, 0.88), line.uniform(0.7, 1.1)
    kind, openings = line.integers(4), int(line.integers(3, 8))
    bore, hub, flank = line.uniform(0.08, 0.2), line.uniform(1.5, 2.1), line.uniform(1.4, 2.4)
    radius, angle = polar(view)
    pitch = 2 * np.pi / teeth
    depth = min(0.16, depth * outer * pitch * 0.75)
    tooth = np.clip(
        np.abs(repeated(angle, pitch)) * np.float32(2 * flank / pitch) - np.float32(0.5 * flank - 0.5), 0, 1
    )
    outline = (radius - np.float32(outer) + np.float32(depth) * tooth) * np.float32(0.8)
    rim, hub = outer - depth - line.uniform(0.06, 0.14), min(bore * hub, 0.34)
    web = np.maximum(radius - np.float32(rim), np.float32(hub) - radius)
    sector = repeated(angle, 2 * np.pi / openings)
    hole = np.maximum(web + np.float32(0.05), np.float32(0.06) - np.abs(sector) * radius)
    if kind == 0:
        away = np.hypot(radius * np.cos(sector) - np.float32((rim + hub) / 2), radius * np.sin(sector))
        hole = away - np.float32(min(0.36 * (rim - hub), 0.3 * (rim + hub) * np.pi / openings))
    outline = np.maximum(outline, np.float32(bore) - radius)
    outline = np.maximum(outline, -box(view, (0, -bore), (0.3 * bore, 0.35 * bore)))
    outline = np.maximum(outline, -hole) if kind < 2 else outline
    height = rounded(outline, 0.035) - (rounded(web, 0.05) if kind != 3 else 0)
    image = fill(view, base) if plastic else _turned_metal(view, base, angle, 0.07, part)
    return Product(illuminated(view, image, height, light, 0.4), cover(outline, view.pixel))


def screw(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A screw, from the side or from its head."""
    light, base, seen = direction(line, part), metal(line), line.random()
    return (_screw_side if seen < 0.55 else _screw_head)(view, base, light, line, part)


def _screw_side(view: View, base: Image, light: float, line: np.random.Generator, part: np.random.Generator) -> Product:
    local = turned(view, line.uniform(0, np.pi))
    half, length, head = line.uniform(0.12, 0.2), line.uniform(0.72, 0.85), line.uniform(1.6, 2.2)
    pitch, pointed, countersunk = line.uniform(0.07, 0.12), line.random() < 0.6, line.random() < 0.5
    smooth, tall = line.uniform(-0.5, 0.1), line.uniform(0.16, 0.28)
    thread_depth = line.uniform(0.02, 0.035)
    flank = np.abs(np.mod(local.x / np.float32(pitch) + local.y * np.float32(1.6), 1) - 0.5) * 2
    threaded = np.float32(smooth) < local.x
    taper = np.clip((np.float32(length) - local.x) / np.float32(0.25), 0, 1) if pointed else np.float32(1)
    waist = np.float32(half) * taper - np.where(threaded, np.float32(thread_depth) * flank, np.float32(thread_depth))
    shank = np.maximum(np.abs(local.y) - waist, np.abs(local.x) - np.float32(length))
    top = np.float32(-length)
    slope = np.clip((local.x - top) / np.float32(tall), 0, 1)
    reach = (
        1 - slope * np.float32(1 - 1 / head)
        if countersunk
        else np.sqrt(np.clip(2 * slope - slope**2, 0, 1)) * 0.8 + 0.2
    )
    cap = np.maximum(
        np.abs(local.y) - np.float32(half * head) * reach,
        np.abs(local.x - top - np.float32(tall / 2)) - np.float32(tall / 2),
    )
    outline = np.minimum(shank, cap)
    width = np.maximum(waist, np.where(cap < 0, np.float32(half * head) * reach, 0))
    bulge = (
        np.sqrt(np.clip(1 - (local.y / np.maximum(width, np.float32(1e-3))) ** 2, 0, 1))
        * np.minimum(width, np.float32(2 * half))
        * np.float32(0.8)
    )
    image = fill(view, base) * (1 + np.float32(0.06) * noise(view, part, 8)[..., None])
    image = image * np.where(threaded & (cap > shank), 1 - np.float32(0.4) * flank, 1)[..., None]
    return Product(
        illuminated(view, image, bulge.astype(np.float32), light, 0.6), cover(outline.astype(np.float32), view.pixel)
    )


def _screw_head(view: View, base: Image, light: float, line: np.random.Generator, part: np.random.Generator) -> Product:
    size, kind, drive = line.uniform(0.62, 0.82), line.integers(4), line.uniform(0.4, 0.6)
    edge, width = line.uniform(0.06, 0.45), line.uniform(0.06, 0.09)
    local = turned(view, line.uniform(0, np.pi) + part.normal(0, 0.05))
    radius, angle = polar(local)
    disc = radius - np.float32(size)
    slot = box(local, (0, 0), (drive * 1.25 * size, width))
    if kind == 0:
        slot = box(local, (0, 0), (1.2 * size, width))
    elif kind == 1:
        slot = np.minimum(slot, box(local, (0, 0), (width, drive * 1.25 * size)))
    elif kind == 2:
        slot = polygon(local, 6, drive * size)
    else:
        slot = radius - np.float32(drive * size) * (1 + np.float32(0.16) * np.cos(6 * angle))
    slot = np.asarray(slot, np.float32)
    height = rounded(disc, edge * size) - bevelled(slot, 0.07)
    image = _turned_metal(view, base, angle, 0.08, part)
    image = image * (1 - np.float32(0.55) * cover(slot + np.float32(0.04), view.pixel, 0.03))[..., None]
    return Product(illuminated(view, image, height, light, 0.5), cover(disc, view.pixel))


def bearing(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A ball bearing: open with its balls and cage, or closed by a shield."""
    light, base, shield = direction(line, part), metal(line, dark=False), line.random() < 0.25
    balls, outer, bore = int(line.integers(7, 15)), line.uniform(0.7, 0.87), line.uniform(0.32, 0.48)
    cage = among(line, ((0.6, 0.45, 0.25), (0.45, 0.46, 0.48), (0.2, 0.2, 0.22), (0.25, 0.4, 0.3), (0.6, 0.25, 0.2)))
    bore, wall = bore * outer, line.uniform(0.2, 0.28)
    track, gap = (outer + bore) / 2, (outer - bore) * (0.5 - wall)
    radius, angle = polar(view)
    ring = np.maximum(radius - np.float32(outer), np.float32(bore) - radius)
    groove = np.abs(radius - np.float32(track)) - np.float32(gap)
    pitch = 2 * np.pi / balls
    shift = part.uniform(0, pitch)
    across = repeated(angle + np.float32(shift), pitch) * np.float32(track)
    size = min(gap * 0.95, 0.45 * track * pitch)
    away = np.hypot(across, radius - np.float32(track))
    ball = np.sqrt(np.maximum(np.float32(size**2) - away * away, 0))
    height = rounded(ring, 0.04) - bevelled(groove, 0.05)
    image = _turned_metal(view, base, angle, 0.12, part)
    inside = cover(groove, view.pixel)
    if shield:
        image = paint(image, cage * (1 + np.float32(0.1) * np.cos(2 * angle)[..., None]), inside)
        height = height + bevelled(groove + np.float32(0.02), 0.03)
    else:
        dark = (
            cage * (np.float32(0.35) + np.float32(0.65) * (np.abs(radius - np.float32(track)) < 0.45 * gap))[..., None]
        )
        image = paint(paint(image, dark, inside), (0.85, 0.86, 0.88), cover(away - np.float32(size), view.pixel))
        height = height + ball
    return Product(illuminated(view, image, height, light, 0.6), cover(ring, view.pixel))


def coin(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A coin: rim, beads, legend around and a value or star in relief; of one metal or of two."""
    light, base, second = direction(line, part), metal(line, dark=False), metal(line, dark=False)
    outer, rim, beads = line.uniform(0.72, 0.87), line.uniform(0.04, 0.08), int(line.integers(30, 60))
    two, beaded, star = line.random() < 0.3, line.random() < 0.5, int(line.integers(4, 9))
    radius, angle = polar(view)
    disc = radius - np.float32(outer)
    height = bevelled(disc, 0.03) - bevelled(disc + np.float32(rim), 0.03)
    ring = np.abs(radius - np.float32(0.9 * outer - 0.5 * rim)) - np.float32(0.012)
    bead = np.cos(angle * beads) if beaded else np.float32(1)
    height = height + np.float32(0.015) * cover(ring, view.pixel, 0.02) * bead
    legend_view = unrolled(view, 0.74 * outer)
    reach = line.uniform(1.2, 2.2) * outer
    legend = write(legend_view, word(line, int(line.integers(10, 30))), (0, 0), (reach, 0.085 * outer), 1)
    numeral = write(view, word(line, int(line.integers(1, 3))), (0, 0), (0.4 * outer, 0.34 * outer), 2)
    rays = radius - np.float32(0.55 * outer) * (1 - np.float32(0.4) * np.abs(np.sin(angle * np.float32(star / 2))))
    field = np.abs(radius - np.float32(0.58 * outer)) - np.float32(0.012)
    emblem = np.float32(0.5) * bevelled(rays, 0.3) if line.random() < 0.35 else np.float32(0.035) * numeral
    height = height + np.float32(0.03) * legend + emblem + rounded(field, 0.012)
    worn = fill(view, base) * (1 + np.float32(0.06) * noise(view, part, 3)[..., None])
    image = paint(worn, second, cover(radius - np.float32(0.58 * outer), view.pixel)) if two else worn
    return Product(illuminated(view, image, height, light, 0.35), cover(disc, view.pixel))


def lens(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """An objective: coated glass behind a mount with printed ring."""
    light, coating = direction(line, part), among(line, _COATINGS)
    outer, glass, rings = line.uniform(0.72, 0.88), line.uniform(0.55, 0.78), int(line.integers(2, 5))
    mount = among(line, ((0.08, 0.08, 0.09), (0.12, 0.12, 0.13), (0.55, 0.56, 0.58), (0.2, 0.2, 0.22)), 0.02)
    knurls, ink = int(line.integers(40, 80)), (0.85, 0.85, 0.85) if float(mount[0]) < 0.4 else (0.05, 0.05, 0.05)
    glass *= outer
    radius, angle = polar(view)
    disc, pane = radius - np.float32(outer), radius - np.float32(glass)
    steps = np.float32(0.02) * np.cos(radius * np.float32(2 * np.pi / (0.5 * (outer - glass))))
    height = rounded(disc, 0.05) + steps + np.where(disc > -0.05, np.float32(0.01) * np.cos(angle * knurls), 0)
    text = write(
        unrolled(view, (outer + glass) / 2),
        word(line, int(line.integers(8, 18))),
        (0, 0),
        (2.0 * glass, 0.18 * (outer - glass)),
    )
    body = illuminated(view, paint(fill(view, mount), ink, text), height.astype(np.float32), light, 0.3)
    depth = np.clip(radius / np.float32(glass), 0, 1)
    shade = (
        np.float32(0.25)
        + np.float32(0.75) * depth**2
        + np.float32(0.12) * np.cos(depth * np.float32(2 * np.pi * rings))
    )
    iris = polygon(view, int(line.integers(5, 10)), glass * line.uniform(0.25, 0.45), line.uniform(0, 1))
    pupil = cover(iris, view.pixel, 0.02)
    interior = coating * (shade * (1 - np.float32(0.75) * pupil))[..., None]
    facing = np.cos(light) * view.x + np.sin(light) * view.y
    spot = circle(view, (0.45 * glass * np.cos(light), 0.45 * glass * np.sin(light)), 0.13 * glass)
    crescent = np.clip(facing / np.float32(glass), 0, 1) ** 3 * (np.abs(depth - 0.85) < 0.07)
    gleam = np.maximum(0.85 * cover(spot, view.pixel, 0.05), 0.5 * crescent).astype(np.float32)
    ghost = circle(view, (-0.3 * glass * np.cos(light), -0.3 * glass * np.sin(light)), 0.2 * glass)
    interior = paint(interior, 1 - coating, np.float32(0.35) * cover(ghost, view.pixel, 0.03))
    interior = paint(interior, (0.95, 0.95, 1.0), gleam)
    return Product(paint(body, interior, cover(pane, view.pixel)), cover(disc, view.pixel))


def _turned_metal(view: View, base: Image, angle: Image, brushed: float, part: np.random.Generator) -> Image:
    """Metal with the double-wedge sheen of a lathe, and faint clouds that differ from part to part."""
    sheen = np.float32(brushed) * np.cos(2 * angle + np.float32(part.uniform(0, 0.6)))
    clouds = np.float32(0.04) * noise(view, part, 4)
    return np.asarray(base * (1 + sheen + clouds)[..., None], np.float32)
