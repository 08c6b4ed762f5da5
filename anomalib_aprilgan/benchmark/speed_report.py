# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What ``anomalib-aprilgan speed`` has measured until now, for eyes and machines."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from anomalib_aprilgan.components.cache import write_atomically


class SpeedReport:
    """Results that come part by part, so that a run that is stopped has lost none of the earlier parts.

    Args:
        path (Path | None): File for all results in JSON, written anew with each part; None writes none.

    Raises:
        ValueError: If it could not be written.
    """

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            _check_writable(path)
        self.path = path
        self.results: dict[str, Any] = {"spread": {}}

    def add(self, part: Mapping[str, Any]) -> str:
        """Take a part's results, and write the file once any of them are measured ones.

        Returns:
            Their lines.
        """
        spread = {**self.results["spread"], **part.get("spread", {})}
        self.results = {**self.results, **part, "spread": spread}
        lines = render_speed(part)
        if lines and self.path is not None:  # settings alone must not take the place of earlier results
            write_atomically(self.path, json.dumps(self.results, indent=2).encode())
        return lines


def tell(begin: Callable[[], Iterator[Mapping[str, Any]]], json_path: str | None) -> int:
    """Print each part, and write the file, as soon as it is measured.

    Args:
        begin: Checks all values, and hands out the parts.
        json_path: File for the results; None writes none.

    Returns:
        0, or 2 if a value is wrong, which is told.
    """
    try:
        report = SpeedReport(None if json_path is None else Path(json_path))
        measured = begin()
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for part in measured:
        sys.stdout.write(report.add(part))
        sys.stdout.flush()  # into a pipe, too
    return 0


def _check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before an hour's work; an earlier file stays as it is."""
    reason = "it is a folder" if path.is_dir() else None
    if reason is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            reason = str(error)
    if reason is not None:
        msg = f"json={str(path)!r} cannot be written: {reason}. Give a file such as speed.json where you may write."
        raise ValueError(msg)


def render_speed(results: Mapping[str, Any]) -> str:
    """The results as lines of a name and a value."""
    lines = []
    for name, value in results.items():
        if isinstance(value, (int, float)):
            low_high = results.get("spread", {}).get(name.removeprefix("ratio_"))
            spread = f"  ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
            shown = f"{value:>14.3f}" if isinstance(value, float) else f"{value:>14}"
            lines.append(f"{name:<38}{shown}{spread}\n")
    return "".join(lines)
