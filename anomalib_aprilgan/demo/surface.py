# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Volume and print of the rendered objects: heights and their lighting, lettering, and bitmaps laid on a product."""

import cv2
import numpy as np

from .drawing import Image, View, blur, colour

_LETTERS = "ABCDEFGHKLMNPRSTUVXYZ0123456789"
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX)
_METALS = ((0.72, 0.73, 0.75), (0.8, 0.8, 0.78), (0.55, 0.57, 0.6), (0.78, 0.66, 0.36), (0.72, 0.47, 0.34))
_DARK_METALS = ((0.3, 0.31, 0.33), (0.36, 0.33, 0.3))


def polar(view: View) -> tuple[Image, Image]:
    """Distance to the origin and angle in [0, 2 pi) of every pixel, both (S, S)."""
    radius, angle = cv2.cartToPolar(view.x, view.y)
    return np.asarray(radius, np.float32), np.asarray(angle, np.float32)


def repeated(values: Image, pitch: float) -> Image:
    """Coordinate within the nearest of equal periods, -pitch / 2 to pitch / 2."""
    return np.asarray(values - np.float32(pitch) * np.round(values / np.float32(pitch)), np.float32)


def rounded(distance: Image, width: float) -> Image:
    """Height of a body whose edge is a quarter round of this width; 0 outside, ``width`` in the middle."""
    inwards = np.clip(-distance / np.float32(width), 0, 1)
    return np.asarray(width * np.sqrt(inwards * (2 - inwards)), np.float32)


def bevelled(distance: Image, width: float) -> Image:
    """Height of a body with a slanted edge of this width; 0 outside, ``width`` in the middle."""
    return np.asarray(np.clip(-distance, 0, width), np.float32)


def direction(line: np.random.Generator, part: np.random.Generator) -> float:
    """Angle from which the light comes: one for the line, with small deviations of a part."""
    return float(line.uniform(0, 2 * np.pi) + part.normal(0, 0.12))


def illuminated(view: View, image: Image, height: Image, light: float, gloss: float = 0.3) -> Image:
    """Light a surface: diffuse by the slope towards the light, with a highlight (Blinn-Phong).

    Args:
        view (View): Where to look at it.
        image (Image): Its colours (S, S, 3).
        height (Image): Its height (S, S) in product coordinates, towards the camera.
        light (float): Angle from which the light comes, in the picture.
        gloss (float): Strength of the highlight.

    Returns:
        Image: Lit colours (S, S, 3).
    """
    across = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=1, scale=0.5 / view.pixel)
    along = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=1, scale=0.5 / view.pixel)
    towards = np.float32(np.cos(light)) * across + np.float32(np.sin(light)) * along
    upright = 1 / np.sqrt(1 + across * across + along * along)
    diffuse = np.maximum((1 - np.float32(0.75) * towards) * upright, 0)
    half = np.maximum((np.float32(0.949) - np.float32(0.316) * towards) * upright, 0)
    highlight = np.float32(gloss) * np.maximum(half**16 - np.float32(0.949**16), 0)
    shade = np.float32(0.35) + np.float32(0.65) * diffuse
    return np.asarray(np.clip(image * shade[..., None] + highlight[..., None], 0, 1), np.float32)


def metal(line: np.random.Generator, dark: bool = True) -> Image:
    """Colour (3,) of a metal: steel, zinc, nickel, brass, copper or, on request, burnished."""
    palette = _METALS + _DARK_METALS if dark else _METALS
    return np.asarray(
        np.asarray(palette[line.integers(len(palette))], np.float32) * np.float32(line.uniform(0.85, 1.12))
    )


def word(line: np.random.Generator, letters: int) -> str:
    """Random capital letters and digits, as on a type plate."""
    return "".join(_LETTERS[index] for index in line.integers(0, len(_LETTERS), letters))


def lettering(text: str, font: int = 0, thickness: int = 2) -> Image:
    """Bitmap (H, W) of a text, cut to its outline, 1 where there is ink."""
    (width, height), below = cv2.getTextSize(text, _FONTS[font], 1.0, thickness)
    canvas = np.zeros((height + below + 2, width + 2), np.uint8)
    cv2.putText(canvas, text, (1, height + 1), _FONTS[font], 1.0, 255, thickness, cv2.LINE_AA)
    left, top, wide, high = cv2.boundingRect(canvas)
    return np.asarray(canvas[top : top + high, left : left + wide] / np.float32(255), np.float32)


def stamp(view: View, bitmap: Image, centre: tuple[float, float], half: tuple[float, float]) -> Image:
    """Lay a bitmap on the product.

    Args:
        view (View): Where to look at it.
        bitmap (Image): Values (H, W).
        centre (tuple[float, float]): Place of its middle.
        half (tuple[float, float]): Half of its width and height in product coordinates.

    Returns:
        Image: Values (S, S); 0 outside of the bitmap.
    """
    rows, columns = bitmap.shape
    across, along = np.float32(columns / (2 * half[0])), np.float32(rows / (2 * half[1]))
    # A pixel that spans several cells of the bitmap must see their mean.
    soft = blur(bitmap, 0.4 * max(0.0, view.pixel * float(np.sqrt(across * along)) - 0.5))
    x = (view.x - np.float32(centre[0] - half[0])) * across - np.float32(0.5)
    y = (view.y - np.float32(centre[1] - half[1])) * along - np.float32(0.5)
    return np.asarray(cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.float32)


def write(view: View, text: str, centre: tuple[float, float], half: tuple[float, float], font: int = 0) -> Image:
    """Ink (S, S) of a text that fills as much of a box as its proportions allow."""
    bitmap = lettering(text, font)
    scale = min(2 * half[0] / bitmap.shape[1], 2 * half[1] / bitmap.shape[0]) / 2
    return stamp(view, bitmap, centre, (bitmap.shape[1] * scale, bitmap.shape[0] * scale))


def jitter(part: np.random.Generator, deviation: float = 0.008) -> tuple[float, float]:
    """Small offset of a print from its place."""
    return float(part.normal(0, deviation)), float(part.normal(0, deviation))


def among(line: np.random.Generator, colours: tuple[tuple[float, float, float], ...], spread: float = 0.06) -> Image:
    """One of the colours (3,), a little off."""
    chosen = np.asarray(colours[line.integers(len(colours))]) + line.normal(0, spread, 3)
    return np.asarray(np.clip(chosen, 0.02, 0.97), np.float32)


def ink_on(line: np.random.Generator, ground: Image) -> Image:
    """Colour (3,) of a print that can be read on a ground (3,): a dark one on light, a light one on dark."""
    dark, light = colour(line, (0.04, 0.2), 0.5), colour(line, (0.82, 0.95), 0.4)
    return dark if float(ground @ np.array((0.3, 0.59, 0.11), np.float32)) > 0.42 else light


def unrolled(view: View, radius: float) -> View:
    """The view along a circle about the origin: x is the way from its top, clockwise, and y points to the origin."""
    away, angle = polar(view)
    along = np.mod(angle + np.float32(1.5 * np.pi), np.float32(2 * np.pi)) - np.float32(np.pi)
    return View(along * np.float32(radius), np.float32(radius) - away, view.pixel)
