# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Cloth whose fibres lie at random, drawn with the simulated textiles of ``data.photographs`` in view.

``nonwoven`` and ``wool`` follow the rules of ``textures``.
"""

import numpy as np
from numpy.typing import NDArray

from .drawing import Image, Product, View, colour, fill, log_uniform, paint, sheet, turned

GRAIN = (0.2, 0.9)  # share of the variance that is as fine as the pixels


def nonwoven(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Nonwoven cloth: fibres at random, most of them along one direction; and a grain as fine as the pixels."""
    pulp, depth, grain = colour(line, (0.25, 0.75), 0.2), line.uniform(0.06, 0.3), line.uniform(*GRAIN)
    return sheet(fill(view, pulp) * (1 + depth * _web(view, line, part, grain, directions=1))[..., None])


def wool(view: View, line: np.random.Generator, part: np.random.Generator) -> Product:
    """Fulled woollen cloth: a blend of two dyes, its fibres matted along two directions; and a fine grain."""
    dye, grain = colour(line, (0.25, 0.75), 0.25), line.uniform(*GRAIN)
    other = np.clip(dye * line.uniform(1.2, 2.2) + np.float32(0.05) * line.standard_normal(3, np.float32), 0, 1)
    blend = 0.5 + 0.25 * _web(view, line, part, grain, directions=2)
    return sheet(paint(fill(view, dye), other, np.clip(blend, 0, 1)))


def _web(view: View, line: np.random.Generator, part: np.random.Generator, grain: float, directions: int) -> Image:
    """Fibres along one direction or more, and a share of grain: mean near 0, deviation near 1, (S, S)."""
    wide, stretch, smooth = log_uniform(line, 0.02, 0.15), line.uniform(1.5, 6), line.uniform(0.05, 0.7)
    angles = line.uniform(0, np.pi) + np.array([0.0, *line.uniform(0.6, np.pi - 0.6, directions - 1)])
    specks = np.random.default_rng(part.integers(1 << 32))  # how many they are must not count for what part draws next
    webs = [fibrous(turned(view, angle), specks, wide * stretch, wide, smooth) for angle in angles]
    web = np.sum(webs, axis=0) * ((1 - grain) / directions) ** 0.5 + specks.standard_normal(view.x.shape) * grain**0.5
    return np.asarray(web)


def fibrous(view: View, rng: np.random.Generator, length: float, width: float, smoothness: float) -> Image:
    """Noise, mean near 0, deviation 1, that is alike over a length along x and over a width along y (Matern spectrum).

    Unlike ``noise`` it is drawn pixel by pixel, so another size of the picture shows other fibres; and what leaves the
    picture on one side comes in on the other.

    Args:
        view (View): Where to look at it; turned, moved and scaled, but not bent.
        rng (np.random.Generator): Draws the noise.
        length (float): Length of correlation along x, in product coordinates.
        width (float): Length of correlation along y.
        smoothness (float): Matern's nu, above 0: 0.5 decays exponentially, less is rougher.

    Returns:
        Image: Noise (S, S).
    """
    size = len(view.x)
    down, right = np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size), indexing="ij")  # cycles a pixel, (S, S)

    def along(axis: Image) -> NDArray[np.floating]:  # cycles a product unit, (S, S)
        cycles: NDArray[np.floating] = float(axis[0, 1] - axis[0, 0]) * right + float(axis[1, 0] - axis[0, 0]) * down
        return cycles / view.pixel**2

    decay = 1 + (2 * np.pi) ** 2 * ((length * along(view.x)) ** 2 + (width * along(view.y)) ** 2)
    waves = np.fft.fft2(rng.standard_normal((size, size))) * decay ** (-(smoothness + 1) / 2)
    fibres = np.fft.ifft2(waves).real
    return np.asarray(fibres / fibres.std(), np.float32)
