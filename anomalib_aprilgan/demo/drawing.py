# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Strokes of the renderer: shapes as signed distances, noise, and paint. All images are float32 in [0, 1].

A shape is the signed distance (S, S) of every pixel to its border, in product coordinates, negative inside. Distances
are combined with ``numpy.minimum`` (union) and ``numpy.maximum`` (intersection), and turned into paint by ``cover``.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.float32]  # (S, S, 3) or, where it is one channel, (S, S)


class View(NamedTuple):
    """How the camera sees the product.

    Attributes:
        x (Image): Horizontal product coordinate of every pixel (S, S); about -1 to 1 across the picture, to the right.
        y (Image): Vertical product coordinate (S, S), downwards.
        pixel (float): Size of a pixel in product coordinates.
    """

    x: Image
    y: Image
    pixel: float


class Product(NamedTuple):
    """A part, before it is laid on its background.

    Attributes:
        image (Image): Its colours (S, S, 3).
        cover (Image): What it covers of every pixel (S, S), 0 to 1.
    """

    image: Image
    cover: Image


# A category: from the view and the generators of product line and part.
Draw: TypeAlias = Callable[[View, np.random.Generator, np.random.Generator], Product]


def look(size: int, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), zoom: float = 1.0) -> View:
    """View of a product that is turned, moved and scaled.

    Args:
        size (int): Side S of the picture in pixels.
        angle (float): Turn of the product in radians, clockwise.
        shift (tuple[float, float]): Place of the product's centre, right and down.
        zoom (float): Scale of the product.

    Returns:
        View: Product coordinates of the pixels.

    Example:
        >>> view = look(4)
        >>> view.x[0].tolist(), view.pixel
        ([-0.75, -0.25, 0.25, 0.75], 0.5)
    """
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = np.meshgrid(axis - np.float32(shift[0]), axis - np.float32(shift[1]))
    cosine, sine = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
    return View(cosine * x + sine * y, cosine * y - sine * x, 2 / (size * zoom))


def cover(distance: Image, pixel: float, softness: float = 0.0) -> Image:
    """Share of each pixel that a shape covers, from its signed distance.

    Args:
        distance (Image): Signed distance (S, S).
        pixel (float): Size of a pixel; the border is about one pixel wide.
        softness (float): Additional width of the border in product coordinates.

    Returns:
        Image: Cover (S, S) in [0, 1].

    Example:
        >>> cover(np.float32([-1, 0, 0.25, 1]), pixel=1.0).tolist()
        [1.0, 0.5, 0.25, 0.0]
    """
    return _float32(np.clip(0.5 - distance / (pixel + softness), 0, 1))


def paint(image: Image, colour: Image | tuple[float, ...], where: Image) -> Image:
    """Lay a colour (or another image) over an image, where and as far as the cover says."""
    opacity = where[..., None]  # (S, S, 1)
    return _float32(image + (np.asarray(colour, np.float32) - image) * opacity)


def fill(view: View, colour: Image | tuple[float, ...]) -> Image:
    """An image (S, S, 3) of one colour."""
    return _float32(np.broadcast_to(np.asarray(colour), (*view.x.shape, 3)))


def circle(view: View, centre: tuple[float, float] = (0.0, 0.0), radius: float = 0.5) -> Image:
    """Signed distance to a disc."""
    away = np.hypot(view.x - np.float32(centre[0]), view.y - np.float32(centre[1]))
    return _float32(away - radius)


def box(
    view: View, centre: tuple[float, float], half: tuple[float, float], corner: float = 0.0, angle: float = 0.0
) -> Image:
    """Signed distance to a rectangle of half width and height, with round corners, turned about its centre."""
    x, y = view.x - np.float32(centre[0]), view.y - np.float32(centre[1])
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across = np.abs(cosine * x + sine * y) - np.float32(half[0] - corner)
    along = np.abs(cosine * y - sine * x) - np.float32(half[1] - corner)
    outside = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
    return _float32(outside + np.minimum(np.maximum(across, along), 0) - corner)


def stroke(view: View, start: tuple[float, float], end: tuple[float, float], width: float) -> Image:
    """Signed distance to a straight stroke with round ends."""
    across, along = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    x, y = view.x - np.float32(start[0]), view.y - np.float32(start[1])
    place = np.clip((x * across + y * along) / max(float(across**2 + along**2), 1e-9), 0, 1)
    return _float32(np.hypot(x - place * across, y - place * along) - width / 2)


def path(view: View, points: NDArray[np.floating], width: float) -> Image:
    """Signed distance to a line through points (P, 2)."""
    distance = stroke(view, tuple(points[0]), tuple(points[1]), width)
    for start, end in itertools.pairwise(points[1:]):
        distance = np.minimum(distance, stroke(view, tuple(start), tuple(end), width))
    return distance


def polygon(view: View, corners: int, radius: float, angle: float = 0.0) -> Image:
    """Signed distance to a regular polygon about the origin; ``radius`` reaches to the middle of its sides."""
    turn = np.arctan2(view.y, view.x) - np.float32(angle)
    sector = np.float32(2 * np.pi / corners)
    local = turn - sector * np.round(turn / sector)
    return _float32(np.hypot(view.x, view.y) * np.cos(local) - radius)


def noise(
    view: View,
    rng: np.random.Generator,
    cells: float | tuple[float, float],
    octaves: int = 1,
    roughness: float = 0.5,
) -> Image:
    """Smooth noise, fixed to the product: about normal, mean 0, deviation near 0.5.

    Args:
        view (View): Where to look at it.
        rng (np.random.Generator): Draws the noise; the same state gives the same noise.
        cells (float | tuple[float, float]): Cells per unit of length, across and along.
        octaves (int): Layers of noise, each twice as fine as the one before.
        roughness (float): Amplitude of each layer relative to the one before.

    Returns:
        Image: Noise (S, S).
    """
    across, along = (cells, cells) if isinstance(cells, (int, float)) else cells
    total = np.zeros_like(view.x)
    amplitude = 1.0
    for octave in range(octaves):
        table = rng.normal(0, 0.7, (64, 64)).astype(np.float32)
        x, y = view.x * np.float32(across * 2**octave) + 32, view.y * np.float32(along * 2**octave) + 32
        x, y = (place - 64 * np.floor(place / 64) for place in (x, y))  # numpy.mod takes ten times as long
        sample = cv2.remap(table, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP)
        total = total + np.float32(amplitude) * sample
        amplitude *= roughness
    return _float32(total / np.sqrt(sum(roughness ** (2 * octave) for octave in range(octaves))))


def colour(rng: np.random.Generator, lightness: tuple[float, float] = (0.2, 0.85), vividness: float = 0.35) -> Image:
    """A colour (3,) around a grey of random lightness."""
    grey = rng.uniform(*lightness)
    return _float32(np.clip(grey + rng.uniform(-1, 1, 3) * vividness * min(grey, 1 - grey) * 1.5, 0, 1))


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two positive ends whose logarithm is evenly spread."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def blur(image: Image, sigma: float) -> Image:
    """Gaussian blur; ``sigma`` in pixels, nothing happens below a tenth."""
    if sigma < 0.1:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


def _float32(values: NDArray[np.generic]) -> Image:
    return np.asarray(values, dtype=np.float32)


def turned(view: View, angle: float) -> View:
    """The same view in coordinates turned by an angle in radians."""
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return View(cosine * view.x + sine * view.y, cosine * view.y - sine * view.x, view.pixel)


def drifted(view: View, part: np.random.Generator, reach: float, bend: float = 0.0) -> View:
    """The view with its pattern shifted by up to ``reach`` along both axes, and its straight lines bent a little."""
    right, down = part.uniform(-reach, reach, 2).astype(np.float32)
    wave = np.float32(bend) * noise(view, part, 1.2)
    return View(view.x + right + wave, view.y + down + wave, view.pixel)


def bands(coordinate: Image, pitch: float, share: float, pixel: float) -> Image:
    """Cover of endless bands around the multiples of a pitch, averaged over each pixel, so however fine they are.

    Args:
        coordinate (Image): Place (S, S) across the bands.
        pitch (float): Distance from band to band.
        share (float): Width of a band relative to the pitch, 0 to 1.
        pixel (float): Size of a pixel.

    Returns:
        Image: Cover (S, S) in [0, 1].

    Example:
        >>> bands(np.float32([0, 1, 2, 4]), pitch=4.0, share=0.5, pixel=1.0).tolist()
        [1.0, 0.5, 0.0, 1.0]
    """
    reach = pixel / pitch / 2

    def covered(place: Image) -> Image:  # length of the bands up to here, in pitches
        whole = np.floor(place)
        return _float32(whole * share + np.minimum(place - whole, share))

    middle = coordinate / np.float32(pitch) + np.float32(share / 2)
    return _float32(np.clip((covered(middle + reach) - covered(middle - reach)) / (2 * reach), 0, 1))


def lit(image: Image, height: Image, strength: float) -> Image:
    """An image (S, S, 3) with the light and shade that light from the upper left throws on a relief (S, S)."""
    height = _float32(height * (len(height) / 112))  # slopes per product length, in pixels of a picture of 112
    slope = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125) + cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    return _float32(image * (1 + np.clip(strength * slope, -0.8, 0.8))[..., None])


def sheet(image: Image) -> Product:
    """A product that fills the picture."""
    return Product(_float32(np.clip(image, 0, 1)), np.ones(image.shape[:2], np.float32))
