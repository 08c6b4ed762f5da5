# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What measured figures depend on besides the models: processor, GPU and versions."""

import os
import platform
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from anomalib_aprilgan.doctor import version_of

CPU_INFO = Path("/proc/cpuinfo")
DISTRIBUTIONS = ("anomalib-aprilgan", "anomalib", "torch", "open_clip_torch")


def describe_machine(device: str) -> dict[str, Any]:
    """Date, processor, cores that this process may use, GPU if it is the device, and versions."""
    return {
        "date": timestamp(),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        **versions(),
    }


def timestamp() -> str:
    """Now, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def processor_name() -> str:
    """Name of the processor; Python's own says no more than the architecture on Linux."""
    try:
        found = re.search(r"model name\s*: (.+)", CPU_INFO.read_text(encoding="utf-8"))
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python and of the distributions that figures depend on."""
    return {"python": platform.python_version(), **{name: version_of(name) for name in DISTRIBUTIONS}}
