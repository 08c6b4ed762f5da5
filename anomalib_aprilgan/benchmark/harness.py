# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Run a benchmark to its end, however often it is stopped, and write its report."""

import logging
import os
import time
import traceback
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from .journal import Journal
from .plan import Dataset, Method, Run, Shots, list_runs
from .report import write_report
from .single_run import ROW_COLUMNS, Settings, execute

logger = logging.getLogger(__name__)

RESULTS = "results.csv"
FAILURES = "failures.log"
# Names the run under way: one that takes its process down with it must not keep the others from their turn for good.
UNDER_WAY = "under_way"


def run_benchmark(
    methods: Mapping[str, Method],
    datasets: Mapping[str, Dataset],
    output: Path,
    shots: Sequence[Shots] = (),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    settings: Settings | None = None,
) -> list[str]:
    """Do all runs that ``results.csv`` does not have yet, then write the report.

    Args:
        methods: Models by the names that the report gives them.
        datasets: Images, by name.
        output: Folder of ``results.csv``, ``failures.log`` and the report.
        shots: Numbers of references for methods that have none of their own.
        seeds: Of the draw of references, and of all else that is random.
        settings: How to measure.

    Returns:
        The runs that failed, with their errors. They are tried again next time.

    Raises:
        ValueError: If the plan is wrong; nothing has run then.
        RuntimeError: If another process runs the same benchmark.
    """
    settings = settings or Settings()
    runs = list_runs(methods, datasets, shots, seeds)
    journal = Journal(output / RESULTS, ROW_COLUMNS)
    with journal.locked():
        done = {row["run"]: row for row in journal.rows()}
        marker = output / UNDER_WAY
        interrupted = marker.read_text(encoding="utf-8") if marker.exists() else ""
        waiting = sorted((run for run in runs if run.key not in done), key=lambda run: run.key == interrupted)
        logger.info("%d runs, %d of them done before.", len(runs), len(runs) - len(waiting))
        costs = {run: float(done[run.key]["seconds"]) for run in runs if run.key in done}
        failures = _work_off(waiting, journal, costs, settings)
        marker.unlink(missing_ok=True)
        keys = {run.key for run in runs}
        rows = [row for row in journal.rows() if row["run"] in keys]
        write_report(output, rows, runs, failures)
    return failures


def _work_off(waiting: Sequence[Run], journal: Journal, costs: dict[Run, float], settings: Settings) -> list[str]:
    failures: list[str] = []
    folder = journal.path.parent
    for position, run in enumerate(waiting):
        logger.info("Run %d of %d: %s. %s", position + 1, len(waiting), run, _time_left(waiting[position:], costs))
        (folder / UNDER_WAY).write_text(run.key, encoding="utf-8")
        started = time.perf_counter()
        try:
            with _quiet():
                row = execute(run, settings)
            journal.append(row)
        except Exception as error:  # ruff: ignore[blind-except] - whatever a model or dataset does, the others go on
            failures.append(f"{run}: {type(error).__name__}: {error}")
            logger.error("Failed: %s", failures[-1])  # ruff: ignore[error-instead-of-exception] - the trace is in the file
            with (folder / FAILURES).open("a", encoding="utf-8") as file:
                file.write(f"{failures[-1]}\n{traceback.format_exc()}\n")
                os.fsync(file.fileno())
        costs[run] = time.perf_counter() - started
    return failures


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
    """An estimate from what runs of the same method and setting took, else from all."""
    if not costs:
        return "Nothing is known of the time yet."
    alike: dict[tuple[str, Shots], list[float]] = {}
    for run, seconds in costs.items():
        alike.setdefault((run.method_name, run.shots), []).append(seconds)
    overall = list(costs.values())
    estimates = [alike.get((run.method_name, run.shots), overall) for run in waiting]
    seconds = sum(sum(known) / len(known) for known in estimates)
    return f"About {seconds / 60:.0f} min left." if seconds >= 90 else f"About {seconds:.0f} s left."
