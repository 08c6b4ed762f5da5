# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Times of two works, taken one right after the other, so that what else the machine does falls on both."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

# Does its work once and returns the seconds that it took.
Timer = Callable[[], float]


class Pair(NamedTuple):
    """Seconds of a work and of the yardstick beside it."""

    own: float
    yardstick: float


class Ratio(NamedTuple):
    """How many times the yardstick's time a work takes.

    Attributes:
        median (float): Over all turns.
        low (float): Lower quartile.
        high (float): Upper quartile.
    """

    median: float
    low: float
    high: float


def now(device: str) -> float:
    """Seconds of a clock, once a device has done what was asked of it."""
    if not device.startswith("cpu"):
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def timed(work: Callable[[], object], device: str = "cpu") -> Timer:
    """A timer of a work on a device."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return now(device) - start

    return run


def take_turns(yardstick: Timer, timers: Mapping[str, Timer], repeats: int) -> dict[str, list[Pair]]:
    """Time works, each beside a pass of the yardstick of its own, which comes first or last by turns.

    Args:
        yardstick: What is compared with.
        timers: Works by name.
        repeats: Turns, after one to warm up.
    """
    pairs: dict[str, list[Pair]] = {name: [] for name in timers}
    for turn in range(repeats + 1):
        for name, timer in timers.items():
            if turn % 2:
                seconds, own = yardstick(), timer()
            else:
                own, seconds = timer(), yardstick()
            if turn:
                pairs[name].append(Pair(own, seconds))
    return pairs


def ratio_of(pairs: list[Pair]) -> Ratio:
    """Median and quartiles of the ratios of pairs, each of which was timed at one moment.

    Example:
        >>> ratio_of([Pair(3.0, 2.0), Pair(2.0, 1.0), Pair(9.0, 1.0)])
        Ratio(median=2.0, low=1.75, high=5.5)
    """
    ratios = [own / yardstick for own, yardstick in pairs]
    low, high = np.quantile(ratios, (0.25, 0.75)).tolist()
    return Ratio(statistics.median(ratios), low, high)
