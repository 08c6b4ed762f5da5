# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The report of a benchmark: tables in the form of the paper's, per category, costs, a plot, and how it was done."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from .metrics import COLUMNS
from .plan import Run
from .plot import plot_latency
from .single_run import DISTRIBUTIONS, LATENCY_COLUMNS
from .summary import Group, category_rows, comparison_rows, cost_rows, group_rows
from .tables import Part, Picture, Table, as_html, as_latex, as_markdown

TITLE = "Benchmark of anomaly detection"
PLOT = "latency.png"
NOTES = (
    """Metrics in percent, mean ± standard deviation over seeds (n - 1) of the mean over all categories; a seed that
    lacks a category is left out. Zero-shot has one seed: nothing is drawn.""",
    "At equal shots and seed, all methods see the same reference images; results.csv names them, with their SHA-256.",
    """F1-max is by definition the largest F1 over all thresholds, on the test images. No metric uses a threshold or a
    normalisation from a validation split: scores and maps are the models' raw ones.""",
    """AUROC, F1-max and AP as in scikit-learn. PRO-segm as published: 200 thresholds, 8-connected regions, false
    positive rates below 0.3. Masks and maps are compared at the size of each model's map.""",
    """Protocol streaming: each image is judged by itself. Protocol paper: AprilGAN's few-shot image score is
    ½ (text score + largest map value, min-max over the category's test images), so it needs the whole test set; maps
    are the same in both.""",
    """Milliseconds are of whole forward passes with pre-processing from images in memory; seconds to prepare are from
    the loaded model to the first image that it can judge; memory is the largest of a run, of the process and of
    tensors on the GPU.""",
)


def write_report(output: Path, rows: Sequence[Mapping[str, str]], runs: Sequence[Run], failures: Sequence[str]) -> None:
    """Write ``report.md``, ``report.tex``, ``report.html`` and the plot into a folder.

    Args:
        output: The folder.
        rows: Those of ``results.csv`` that belong to the runs.
        runs: All that were planned.
        failures: Runs that failed, with their errors.
    """
    output.mkdir(parents=True, exist_ok=True)
    groups = group_rows(rows, runs) if rows else []
    parts: list[Part] = [f"{len(rows)} of {len(runs)} runs are done.", *(f"Failed: {failure}" for failure in failures)]
    for dataset, members in groupby(groups, key=lambda group: group.first.dataset_name):
        parts += _tables_of(dataset, list(members))
    if groups:
        head = ["dataset", "setting", "method", "seconds to prepare"]
        head += [column.replace("_", " ") for column in LATENCY_COLUMNS]
        parts.append(Table("Costs", [*head, "peak MiB of the process", "of the GPU"], list(cost_rows(groups))))
    if plot_latency(groups, output / PLOT):
        parts.append(Picture("Latency against accuracy", PLOT))
    parts += [*(" ".join(note.split()) for note in NOTES), *_circumstances(rows)]
    for suffix, render in (("md", as_markdown), ("tex", as_latex), ("html", as_html)):
        (output / f"report.{suffix}").write_text(render(TITLE, parts), encoding="utf-8")


def _tables_of(dataset: str, groups: Sequence[Group]) -> list[Part]:
    comparison = Table(dataset, ["setting", "method", "protocol", "seeds", *COLUMNS], list(comparison_rows(groups)))
    head = ["category", "setting", "method", "protocol", "seeds", *COLUMNS]
    categories = Table(f"{dataset}, by category", head, list(category_rows(groups)))
    return (
        [comparison, categories] if len({run.category for group in groups for run in group.runs}) > 1 else [comparison]
    )


def _circumstances(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """What else readers must know: machines, versions, adapters, and remarks of the models."""
    lines = []
    for column in ("device", "threads", "python", *DISTRIBUTIONS):
        values = sorted({row[column] for row in rows} - {""})
        lines.append(f"{column}: {', '.join(values) or 'unknown'}.")
    for row in rows:
        method = f"{row['method']} on {row['dataset']}"
        if row["adapters"]:
            lines.append(f"{method}: adapters {row['adapters']}.")
        if row["trained_on"]:
            lines.append(f"{method}: parts were trained on {row['trained_on']}.")
        if row["trained_on_test_data"] == "True":
            lines.append(f"{method}: parts were trained on the data under test. The results say little.")
        if row["remarks"]:
            lines.append(f"{method}: {row['remarks']}.")
    return list(dict.fromkeys(lines))
