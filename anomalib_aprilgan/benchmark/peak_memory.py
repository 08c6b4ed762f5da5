# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The most memory that this process and its accelerator have held."""

import multiprocessing
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

# Linux: writing a 5 here lets the peak begin anew (``man proc_pid_clear_refs``).
CLEAR_PEAK = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


def reset_peaks() -> None:
    """Let both peaks begin anew where the system can do so; elsewhere the host's is that of the whole process."""
    with suppress(OSError):
        CLEAR_PEAK.write_text("5", encoding="ascii")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_host_memory() -> int:
    """Most bytes of main memory; 0 where the system does not tell."""
    if (peak := _status("VmHWM")) is not None:
        return peak
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_device_memory() -> int:
    """Most bytes that tensors have held on the CUDA GPU; 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def held_host_memory() -> int:
    """Bytes of main memory now; elsewhere than on Linux the most until now."""
    held = _status("VmRSS")
    return peak_host_memory() if held is None else held


def _status(entry: str) -> int | None:
    """Bytes under a name of Linux's account of this process."""
    try:
        found = re.search(rf"{entry}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else None


class KilledError(RuntimeError):
    """A process whose memory was to be measured was killed."""


def peak_in_new_process(
    build: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], device: str, threads: int
) -> int:
    """Most bytes that a work holds while it runs, with what it was built of, and without the imports.

    Args:
        build: Builds the work; a function of a module, or a ``partial`` of one.
        arguments: Its arguments.
        device: Whose memory counts: a CUDA device, or else the host.
        threads: Of PyTorch.

    Raises:
        KilledError: If the process is killed, as systems do that run out of memory.
    """
    # A Pool would wait for ever for a process that was killed.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak, build, arguments, device, threads).result()
        except BrokenProcessPool as error:
            msg = (
                "The process whose memory is measured was killed, most likely because there is not enough of it. Leave "
                "memory out of --parts, or take a smaller backbone, image or batch."
            )
            raise KilledError(msg) from error


def _peak(build: Callable[..., Callable[[], object]], arguments: tuple[Any, ...], device: str, threads: int) -> int:
    torch.set_num_threads(threads)
    imports = held_host_memory()
    with torch.inference_mode():
        work = build(*arguments)
        work()  # what is made once, at first use, is there before the peak begins
        reset_peaks()
        work()
    return peak_device_memory() if device.startswith("cuda") else peak_host_memory() - imports
