# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Rows on the disk are whole, whatever happened before."""

import multiprocessing

import pytest

from anomalib_aprilgan.benchmark.journal import Journal, JournalError

COLUMNS = ["run", "remarks"]


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "results.csv", COLUMNS)


def test_rows_come_back_as_they_were_written(journal):
    assert journal.rows() == []
    journal.append({"run": 1, "remarks": 'a comma, a "quote"'})
    journal.append({"remarks": "two\nlines", "run": 2})
    expected = [{"run": "1", "remarks": 'a comma, a "quote"'}, {"run": "2", "remarks": "two lines"}]
    assert Journal(journal.path, COLUMNS).rows() == expected


@pytest.mark.parametrize("length", range(1, 14))
def test_a_torn_row_is_dropped_and_nothing_else(journal, length):
    journal.append({"run": 1, "remarks": "whole"})
    whole = journal.path.read_bytes()
    journal.append({"run": 2, "remarks": "torn off"})
    journal.path.write_bytes(journal.path.read_bytes()[: len(whole) + min(length, 10)])
    assert [row["run"] for row in journal.rows()] == ["1"]
    journal.append({"run": 3, "remarks": ""})
    assert [row["run"] for row in journal.rows()] == ["1", "3"]
    assert journal.path.read_bytes() == whole + b"3,\n"


@pytest.mark.parametrize("length", [3, 4])
def test_a_torn_letter_is_dropped(journal, length):
    journal.append({"run": 1, "remarks": "whole"})
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + "2,ü".encode()[:length])
    assert [row["run"] for row in Journal(journal.path, COLUMNS).rows()] == ["1"]
    journal.append({"run": 2, "remarks": "ü"})
    assert [row["remarks"] for row in journal.rows()] == ["whole", "ü"]


def test_a_torn_header_is_dropped(journal):
    journal.path.write_bytes(b"run,rem")
    assert Journal(journal.path, COLUMNS).rows() == []
    journal.append({"run": 1, "remarks": ""})
    assert journal.path.read_bytes() == b"run,remarks\n1,\n"


def test_other_columns_are_refused(journal):
    with pytest.raises(ValueError, match=r"The row has the columns \['run'\], expected"):
        journal.append({"run": 1})
    journal.append({"run": 1, "remarks": ""})
    with pytest.raises(JournalError, match=r"has other columns than this version writes\. Move it away"):
        Journal(journal.path, [*COLUMNS, "new"])


def _try_lock(journal, answers):
    try:
        with journal.locked():
            answers.put("locked")
    except JournalError as error:
        answers.put(str(error))


def test_two_processes_do_not_share_a_journal(journal):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with journal.locked():
        process = context.Process(target=_try_lock, args=(journal, answers))
        process.start()
        assert "Another process is writing" in answers.get(timeout=60)
        process.join()
    _try_lock(journal, answers)
    assert answers.get(timeout=60) == "locked"
