# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Defects of rendered products: one function a kind, all with the same signature, each with its exact mask.

A defect is drawn into the product before background, lighting, focus and noise, in product coordinates, about a place
that lies on the product, or all over. Its mask are the pixels that it covers at least half; that of a deformation,
which has no edge, is where it shows, and a pixel around.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np

from .drawing import Image, Product, View, blur, colour, cover, fill, log_uniform, noise, paint, path


class Damage(NamedTuple):
    """A product with a defect.

    Attributes:
        product (Product): The product, as it now looks.
        mask (Image): How far the defect covers every pixel (S, S), 0 to 1.
    """

    product: Product
    mask: Image


RIM = float(np.exp(-2.5))  # of a bell curve, where a dent ends
DARK = 0.3  # mean of the channels below which a surface cannot be darkened visibly

Place: TypeAlias = tuple[float, float]
Defect: TypeAlias = Callable[[View, Product, Place, np.random.Generator], Damage]


def scratch(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A few thin, nearly straight lines, lighter or darker than the surface."""
    direction, length = rng.uniform(0, np.pi), rng.uniform(0.35, 1.0)
    distance = np.full_like(view.x, 9)
    for _ in range(rng.integers(1, 4)):
        points = _walk(rng, place, direction + rng.normal(0, 0.08), length, steps=4, bend=0.12)
        line = path(view, points + rng.normal(0, 0.04, 2), max(rng.uniform(0.012, 0.035), 1.2 * view.pixel))
        distance = np.minimum(distance, line)
    return _tint(view, product, cover(distance, view.pixel), _contrast(product, place, view, rng, 0.4))


def crack(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A jagged line with a branch: dark, or with bright edges in a dark material."""
    direction, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.9)
    stem = _walk(rng, place, direction, length, steps=7, bend=0.55)
    fork = stem[rng.integers(2, 5)] - (length / 4) * np.array([np.cos(direction + 0.8), np.sin(direction + 0.8)])
    branch = _walk(rng, (fork[0], fork[1]), direction + 0.8, length / 2, steps=4, bend=0.6)
    width = max(rng.uniform(0.015, 0.04), 1.2 * view.pixel)
    distance = np.minimum(path(view, stem, width), path(view, branch, width * 0.8))
    local = _local(product, place, view)
    tone = local * rng.uniform(0.05, 0.4) if local.mean() > DARK else local + np.float32(rng.uniform(0.25, 0.5))
    return _tint(view, product, cover(distance, view.pixel), tone)


def hole(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A round or oval hole with a dark inside and a lit edge."""
    radius = rng.uniform(0.06, 0.18)
    distance = _blob(view, place, radius, rng, ragged=0.1)
    local = _local(product, place, view)
    inside, burr = local * rng.uniform(0.05, 0.35), 0.3 if local.mean() <= DARK else 0.0
    edge = np.clip(local * rng.uniform(1.1, 1.6) + np.float32(burr), 0, 1)
    image = paint(product.image, edge, cover(distance - np.float32(0.15 * radius), view.pixel, 0.05 * radius))
    image = paint(image, inside, cover(distance, view.pixel, 0.1 * radius))
    return _damage(product, image, cover(distance - np.float32(0.15 * radius), view.pixel))


def stain(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A cloudy discoloured spot through which the surface shows."""
    distance = _blob(view, place, rng.uniform(0.1, 0.32), rng, ragged=0.35)
    spot = cover(distance, view.pixel, rng.uniform(0.02, 0.08))
    dye, strength = colour(rng, (0.1, 0.9), 0.8), rng.uniform(0.4, 0.75)
    dyed = paint(product.image, dye, np.full_like(view.x, strength))
    return _damage(product, paint(product.image, _apart(dyed, product, spot, 0.25), spot), spot)


def contamination(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """Grains of something else, lying together."""
    distance = np.full_like(view.x, 9)
    for _ in range(rng.integers(2, 8)):
        centre = np.asarray(place) + rng.normal(0, 0.12, 2)
        distance = np.minimum(distance, _blob(view, (centre[0], centre[1]), rng.uniform(0.035, 0.08), rng, 0.3))
    grain = _contrast(product, place, view, rng, 0.4)[None, None] * (1 + 0.25 * noise(view, rng, 25))[..., None]
    spot = cover(distance, view.pixel)
    return _damage(product, paint(product.image, np.clip(grain, 0, 1).astype(np.float32), spot), spot)


def dent(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A hollow: lit on one side, shaded on the other, and it bends the pattern."""
    radius, light = rng.uniform(0.12, 0.3), rng.uniform(0, 2 * np.pi)
    x, y = view.x - np.float32(place[0]), view.y - np.float32(place[1])
    # Ends at the radius: a pattern that is bent further out would lie outside of the mask.
    depth = np.clip(np.exp(-(x**2 + y**2) / np.float32(0.4 * radius**2)) - np.float32(RIM), 0, 1) / np.float32(1 - RIM)
    slope = (np.cos(light) * x + np.sin(light) * y) / radius * depth
    bent = _displace(product.image, 0.35 * x * depth / view.pixel, 0.35 * y * depth / view.pixel)
    image = _lit(bent, slope * rng.uniform(1.6, 2.6))
    return _damage(product, image, cover(np.hypot(x, y).astype(np.float32) - np.float32(radius), view.pixel))


def discolouration(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A patch with sharp edges where print or coating has another tone."""
    size, angle = rng.uniform(0.1, 0.3, 2), rng.uniform(0, np.pi)
    x, y = view.x - np.float32(place[0]), view.y - np.float32(place[1])
    across = np.abs(np.cos(angle) * x + np.sin(angle) * y) - size[0]
    along = np.abs(np.cos(angle) * y - np.sin(angle) * x) - size[1]
    distance = np.maximum(across, along) + 0.02 * noise(view, rng, 12)
    spot = cover(distance.astype(np.float32), view.pixel)
    toned = np.clip(product.image * rng.uniform(0.6, 1.4, 3) + rng.uniform(-0.15, 0.15), 0, 1).astype(np.float32)
    return _damage(product, paint(product.image, _apart(toned, product, spot, 0.25), spot), spot)


def missing(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A piece is broken off, and the broken face shows, or worn away down to the bare ground under a texture."""
    radius = rng.uniform(0.12, 0.26)
    distance = _blob(view, place, radius, rng, ragged=0.2)
    spot = cover(distance, view.pixel)
    if product.cover.min() > 0.5:  # nothing lies behind a texture
        ground = blur(product.image, 12.0) * np.float32(rng.choice([0.55, 1.5]))
        return _damage(product, paint(product.image, np.clip(ground, 0, 1), spot), spot)
    x, y = np.asarray(place) + rng.uniform(0.15, 0.35) * radius * np.asarray(_unit(rng))
    broken = np.minimum(distance, _blob(view, (float(x), float(y)), radius, rng, ragged=0.3))
    break_line = cover(broken, view.pixel)
    face = _contrast(product, place, view, rng, 0.3)[None, None] * (1 + 0.2 * noise(view, rng, 20))[..., None]
    image = paint(product.image, np.clip(face, 0, 1).astype(np.float32), break_line)
    return Damage(Product(image, product.cover * (1 - spot)), np.minimum(break_line, product.cover))


def fibre(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A thread or hair that lies on the product in a curve."""
    direction, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)
    steps = direction + turn * np.arange(9)
    points = np.asarray(place) + np.cumsum(np.stack([np.cos(steps), np.sin(steps)], 1), 0) * rng.uniform(0.04, 0.09)
    points = points - points.mean(0) + np.asarray(place)
    distance = path(view, points, max(rng.uniform(0.015, 0.04), 1.2 * view.pixel))
    return _tint(
        view, product, cover(distance, view.pixel), _contrast(product, place, view, rng, 0.4), on_product=False
    )


def deformation(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """The pattern or outline is twisted and pulled aside, in wrinkles that catch the light."""
    radius, twist = rng.uniform(0.16, 0.34), rng.choice([-1, 1]) * rng.uniform(0.9, 1.8)
    x, y = view.x - np.float32(place[0]), view.y - np.float32(place[1])
    near = np.clip(1 - np.hypot(x, y) / radius, 0, 1) ** 2
    angle = twist * near
    shift = np.float32(rng.uniform(-0.1, 0.1)) * near
    across = (np.cos(angle) - 1) * x - np.sin(angle) * y + shift
    along = np.sin(angle) * x + (np.cos(angle) - 1) * y + shift
    course = _unit(rng)
    phase = (course[0] * (x + across) + course[1] * (y + along)) * rng.uniform(8, 14) / radius
    wrinkles = np.sqrt(near) * np.sin(phase)
    bent = _displace(product.image, across / view.pixel, along / view.pixel)
    image = _lit(bent, wrinkles * rng.uniform(0.3, 0.6))
    outline = _displace(product.cover, across / view.pixel, along / view.pixel)
    changed = np.abs(image - product.image).max(2) * np.maximum(outline, product.cover)
    changed = np.maximum(changed, np.abs(outline - product.cover))
    # Where nothing moves visibly, nobody can see a defect: the mask is where it shows, closed to one region.
    shows = cv2.dilate((changed > 0.06).astype(np.float32), np.ones((5, 5), np.uint8))
    shows = cv2.erode(shows, np.ones((3, 3), np.uint8))
    return Damage(Product(image, outline), np.asarray(shows * (near > 0), np.float32))


def misplaced(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A piece of the product itself, turned, in the wrong place."""
    distance = _blob(view, place, rng.uniform(0.12, 0.26), rng, ragged=0.25)
    spot = cover(distance, view.pixel)
    size = view.x.shape[0]
    quarter = np.rot90(product.image, int(rng.integers(1, 4)))
    moved = np.roll(quarter, tuple(rng.integers(size // 6, size // 2, 2)), (0, 1))
    changed = _apart(moved, product, spot, 0.2)
    return _damage(product, paint(product.image, changed, spot), spot)


def burn(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """A scorched spot, black in the middle and brown around."""
    radius = rng.uniform(0.08, 0.24)
    distance = _blob(view, place, radius, rng, ragged=0.3)
    around, core = (
        cover(distance, view.pixel, 0.25 * radius),
        cover(distance + np.float32(0.4 * radius), view.pixel, 0.3),
    )
    tone = np.asarray((0.45, 0.33, 0.22), np.float32) * np.float32(rng.uniform(0.5, 1.1))
    burnt = paint(product.image * tone, fill(view, (0.05, 0.04, 0.04)), core * 0.7)
    return _damage(product, paint(product.image, _apart(burnt, product, around, 0.2), around), around)


def frayed(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """Fibres have lost their order in a spot: points of the texture lie about at random, and stand out."""
    own = np.random.default_rng(rng.integers(1 << 32))  # how many points there are must not count for another attempt
    radius, reach, contrast = log_uniform(own, 0.02, 0.12), own.uniform(0.03, 0.15), own.uniform(1.7, 4)
    spot = cover(_blob(view, place, radius, own, ragged=0.3, slenderest=0.4), view.pixel)
    across, along = np.float32(reach / view.pixel) * own.standard_normal((2, *view.x.shape), np.float32)
    loose = _displace(product.image, across, along)
    return _damage(product, paint(product.image, _with_contrast(loose, product.image, contrast), spot), spot)


def worn(view: View, product: Product, place: Place, rng: np.random.Generator) -> Damage:
    """Fibres are torn to short ones, all over: half or more of the coarser structure is gone."""
    del place
    coarse = blur(product.image, log_uniform(rng, 0.03, 0.15) / view.pixel)
    fine = product.image - np.float32(rng.uniform(0.5, 1)) * (coarse - coarse.mean((0, 1)))
    return _damage(product, _with_contrast(fine, product.image, 1), np.ones_like(view.x))


def _with_contrast(image: Image, like: Image, times: float) -> Image:
    """An image (S, S, 3) with the mean colour of another, and so many times its contrast."""
    deviation, usual = image - image.mean((0, 1)), like - like.mean((0, 1))
    stretch = np.float32(times * usual.std() / max(float(deviation.std()), 1e-3))
    return np.asarray(np.clip(like.mean((0, 1)) + stretch * deviation, 0, 1), np.float32)


# Of any product.
DEFECTS: dict[str, Defect] = {
    defect.__name__: defect
    for defect in (
        scratch, crack, hole, stain, contamination, dent, discolouration, missing, fibre, deformation, misplaced, burn,
    )
}  # fmt: skip


def _walk(
    rng: np.random.Generator, centre: Place, direction: float, length: float, steps: int, bend: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    turns = direction + np.cumsum(rng.normal(0, bend, steps))
    points = np.concatenate([[[0.0, 0.0]], np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1), 0)])
    return np.asarray((points - points.mean(0)) * (length / steps) + np.asarray(centre), np.float64)


def _blob(
    view: View, place: Place, radius: float, rng: np.random.Generator, ragged: float, slenderest: float = 0.6
) -> Image:
    """Signed distance to a round or oval spot with an uneven border."""
    angle, oval = rng.uniform(0, np.pi), rng.uniform(slenderest, 1.0)
    x, y = view.x - np.float32(place[0]), view.y - np.float32(place[1])
    across, along = np.cos(angle) * x + np.sin(angle) * y, (np.cos(angle) * y - np.sin(angle) * x) / oval
    uneven = noise(view, rng, 0.7 / radius, octaves=2) if radius > 4 * view.pixel else np.zeros_like(view.x)
    return np.asarray(np.hypot(across, along) - radius * (1 + ragged * uneven), np.float32)


def _displace(image: Image, across: Image, along: Image) -> Image:
    rows, columns = np.indices(image.shape[:2], dtype=np.float32)
    x, y = (columns + across).astype(np.float32), (rows + along).astype(np.float32)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)


def _unit(rng: np.random.Generator) -> Place:
    """A direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return float(np.cos(angle)), float(np.sin(angle))


def _lit(image: Image, slope: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image:
    """Light on one side of a slope and shade on the other; a sheen shows it on dark surfaces as well."""
    turned_up = slope[..., None].astype(np.float32)  # (S, S, 1)
    return np.asarray(np.clip(image * (1 + turned_up) + np.float32(0.2) * turned_up, 0, 1), np.float32)


def _local(product: Product, place: Place, view: View) -> Image:
    """Colour (3,) of the product about a place."""
    near = np.hypot(view.x - np.float32(place[0]), view.y - np.float32(place[1])) < 0.15 + view.pixel
    return np.asarray(product.image[near].mean(0), np.float32)


def _contrast(product: Product, place: Place, view: View, rng: np.random.Generator, least: float) -> Image:
    """A colour (3,) that differs from the product about a place by at least so much in lightness."""
    local = _local(product, place, view)
    grey = float(local.mean())
    lighter = rng.random() < (0.5 if least < grey < 1 - least else float(grey < 0.5))
    step = rng.uniform(least, max(least, (1 - grey) if lighter else grey))
    tone = local + (step if lighter else -step) + rng.normal(0, 0.06, 3)
    return np.asarray(np.clip(tone, 0, 1), np.float32)


def _apart(changed: Image, product: Product, spot: Image, least: float) -> Image:
    """An image that differs from the product by at least so much on average where the spot is."""
    weight = spot[..., None] / (spot.sum() + 1e-6)
    difference = (np.abs(changed - product.image) * weight).sum() / 3
    lighter = float((product.image * weight).sum()) / 3 < 0.5
    lack = max(0.0, least - float(difference))
    return np.asarray(np.clip(changed + (2 * lack if lighter else -2 * lack), 0, 1), np.float32)


def _tint(view: View, product: Product, spot: Image, tone: Image, on_product: bool = True) -> Damage:
    """Paint a spot in one colour; if it is not confined to the product, it lies over the edge, too."""
    image = paint(product.image, fill(view, tone), spot)
    if on_product:
        return _damage(product, image, spot)
    return Damage(Product(image, np.maximum(product.cover, spot)), spot)


def _damage(product: Product, image: Image, spot: Image) -> Damage:
    return Damage(Product(image, product.cover), np.minimum(spot, product.cover))
