# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Packaged and household goods: bottle, bottle cap, pill, capsule, button, biscuit and label. See ``textures``."""

import numpy as np

from .drawing import Image, Product, View, box, circle, colour, cover, fill, noise, paint, polygon, turned
from .surface import (
    among,
    bevelled,
    direction,
    illuminated,
    ink_on,
    jitter,
    metal,
    polar,
    repeated,
    rounded,
    stamp,
    word,
    write,
)

_GLASS = (
    (0.28, 0.13, 0.05),
    (0.1, 0.25, 0.12),
    (0.5, 0.58, 0.58),
    (0.12, 0.2, 0.32),
    (0.8, 0.8, 0.78),
    (0.18, 0.18, 0.2),
)
_DOUGH = ((0.82, 0.62, 0.36), (0.72, 0.48, 0.24), (0.88, 0.74, 0.5), (0.32, 0.2, 0.13))
_CREAMS = (
    (0.93, 0.93, 0.9),
    (0.92, 0.85, 0.62),
    (0.9, 0.62, 0.55),
    (0.55, 0.72, 0.85),
    (0.6, 0.8, 0.6),
    (0.85, 0.55, 0.25),
)


def bottle(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A bottle from above: shoulder, neck ring, lip and open mouth."""
    light, glass = direction(line, part), among(line, _GLASS, 0.03)
    outer, neck, lip = line.uniform(0.75, 0.88), line.uniform(0.5, 0.7), line.uniform(0.06, 0.11)
    neck, inside, ground = neck * outer, line.uniform(0.1, 0.5), line.uniform(0.45, 0.7)
    steps, mouth = line.uniform(0.02, 0.05), neck - lip
    radius, angle = polar(view)
    body = radius - np.float32(outer)
    collar = np.abs(radius - np.float32(neck + 0.06)) - np.float32(steps)
    rim = np.abs(radius - np.float32(neck - lip / 2)) - np.float32(lip / 2)
    wall = np.clip((np.float32(mouth) - radius) / np.float32((1 - ground) * mouth), 0, 1)
    height = rounded(body, outer - neck) * np.float32(0.7) + rounded(collar, steps) + rounded(rim, lip / 2) * 1.5
    image = fill(view, glass) * (1 + np.float32(0.05) * noise(view, part, 2)[..., None])
    image = image * (1 - np.float32(1 - inside) * wall * (1 - np.float32(0.4) * (wall == 1)))[..., None]
    image = illuminated(view, image, height, light, 0.45)
    facing = np.cos(angle - np.float32(light))
    window = np.clip(facing * 4 - np.float32(2), 0, 1) + np.float32(0.6) * np.clip(-facing * 6 - np.float32(4), 0, 1)
    gleam = _band(radius, 0.9 * outer, 0.02, view.pixel) + _band(radius, neck - 0.5 * lip, 0.3 * lip, view.pixel)
    gleam = gleam + np.float32(0.7) * _band(radius, neck + 0.06, 0.4 * steps, view.pixel)
    bottom = _band(radius, ground * mouth, 0.015, view.pixel)
    gleam = np.clip(np.float32(0.85) * window * gleam + np.float32(0.3) * bottom, 0, 1)
    return Product(paint(image, (0.97, 0.97, 0.95), gleam), cover(body, view.pixel))


def _band(radius: Image, middle: float, half: float, pixel: float) -> Image:
    """Cover of a soft ring."""
    return cover(np.abs(radius - np.float32(middle)) - np.float32(half), pixel, 0.02)


def bottle_cap(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A crown cork with crimped edge, or a knurled screw cap, with a print."""
    light, crown = direction(line, part), line.random() < 0.6
    lacquer = metal(line, dark=False) if line.random() < 0.2 else colour(line, (0.15, 0.8), 0.5)
    second = colour(line, (0.1, 0.95), 0.5)
    ink = ink_on(line, second)
    outer, knurls = line.uniform(0.72, 0.86), int(line.integers(60, 110))
    ring, emblem, sides = line.uniform(0.55, 0.7), line.random(), int(line.integers(3, 9))
    radius, angle = polar(view)
    wave = np.cos(angle * (21 if crown else knurls))
    edge = radius - np.float32(outer) + np.float32(0.035 if crown else 0.01) * wave
    flat = 0.8 * outer
    skirt = np.clip((radius - np.float32(flat)) / np.float32(outer - flat), 0, 1)
    height = rounded(edge, 0.1 if crown else 0.06) + np.float32(0.05 if crown else 0.012) * skirt * -wave
    height = height + rounded(radius - np.float32(flat), 0.08)
    image = fill(view, lacquer) * (1 + np.float32(0.04) * noise(view, part, 3)[..., None])
    shift = jitter(part)
    print_view = turned(
        View(view.x - np.float32(shift[0]), view.y - np.float32(shift[1]), view.pixel), part.normal(0, 0.04)
    )
    image = paint(image, second, cover(circle(print_view, radius=ring * outer), view.pixel))
    if emblem < 0.5:
        mark = cover(polygon(print_view, sides, 0.3 * outer), view.pixel)
    else:
        mark = cover(np.abs(circle(print_view, radius=0.9 * ring * outer)) - np.float32(0.015), view.pixel)
    image = paint(image, ink, mark)
    text = write(print_view, word(line, int(line.integers(2, 6))), (0, 0), (0.55 * ring, 0.2), 2)
    image = paint(image, ink, text if emblem >= 0.5 else np.zeros_like(text))
    return Product(illuminated(view, image, height, light, 0.45), cover(edge, view.pixel))


def pill(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A tablet, round or oblong, with a score line, an imprint, or both."""
    light, coat = direction(line, part), among(line, _CREAMS)
    kind, long, wide = line.integers(3), line.uniform(0.68, 0.85), line.uniform(0.5, 0.68)
    edge, scored, stamped = line.uniform(0.12, 0.4), line.random() < 0.55, line.random() < 0.6
    speckled, fleck = line.random() < 0.4, colour(line, (0.2, 0.7), 0.9)
    speckles = noise(view, line, 24)
    local = turned(view, line.uniform(0, np.pi))
    half = (long * 0.92, long * 0.92) if kind == 0 else (long, wide)
    body = box(local, (0, 0), half, half[1] if kind < 2 else 0.5 * half[1])
    height = rounded(body, edge * half[1]) + rounded(body + np.float32(0.06), half[1]) * np.float32(0.25)
    groove = np.maximum(np.abs(local.x) - np.float32(0.035), body + np.float32(0.07))
    if scored or not stamped:
        height = height - np.float32(0.9) * rounded(groove.astype(np.float32), 0.035)
    if stamped:
        place = (half[0] * (-0.45 if scored else 0), 0.0)
        imprint = write(
            local,
            word(line, int(line.integers(1, 4))),
            place,
            (0.3 * half[0] if scored else 0.5 * half[0], 0.33 * half[1]),
            1,
        )
        height = height - np.float32(0.03) * imprint
    tone = 1 + np.float32(0.015) * noise(view, part, 20)
    image = fill(view, coat) * tone[..., None]
    if speckled:
        image = paint(image, fleck, np.clip(speckles * 2 - np.float32(1.4), 0, 0.6))
    return Product(illuminated(view, image, height, light, 0.2), cover(body, view.pixel))


def capsule(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A capsule of two colours with a print."""
    light, local = direction(line, part), turned(view, line.uniform(0, np.pi))
    half, length = line.uniform(0.26, 0.36), line.uniform(0.76, 0.88)
    first, second = colour(line, (0.15, 0.9), 0.7), colour(line, (0.3, 0.95), 0.6)
    joint, inks = line.uniform(-0.1, 0.15), (ink_on(line, first), ink_on(line, second))
    joint += part.normal(0, 0.008)
    whole = box(local, (0, 0), (length, half), half)
    cap = np.maximum(whole, np.float32(joint) - local.x)
    body = box(local, (-0.02, 0), (length - 0.02, half * 0.94), half * 0.94)
    outline = np.minimum(cap, body)
    on_cap = cover(np.float32(joint) - local.x, view.pixel)
    image = paint(fill(view, first), second, on_cap) * (1 + np.float32(0.02) * noise(view, part, 4)[..., None])
    shift = jitter(part, 0.012)
    text = word(line, int(line.integers(2, 5)))
    left = write(local, text, (shift[0] + (joint - length) / 2 + 0.05, shift[1]), (0.29 * (length + joint), 0.4 * half))
    right = write(
        local,
        word(line, int(line.integers(2, 5))),
        (shift[0] + (joint + length) / 2 - 0.05, shift[1]),
        (0.27 * (length - joint), 0.35 * half),
    )
    image = paint(paint(image, inks[0], left), inks[1], right)
    height = rounded(whole, half) * np.float32(0.9) + np.float32(0.02) * on_cap
    locks = np.abs(local.x - np.float32(joint - 0.08)) - np.float32(0.012)
    height = height - np.float32(0.012) * cover(locks, view.pixel, 0.01)
    return Product(illuminated(view, image, height, light, 0.7), cover(outline, view.pixel))


def button(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A cloth button with two or four holes."""
    light, base = direction(line, part), colour(line, (0.1, 0.92), 0.55)
    outer, rim, holes = line.uniform(0.7, 0.87), line.uniform(0.1, 0.22), (2, 4)[line.integers(2)]
    size, away, marbled = line.uniform(0.07, 0.11), line.uniform(0.15, 0.22), line.random() < 0.5
    notches, veins = int(line.integers(0, 2)) * int(line.integers(24, 60)), noise(view, line, (1.5, 6), 2)
    radius, angle = polar(view)
    disc = radius - np.float32(outer)
    sector = repeated(angle - np.float32(np.pi / 4), 2 * np.pi / holes)
    hole = np.hypot(radius * np.cos(sector) - np.float32(away), radius * np.sin(sector)) - np.float32(size)
    bowl = circle(view, radius=(1 - rim) * outer)
    height = rounded(disc, rim * outer) - np.float32(0.6) * rounded(bowl, 0.14)
    height = height + np.where(bowl > 0, np.float32(0.012) * np.cos(angle * notches), 0)
    image = fill(view, base) * (1 + np.float32(0.02) * noise(view, part, 3)[..., None])
    if marbled:
        image = image * (1 + np.float32(0.22) * veins[..., None])
    outline = np.maximum(disc, -hole).astype(np.float32)
    height = np.minimum(height, rounded(-hole, 0.05) + np.float32(0.05)).astype(np.float32)
    return Product(illuminated(view, image, height, light, 0.5), cover(outline, view.pixel))


def biscuit(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A biscuit, round or square, with a scalloped edge, browned rim, docker holes or imprint, or chocolate chips."""
    light, dough, square = direction(line, part), among(line, _DOUGH, 0.02), line.random() < 0.4
    half, scallops, deep = line.uniform(0.68, 0.82), int(line.integers(12, 30)), line.uniform(0.0, 0.03)
    kind, pitch, dark = line.integers(3), line.uniform(0.22, 0.34), line.uniform(0.45, 0.7)
    radius, angle = polar(view)
    edge = box(view, (0, 0), (half, half * line.uniform(0.75, 1)), 0.1) if square else radius - np.float32(half)
    along = (view.x + view.y) * np.float32(0.5 * scallops) if square else angle * scallops
    edge = edge + np.float32(deep) * np.cos(along) + np.float32(0.012) * noise(view, part, 3)
    crumbs = noise(view, part, 14, 2)
    height = rounded(edge, 0.16) + np.float32(0.012) * crumbs
    image = fill(view, dough) * (1 + np.float32(0.06) * crumbs[..., None])
    browned = np.clip(1 + (edge + np.float32(0.02)) / np.float32(0.16), 0, 1) ** 2
    image = image * (1 - np.float32(1 - dark) * browned[..., None] * np.array((0.6, 0.9, 1.1), np.float32))
    text = word(line, int(line.integers(3, 7)))
    if kind == 2:
        chips = np.maximum(noise(view, line, 4.5) * np.float32(0.12) - np.float32(0.045), 0) * (edge < -0.1)
        height = height + np.minimum(chips, np.float32(0.06))
        image = paint(image, (0.2, 0.1, 0.06), np.clip(chips * 60, 0, 1).astype(np.float32))
    else:
        dockers = np.hypot(repeated(view.x, pitch), repeated(view.y, pitch)) - np.float32(0.03)
        dockers = np.maximum(dockers, edge + np.float32(0.14))
        imprint = write(view, text, (0, 0), (0.72 * half, 0.28), 2) if kind == 1 else np.zeros_like(radius)
        dockers = np.maximum(dockers, np.float32(0.24) - np.abs(view.y)) if kind == 1 else dockers
        pressed = np.maximum(imprint, cover(dockers, view.pixel, 0.02))
        frame = cover(np.abs(edge + np.float32(0.1)) - np.float32(0.012), view.pixel, 0.02)
        height = height - np.float32(0.04) * np.maximum(pressed, frame * np.float32(0.6))
        image = image * (1 - np.float32(0.35) * pressed[..., None])
    return Product(illuminated(view, image, height.astype(np.float32), light, 0.08), cover(edge, view.pixel))


def label(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """A printed label with a coloured header, lines of text and a barcode."""
    light, paper = direction(line, part), colour(line, (0.82, 0.96), 0.25)
    half = (line.uniform(0.7, 0.88), line.uniform(0.5, 0.8))
    brand, ink = colour(line, (0.12, 0.45), 0.6), colour(line, (0.04, 0.2), 0.5)
    foot, bars_left, logo = line.random() < 0.5, line.random() < 0.5, int(line.integers(3, 9))
    sheet = box(view, (0, 0), half, line.uniform(0.02, 0.14))
    shift = jitter(part, 0.01)
    local = View(
        (view.x - np.float32(shift[0])) / np.float32(half[0]),
        (view.y - np.float32(shift[1])) / np.float32(half[1]),
        view.pixel / half[1],
    )
    image = fill(view, paper) * (1 + np.float32(0.015) * noise(view, part, 2)[..., None])
    header = local.y + np.float32(line.uniform(0.35, 0.6))
    band = np.minimum(header, np.float32(0.86) - local.y) if foot else header
    image = paint(image, brand, cover(band, local.pixel))
    image = paint(image, paper, write(local, word(line, int(line.integers(4, 9))), (0.2, -0.72), (0.65, 0.15), 2))
    emblem = View((local.x + np.float32(0.72)) * np.float32(half[0] / half[1]), local.y + np.float32(0.72), local.pixel)
    image = paint(
        image,
        among(line, ((0.95, 0.95, 0.9), (0.9, 0.75, 0.2), (0.1, 0.1, 0.12))),
        cover(polygon(emblem, logo, 0.14), local.pixel),
    )
    side = -1 if bars_left else 1
    code = np.repeat((line.random((1, 36)) < 0.5).astype(np.float32), 3, axis=1)
    ink_of = stamp(local, np.repeat(code, 8, axis=0), (side * 0.45, 0.4), (0.42, 0.25))
    digits = write(local, word(line, 10), (side * 0.45, 0.73), (0.4, 0.045))
    text = stamp(local, _paragraph(line), (-side * 0.47, 0.25), (0.43, 0.5))
    title = write(local, word(line, 7), (side * 0.45, 0.0), (0.42, 0.1), 1)
    image = paint(image, ink, np.maximum(np.maximum(ink_of, digits), np.maximum(text, title)))
    return Product(illuminated(view, image, bevelled(sheet, 0.02), light, 0.05), cover(sheet, view.pixel))


def _paragraph(line: np.random.Generator) -> Image:
    """Bitmap of lines of small print: marks with gaps, ragged at the right."""
    rows, columns = int(line.integers(4, 8)), 44
    marks = (line.random((rows, columns)) < 0.78) * line.uniform(0.5, 0.95, (rows, columns))
    marks = marks * (np.arange(columns) < line.integers(columns // 2, columns + 1, (rows, 1)))
    page = np.zeros((rows, 4, columns), np.float32)
    page[:, 1:3] = marks[:, None]
    return page.reshape(rows * 4, columns).repeat(3, axis=0).repeat(3, axis=1)  # lines one below the other
