# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""How much longer anomalib takes to start because this package is installed.

``python -m anomalib_aprilgan.benchmark.start_up`` starts Python again and again, by turns with the registration hook
and without (``ANOMALIB_MODEL_PLUGINS=0``), and compares the processor's seconds, which other work on the machine
changes less than the clock's.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

from anomalib_aprilgan.host import SWITCH

from .console import print_report
from .turns import Timer, ratio_of, take_turns

IMPORT = "import anomalib.models"
HELP = "from anomalib.cli.cli import main; main()"
# What starts, and the words of its command line.
STARTS: dict[str, Sequence[str]] = {IMPORT: ("-c", IMPORT), "anomalib --help": ("-c", HELP, "--help")}


def report_start_up(repeats: int = 5) -> str:
    """Compare start-up with this package and without, in turns.

    Args:
        repeats: Turns, after one to warm up.

    Returns:
        A line a start: seconds without, median of the ratios with to without, and their quartiles.
    """
    lines = []
    for name, words in STARTS.items():
        pairs = take_turns(_start(words, "0"), {"with": _start(words, "1")}, repeats)["with"]
        seconds = statistics.median(pair.yardstick for pair in pairs)
        ratio = ratio_of(pairs)
        lines.append(f"{name}: {seconds:.2f} s, with us x {ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})\n")
    return "".join(lines)


def _start(words: Sequence[str], switch: str) -> Timer:
    environment = {**os.environ, SWITCH: switch}
    return lambda: processor_seconds([sys.executable, *words], environment)


def processor_seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds of the processor that a command takes.

    Raises:
        CalledProcessError: If it fails.
    """
    before = os.times()
    subprocess.run(command, env=environment, check=True, capture_output=True)  # ruff: ignore[subprocess-without-shell-equals-true] - our own words
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    print_report(report_start_up, None)
