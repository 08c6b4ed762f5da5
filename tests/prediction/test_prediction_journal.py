# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The table of bulk prediction under kills and second starts."""

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_aprilgan.prediction.journal import Journal, Row

MODEL = {"model": "any"}
ROWS = [
    Row("a.png", 0.25, 0, modified=1000),
    Row('b, "the second" ü.png', 0.75, 1, "b.npy", modified=2000),
    Row("c.png", None, None, error="broken", modified=3000),
]
MODIFIED = {row.path: row.modified for row in ROWS}


def begun(folder: Path) -> tuple[Journal, Path]:
    """A journal with all rows in its part."""
    journal = Journal(folder / "all.csv")
    journal.open(MODEL)
    journal.append(0, ROWS)
    return journal, folder / "all.csv.part-0"


@given(st.data())
def test_a_kill_at_any_byte_costs_the_torn_row_and_no_more(data):
    with tempfile.TemporaryDirectory() as folder:
        journal, part = begun(Path(folder))
        content = part.read_bytes()
        kept = data.draw(st.integers(0, len(content)))
        part.write_bytes(content[:kept])
        whole = content[:kept].count(b"\r\n")
        assert journal.rows(MODIFIED) == ROWS[:whole]
        journal.open(MODEL)
        journal.append(0, ROWS[whole:])
        assert journal.finish(MODIFIED) == ROWS


def test_a_second_start_leaves_alone_what_the_first_is_writing(tmp_path):
    journal, part = begun(tmp_path)
    content = part.read_bytes()
    part.write_bytes(content[:-4])  # the first is in the middle of its last row
    second = Journal(journal.path)
    second.open(MODEL)
    assert second.rows(MODIFIED) == ROWS[:2]
    with part.open("ab") as first:
        first.write(content[-4:])
    assert journal.rows(MODIFIED) == ROWS


@pytest.mark.parametrize("rest", [b",0,,", "\u00fc.png,0.5,1,,".encode()[1:], b'second",0.5', b"\x00"])
def test_the_rest_of_a_row_that_another_start_has_cut_does_not_count(rest, tmp_path):
    journal, part = begun(tmp_path)
    content = part.read_bytes()
    part.write_bytes(content + rest + b"\r\n")
    assert journal.rows(MODIFIED) == ROWS
    assert journal.finish(MODIFIED) == ROWS
    assert list(pd.read_csv(journal.path).path) == [row.path for row in ROWS]


def test_tables_of_the_same_stem_are_different_ones(tmp_path):
    first, second = Journal(tmp_path / "all.csv"), Journal(tmp_path / "all.parquet")
    first.open(MODEL)
    second.open({"model": "another"})
    first.append(0, ROWS[:1])
    second.append(0, ROWS[1:])
    assert first.finish({"a.png": 1000}) == ROWS[:1]
    assert second.finish(MODIFIED) == ROWS[1:]
    assert second.rows(MODIFIED) == ROWS[1:]


def test_rows_of_the_table_and_of_a_later_run_are_one(tmp_path):
    journal, _ = begun(tmp_path)
    journal.finish(MODIFIED)
    again = Journal(journal.path)
    again.open(MODEL)
    again.append(0, [Row("c.png", 0.5, 1, modified=3000)])
    assert again.finish(MODIFIED) == [*ROWS[:2], Row("c.png", 0.5, 1, modified=3000)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["all.csv", "all.csv.model.json"]


def test_a_table_that_another_program_has_changed_is_refused(tmp_path):
    journal, _ = begun(tmp_path)
    journal.finish(MODIFIED)
    journal.path.write_text(journal.path.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"all\.csv has no columns path, score, label, map, error, modified: another program"
    ):
        Journal(journal.path).rows(MODIFIED)


@pytest.mark.parametrize("now", [500, 9000])
@pytest.mark.parametrize("is_finished", [False, True])
def test_rows_of_a_photo_that_was_another_do_not_count(tmp_path, is_finished, now):
    journal, _ = begun(tmp_path)
    if is_finished:
        journal.finish(MODIFIED)
    changed = {**MODIFIED, "a.png": now}
    assert journal.rows(changed) == ROWS[1:]
    broken = Row("a.png", None, None, error="broken", modified=now)
    journal.append(0, [broken])
    assert journal.rows(MODIFIED) == ROWS
    assert journal.finish(changed) == [broken, *ROWS[1:]]


def test_an_error_of_a_photo_that_was_removed_is_over_and_a_verdict_stays(tmp_path):
    journal, _ = begun(tmp_path)
    assert journal.finish({}) == ROWS[:2]
