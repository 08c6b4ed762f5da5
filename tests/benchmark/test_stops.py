# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Stops, continuation and progress, with a stand-in for the runs themselves."""

import csv
import logging
import signal
import sys
import warnings
from contextlib import suppress

import pytest

from anomalib_aprilgan.benchmark import harness
from anomalib_aprilgan.benchmark.harness import run_benchmark
from anomalib_aprilgan.benchmark.plan import Dataset, Method
from anomalib_aprilgan.benchmark.single_run import LATENCY_COLUMNS, ROW_COLUMNS, Settings

METHODS = {
    "AprilGAN": Method("AprilGAN", shots=[0, 1]),
    "WinClip": Method("WinClip", shots=[0, 1]),
    "Patchcore": Method("Patchcore", shots=[1, "full"]),
    "Untaught": Method("Patchcore", shots=[0]),
    "PaDiM": Method("Padim", shots=[1]),
}
DATASETS = {"MVTecAD": Dataset("MVTecAD", categories=["bottle", "cable"])}


def read_rows(folder):
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def handlers():
    """Handlers as a terminal sets them, whatever the tests were started with."""
    set_here = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in set_here.items()}
    yield set_here
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def reported():
    """Numbers of rows that reports were written of."""
    return []


@pytest.fixture
def do(tmp_path, monkeypatch, reported):
    """Run the plan with a function in place of the runs; the names of the runs that were begun."""

    def start(execute, settings=None):
        begun = []

        def note(run, settings):
            begun.append(str(run))
            latency = {LATENCY_COLUMNS[0]: settings.latency_seconds or ""}
            return {**dict.fromkeys(ROW_COLUMNS, ""), "run": run.key, "seconds": 2.0, **latency, **execute(run)}

        monkeypatch.setattr(harness, "execute", note)
        monkeypatch.setattr(harness, "write_report", lambda folder, rows, *_: reported.append(len(rows)))
        failures = run_benchmark(METHODS, DATASETS, tmp_path, (), (0, 1), settings)
        return begun, failures

    return start


def test_after_a_kill_the_rest_is_done_and_the_run_under_way_comes_last(do, reported, tmp_path):
    countdown = iter([False, False, True])

    def kill_at_third(run):
        if next(countdown):
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        do(kill_at_third)
    assert len(read_rows(tmp_path)) == 2
    assert reported == [2]
    killed = (tmp_path / "under_way").read_text(encoding="utf-8")
    begun, failures = do(lambda run: {})
    assert len(begun) == 24
    assert not failures
    rows = read_rows(tmp_path)
    assert len({row["run"] for row in rows}) == len(rows) == 26
    assert rows[-1]["run"] == killed
    assert not (tmp_path / "under_way").exists()
    assert do(lambda run: {}) == ([], {})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it_and_handlers_are_put_back(number, handlers, do, reported):
    with pytest.raises(KeyboardInterrupt):
        do(lambda run: signal.raise_signal(number))
    assert signal.getsignal(number) is handlers[number]
    assert reported == [0]


def test_a_signal_that_strikes_a_finalizer_stops_it_after_the_run(handlers, do, reported):
    def swallow(run):
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return {}

    with pytest.raises(KeyboardInterrupt):
        do(swallow)
    assert reported == [1]


def test_ignored_signals_stay_ignored(handlers, do):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    begun, failures = do(lambda run: signal.raise_signal(signal.SIGTERM) or {})
    assert (len(begun), failures) == (26, {})


def test_the_exit_that_a_trainer_makes_of_an_interrupt_stops_it(handlers, do):
    def interrupt(run):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(KeyboardInterrupt):
        do(interrupt)


def test_the_exit_of_a_model_is_a_failure_like_others(do):
    begun, failures = do(lambda run: sys.exit(3) if run.method_name == "WinClip" else {})
    assert len(begun) == 26
    assert len(failures) == 6
    assert set(failures.values()) == {"SystemExit: 3"}


def test_each_setting_is_timed_once_if_that_is_wanted(do, tmp_path):
    settings = Settings(latency_seconds=0.5, latency_once=True)
    countdown = iter(range(8))

    def stop_after_some(run):
        if next(countdown) == 7:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        do(stop_after_some, settings)
    _, failures = do(lambda run: {}, settings)
    assert failures == {}
    assert sum(row[LATENCY_COLUMNS[0]] == "0.5" for row in read_rows(tmp_path)) == 8  # methods and their settings


def test_warnings_of_every_run_are_heard_once(do, caplog):
    do(lambda run: warnings.warn("the same as before", stacklevel=1) or {})
    assert caplog.text.count("UserWarning: the same as before") == 1


def test_progress_tells_what_is_left(do, caplog):
    with caplog.at_level(logging.INFO):
        do(lambda run: {})
    assert "Runs: 26, done before: 0." in caplog.text
    assert "Run 1 of 26: AprilGAN, zero-shot, MVTecAD/bottle, seed 0. Nothing is known of the time yet." in caplog.text
    assert "Run 26 of 26: Patchcore, full, MVTecAD/cable, seed 1. About 0 s left." in caplog.text


def test_another_version_of_a_method_runs_anew(do, monkeypatch):
    do(lambda run: {})
    monkeypatch.setitem(METHODS, "AprilGAN", Method("AprilGAN", {"layers": [1]}, [0, 1]))
    begun, _ = do(lambda run: {})
    assert len(begun) == 6
    assert all(name.startswith("AprilGAN") for name in begun)
