# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The results on disk: one CSV row a run, written whole or not at all."""

import csv
import io
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from anomalib_aprilgan.components.torn_lines import drop_torn_line


class JournalError(RuntimeError):
    """Results that must not be written to."""


class Journal:
    """A CSV file that rows are appended to.

    Args:
        path (Path): The file; it is made when the first row comes.
        columns (Sequence[str]): Its columns.

    Raises:
        JournalError: If the file is there and has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = list(columns)
        header = self._whole_lines()[:1]
        if header and header != [_line(self.columns)]:
            msg = f"{path} has other columns than this version writes. Move it away, or choose another output."
            raise JournalError(msg)

    def rows(self) -> list[dict[str, str]]:
        """All rows that were written whole."""
        return list(csv.DictReader(self._whole_lines()))

    def _whole_lines(self) -> list[str]:
        """Lines that have an end; what comes after them may even be half a letter."""
        content = self.path.read_bytes() if self.path.exists() else b""
        return io.StringIO(content[: content.rfind(b"\n") + 1].decode(), newline=None).readlines()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row and wait until it is on the disk.

        Raises:
            ValueError: If the row has other columns.
        """
        if set(row) != set(self.columns):
            msg = f"The row has the columns {sorted(row)}, expected {sorted(self.columns)}."
            raise ValueError(msg)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            drop_torn_line(file)
            start = "" if file.tell() else _line(self.columns)
            # Line breaks within a cell would look like the end of a row to whoever reads after a crash.
            cells = [str(row[column]).replace("\r", " ").replace("\n", " ") for column in self.columns]
            file.write((start + _line(cells)).encode())
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def locked(self) -> Generator[None, None, None]:
        """Keep other processes from running the same benchmark; the system releases the lock of a killed process.

        Raises:
            JournalError: If another process has it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = FileLock(self.path.with_suffix(".lock")).acquire(blocking=False)
        except Timeout as error:
            msg = f"Another process is writing {self.path}. Wait for it, or choose another output."
            raise JournalError(msg) from error
        with held:
            yield


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()
