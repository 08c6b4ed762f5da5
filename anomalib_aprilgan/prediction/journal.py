# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A table that grows row by row, outlives a kill, and may be written by several processes."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from anomalib_aprilgan.components.cache import write_atomically
from anomalib_aprilgan.components.torn_lines import drop_torn_line

FORMATS = (".csv", ".parquet")
REMEDY = "Name another file, --output on the command line: a table has verdicts of one model on one folder."


class Row(NamedTuple):
    """Verdict on one photo.

    Attributes:
        path (str): The photo, as a path relative to the folder; see :func:`.photos.name_of`.
        score (float | None): Probability of an anomaly, in [0, 1]; None if the photo cannot be read.
        label (int | None): 1 if it is anomalous, else 0; None if nobody says so.
        map (str): File of the anomaly map, relative to the folder of maps; empty if none was asked for.
        error (str): Why the photo cannot be read; empty else.
        modified (int): When the photo was changed last, in seconds since 1970, as seen before it was read.
    """

    path: str
    score: float | None
    label: int | None
    map: str = ""
    error: str = ""
    modified: int = 0


class Journal:
    """Rows on their way into a table.

    Every process appends to a part of its own, ``NAME.part-RANK``; ``finish`` makes the table of all parts. What a kill
    has left of a row does not count. Two runs at once do work twice.

    Args:
        path (Path): The table, ``.csv`` or ``.parquet``.

    Raises:
        ValueError: If the suffix is another one.
        ModuleNotFoundError: If Parquet is wanted and pyarrow is missing.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in FORMATS:
            msg = f"output={str(path)!r} must end in {' or '.join(FORMATS)}."
            raise ValueError(msg)
        if path.suffix == ".parquet":
            _require_pyarrow()
        self.path = path
        self.description = path.with_name(f"{path.name}.model.json")

    def open(self, description: dict[str, Any]) -> None:
        """Begin, or go on where an earlier run was stopped.

        Args:
            description (dict[str, Any]): What decides about the verdicts, as plain data.

        Raises:
            ValueError: If the rows so far were made differently, or the table is not of this class.
        """
        if self.description.exists():
            earlier = json.loads(self.description.read_text(encoding="utf-8"))
            if different := sorted(_different(description, earlier)):
                msg = f"{self.path} was begun with other settings ({', '.join(different)}). {REMEDY}"
                raise ValueError(msg)
        elif self.path.exists():
            msg = f"{self.path} exists, and {self.description.name} does not say what made it. {REMEDY}"
            raise ValueError(msg)
        else:
            # Processes that begin at the same time write the same; none may read half of it.
            write_atomically(self.description, json.dumps(description).encode())

    def append(self, rank: int, rows: Iterable[Row]) -> None:
        """Write rows to the part of a process, at once."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        left = memoryview(text.getvalue().encode())
        with self.path.with_name(f"{self._prefix}{rank}").open("ab+", buffering=0) as file:
            drop_torn_line(file)
            while left:  # once, unless the disk is full
                left = left[file.write(left) :]

    def rows(self, modified: Mapping[str, int]) -> list[Row]:
        """Rows of all parts and of the table, one a photo, by path; a verdict counts more than an error.

        Args:
            modified (Mapping[str, int]): When photos were changed last; their rows from any other time do not count.
        """
        known: dict[str, Row] = {}
        for row in sorted([*self._finished(), *self._parts()], key=lambda row: bool(row.error), reverse=True):
            if row.modified == modified.get(row.path, row.modified):
                known[row.path] = row
        return [known[path] for path in sorted(known)]

    def finish(self, modified: Mapping[str, int]) -> list[Row]:
        """Make the table of all parts, in place of them; call it in one process, when all have written.

        Args:
            modified (Mapping[str, int]): As for ``rows``, of all photos in the folder; an error of one that was removed
                is over.

        Returns:
            list[Row]: What the table holds.
        """
        rows = [row for row in self.rows(modified) if not row.error or row.path in modified]
        table = pd.DataFrame(rows, columns=list(Row._fields)).astype({"label": "Int64"})
        is_text = self.path.suffix == ".csv"
        write_atomically(self.path, table.to_csv(index=False).encode() if is_text else table.to_parquet(index=False))
        for part in self._part_files():
            part.unlink()
        return rows

    @property
    def _prefix(self) -> str:
        return f"{self.path.name}.part-"

    def _part_files(self) -> list[Path]:
        return sorted(file for file in self.path.parent.iterdir() if file.name.startswith(self._prefix))

    def _parts(self) -> Iterator[Row]:
        for part in self._part_files():
            for line in part.read_bytes().split(b"\r\n")[:-1]:  # names and errors are on one line
                with suppress(ValueError, csv.Error):  # of a row that another run has cut
                    yield _parse(next(csv.reader([line.decode()])))

    def _finished(self) -> Iterator[Row]:
        if not self.path.exists():
            return
        table = pd.read_csv(self.path, dtype=str) if self.path.suffix == ".csv" else pd.read_parquet(self.path)
        if missing := [name for name in Row._fields if name not in table]:
            msg = f"{self.path} has no columns {', '.join(missing)}: another program has changed it. {REMEDY}"
            raise ValueError(msg)
        for cells in table[list(Row._fields)].itertuples(index=False):
            yield _parse(["" if pd.isna(cell) else str(cell) for cell in cells])


def _parse(cells: list[str]) -> Row:
    path, score, label, map_file, error, modified = cells
    return Row(path, float(score) if score else None, int(label) if label else None, map_file, error, int(modified))


def _require_pyarrow() -> None:
    if find_spec("pyarrow") is None:
        msg = "Parquet needs pyarrow: pip install pyarrow, or let the output end in .csv."
        raise ModuleNotFoundError(msg, name="pyarrow")


def _different(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    """Names of the settings that differ, also of those within another, such as a fingerprint."""
    for name, value in ours.items():
        other = theirs.get(name)
        if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
            yield from _different(value, other)
        elif value != other:
            yield name
        else:
            pass  # the same
