# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Run a benchmark to its end, however often it is stopped, and write its report."""

import logging
import os
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path

from anomalib_aprilgan.components.interrupts import Stop, is_stop, stopped_by_signals

from .journal import Journal
from .plan import Dataset, Method, Run, Shots, list_runs
from .report import write_report
from .single_run import LATENCY_COLUMNS, ROW_COLUMNS, Settings, execute

logger = logging.getLogger(__name__)

RESULTS = "results.csv"
FAILURES = "failures.log"
# Names the run under way: one that takes its process down with it must not keep the others from their turn for good.
UNDER_WAY = "under_way"
# Loggers of what is the same in every run.
REPEATING = ("py.warnings", f"{__package__}.winclip", f"{__package__}.preconditions")


def run_benchmark(
    methods: Mapping[str, Method],
    datasets: Mapping[str, Dataset],
    output: Path,
    shots: Sequence[Shots] = (),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    settings: Settings | None = None,
) -> dict[str, str]:
    """Do all runs that ``results.csv`` does not have yet, then write the report.

    Args:
        methods: Models by the names that the report gives them.
        datasets: Images, by name.
        output: Folder of ``results.csv``, ``failures.log`` and the report.
        shots: Numbers of references for methods that have none of their own.
        seeds: Of the draw of references, and of all else that is random.
        settings: How to measure.

    Returns:
        Errors of the runs that failed, by run. They are tried again next time.

    Raises:
        PlanError: If the plan is wrong; nothing has run then.
        JournalError: If another process runs the same benchmark, or another version has begun it.
        KeyboardInterrupt: If it is stopped by a signal; the report is then of what is done.
    """
    runs = list_runs(methods, datasets, shots, seeds)
    journal = Journal(output / RESULTS, ROW_COLUMNS)
    failures: dict[str, str] = {}
    with journal.locked(), stopped_by_signals() as stop, _told_once():
        try:
            _work_off(runs, journal, settings or Settings(), failures, stop)
        finally:
            write_report(output, _rows_of(runs, journal), runs, failures)
    return failures


def _rows_of(runs: Sequence[Run], journal: Journal) -> list[dict[str, str]]:
    keys = {run.key for run in runs}
    return [row for row in journal.rows() if row["run"] in keys]


def _work_off(runs: Sequence[Run], journal: Journal, settings: Settings, failures: dict[str, str], stop: Stop) -> None:
    done = {row["run"]: row for row in _rows_of(runs, journal)}
    timed = {_setting_of(run) for run in runs if done.get(run.key, {}).get(LATENCY_COLUMNS[0])}
    costs = {run: float(done[run.key]["seconds"]) for run in runs if run.key in done}
    marker = journal.path.with_name(UNDER_WAY)
    interrupted = marker.read_text(encoding="utf-8") if marker.exists() else ""
    waiting = sorted((run for run in runs if run.key not in done), key=lambda run: run.key == interrupted)
    logger.info("Runs: %d, done before: %d.", len(runs), len(runs) - len(waiting))
    for position, run in enumerate(waiting):
        stop.check()
        logger.info("Run %d of %d: %s. %s", position + 1, len(waiting), run, _time_left(waiting[position:], costs))
        marker.write_text(run.key, encoding="utf-8")
        skips_timing = settings.latency_once and _setting_of(run) in timed
        started = time.perf_counter()
        try:
            with _quiet():
                row = execute(run, replace(settings, latency_seconds=0) if skips_timing else settings)
            journal.append(row)
            timed.add(_setting_of(run))
        except (Exception, SystemExit) as error:  # whatever a model does, the others go on
            if is_stop(error):
                raise KeyboardInterrupt from error
            failures[str(run)] = f"{type(error).__name__}: {error}"
            _note_failure(journal.path.with_name(FAILURES), f"{run}: {failures[str(run)]}")
        costs[run] = time.perf_counter() - started
    marker.unlink(missing_ok=True)


def _setting_of(run: Run) -> tuple[str, str, Shots]:
    """What the time that an image takes depends on."""
    return run.method_name, run.dataset_name, run.shots


def _note_failure(path: Path, failure: str) -> None:
    """Tell of the error that is being handled, and write its trace down."""
    logger.error("Failed: %s", failure)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{failure}\n{traceback.format_exc()}\n")
        os.fsync(file.fileno())


@contextmanager
def _told_once() -> Generator[None, None, None]:
    """Let warnings that come with every run be heard once."""
    heard: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        known = len(heard)
        heard.add(record.getMessage())
        return len(heard) > known

    loggers = [logging.getLogger(name) for name in REPEATING]
    for each in loggers:
        each.addFilter(is_new)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(is_new)


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep progress bars of models out of ours; warnings go to the log."""
    logging.captureWarnings(capture=True)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)


def _time_left(waiting: Sequence[Run], costs: Mapping[Run, float]) -> str:
    """An estimate from what runs of the same method and setting took on the same dataset, else on others, else all."""
    if not costs:
        return "Nothing is known of the time yet."
    known: dict[tuple[object, ...], list[float]] = {}
    for run, cost in costs.items():
        for key in _from_like_to_unlike(run):
            known.setdefault(key, []).append(cost)
    estimates = [next(known[key] for key in _from_like_to_unlike(run) if key in known) for run in waiting]
    seconds = sum(sum(alike) / len(alike) for alike in estimates)
    return f"About {seconds / 60:.0f} min left." if seconds >= 90 else f"About {seconds:.0f} s left."


def _from_like_to_unlike(run: Run) -> list[tuple[object, ...]]:
    return [_setting_of(run), (run.method_name, run.shots), (run.method_name,), ()]
