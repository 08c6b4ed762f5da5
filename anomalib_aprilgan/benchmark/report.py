# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The report of a benchmark: tables in the form of the paper's, per category, costs, a plot, and how it was done."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from .latency import MAX_REPEATS, MIN_REPEATS
from .machine import DISTRIBUTIONS
from .metrics import COLUMNS, PIXEL_COLUMNS
from .plan import Run
from .plot import plot_latency
from .single_run import LATENCY_COLUMNS
from .summary import PAPER, STREAMING, Group, category_rows, comparison_rows, cost_rows, group_rows, image_rows
from .tables import Part, Picture, Table, as_html, as_latex, as_markdown, as_markdown_fragment

TITLE = "Benchmark of anomaly detection"
PLOT = "latency.png"
# The comparisons alone, for a page that has its own heading.
COMPARISONS = "comparison.md"
# Largest p95 in medians that needs no remark.
STEADY = 1.5
BOTH = f"{STREAMING}, {PAPER}"
SOURCES = Table(
    "Where thresholds and normalisations come from",
    ["columns", "protocol", "threshold", "normalisation"],
    [
        ["AUROC, AP", BOTH, "none: all thresholds count", "none, but see below: maps and scores are raw"],
        ["PRO-segm", BOTH, "200 from the least to the largest value of the test maps", "none"],
        ["F1-max-segm", BOTH, "the best on the pixels under test, as F1-max is defined", "none"],
        ["F1-max-cls", BOTH, "the best on the images under test, as F1-max is defined", "none, but see below"],
        [
            "AUROC-cls, F1-max-cls, AP-cls of AprilGAN with references",
            PAPER,
            "as above",
            "largest map values: min-max over the test images of the category",
        ],
    ],
)
NOTES = (
    """Metrics in percent, mean ± standard deviation over seeds (n - 1) of the mean over all categories; a seed that
    lacks a category is left out. Zero-shot has one seed: nothing is drawn.""",
    "At equal shots and seed, all methods see the same reference images; results.csv names them, with their SHA-256.",
    """Thresholds and normalisations are those of the table above, none of a validation split. No method is validated
    on the test images, as many of anomalib's datamodules would have it.""",
    """AUROC, F1-max and AP as in scikit-learn. PRO-segm as published: 200 thresholds, 8-connected regions, false
    positive rates below 0.3. Masks and maps are compared at the size of each model's map, which
    stands among the costs.""",
    """Protocol streaming: each image is judged by itself. Protocol paper: AprilGAN's few-shot image score is
    ½ (text score + largest map value, min-max over the category's test images), so it needs the whole test set; maps
    are the same in both. Elsewhere the protocols do not differ, and one line stands for both.""",
    f"""Milliseconds are of whole forward passes with pre-processing from images in memory, {MIN_REPEATS} to
    {MAX_REPEATS} of them: a p95 of few is their slowest. Seconds to prepare are from the loaded model to the first
    image that it can judge, and with AprilGAN less once a class's text is in its cache.
    Memory is the largest of preparation and test, of the process, with the maps that it keeps for the metrics, and of
    tensors on the GPU.""",
)


def write_report(
    output: Path, rows: Sequence[Mapping[str, str]], runs: Sequence[Run], failures: Mapping[str, str]
) -> None:
    """Write ``report.md``, ``report.tex``, ``report.html``, ``comparison.md`` and the plot into a folder.

    Args:
        output: The folder.
        rows: Those of ``results.csv`` that belong to the runs.
        runs: All that were planned.
        failures: Errors by run.
    """
    output.mkdir(parents=True, exist_ok=True)
    groups = group_rows(rows, runs) if rows else []
    by_dataset = {name: list(each) for name, each in groupby(groups, key=lambda group: group.first.dataset_name)}
    comparisons = [_comparison(name, members) for name, members in by_dataset.items()]
    parts: list[Part] = [f"Runs done: {len(rows)} of {len(runs)}.", *failure_lines(failures)]
    for comparison, (name, members) in zip(comparisons, by_dataset.items(), strict=True):
        parts += [comparison, *_categories(name, members)]
    if groups:
        parts.append(Table("Test images", ["dataset", "category", "normal", "anomalous"], list(image_rows(groups))))
        head = ["dataset", "setting", "method", "map size", "seconds to prepare"]
        head += [column.replace("_", " ") for column in LATENCY_COLUMNS]
        parts.append(Table("Costs", [*head, "peak MiB of the process", "of the GPU"], list(cost_rows(groups))))
        parts += unsteady_times(groups)
    if plot_latency(groups, output / PLOT):
        parts.append(Picture("Latency against accuracy", output / PLOT))
    parts += [SOURCES, *(" ".join(note.split()) for note in NOTES), *_circumstances(rows, runs)]
    for suffix, render in (("md", as_markdown), ("tex", as_latex), ("html", as_html)):
        (output / f"report.{suffix}").write_text(render(TITLE, parts), encoding="utf-8")
    (output / COMPARISONS).write_text(as_markdown_fragment(comparisons), encoding="utf-8")


def failure_lines(failures: Mapping[str, str]) -> list[str]:
    """A line an error, with the first run that it stopped; all of a wrong dataset have the same.

    Example:
        >>> failure_lines({"a, seed 0": "ValueError: no", "a, seed 1": "ValueError: no", "b": "OSError: gone"})
        ['Failed: a, seed 0, and 1 other: ValueError: no', 'Failed: b: OSError: gone']
    """
    runs_of: dict[str, list[str]] = {}
    for run, error in failures.items():
        runs_of.setdefault(error, []).append(run)
    others = {1: "", 2: ", and 1 other"}
    return [
        f"Failed: {runs[0]}{others.get(len(runs), f', and {len(runs) - 1} others')}: {error}"
        for error, runs in runs_of.items()
    ]


def unsteady_times(groups: Sequence[Group]) -> list[str]:
    """A remark, if the times of a group scatter so much that comparing their medians says little."""
    names = [f"{group.first.method_name}, {group.setting}, on {group.first.dataset_name}" for group in groups]
    ratios = dict(zip(names, (group.slowdown for group in groups), strict=True))
    unsteady = [name for name, ratio in ratios.items() if ratio > STEADY]
    if not unsteady:
        return []
    worst = max(unsteady, key=lambda name: ratios[name])
    count = f"{len(unsteady)} of {len(groups)}, at most {ratios[worst]:.1f} times ({worst})"
    advice = "The machine may have had other work: compare times with care."
    return [f"Lines of the costs with a p95 of more than {STEADY:g} times the median: {count}. {advice}"]


def _comparison(dataset: str, groups: Sequence[Group]) -> Table:
    return Table(dataset, ["setting", "method", "protocol", "seeds", *COLUMNS], list(comparison_rows(groups)))


def _categories(dataset: str, groups: Sequence[Group]) -> list[Table]:
    """The table of single categories, if there are several."""
    if len({run.category for group in groups for run in group.runs}) == 1:
        return []
    head = ["category", "setting", "method", "protocol", "seeds", *COLUMNS]
    return [Table(f"{dataset}, by category", head, list(category_rows(groups)))]


def _circumstances(rows: Sequence[Mapping[str, str]], runs: Sequence[Run]) -> list[str]:
    """What else readers must know: machines, versions, images, trained parts, and remarks of the models."""
    lines = []
    for column in ("device", "threads", "python", *DISTRIBUTIONS):
        values = sorted({row[column] for row in rows} - {""})
        lines.append(f"{column}: {', '.join(values) or 'unknown'}.")
    for name, dataset in {run.dataset_name: run.dataset for run in runs}.items():
        if dataset.max_train_images is not None:
            lines.append(f"{name}: the full training set is {dataset.max_train_images} images, drawn with seed 0.")
        if dataset.max_test_images is not None:
            lines.append(f"{name}: at most {dataset.max_test_images} test images of each kind, drawn with seed 0.")
    with_masks = {row["dataset"] for row in rows if any(row[column] for column in PIXEL_COLUMNS)}
    for row in rows:
        has_masks, has_pixels = row["dataset"] in with_masks, any(row[column] for column in PIXEL_COLUMNS)
        said = (
            (not has_pixels and has_masks, "no metrics of pixels, since the model gives no maps"),
            (row["adapters"], f"adapters {row['adapters']}"),
            (row["prompt_weights"], f"learned prompts {row['prompt_weights']}"),
            (row["trained_on"], f"parts were trained on {row['trained_on']}"),
            (
                row["trained_on_test_data"] == "True",
                "parts were trained on the data under test. The results say little",
            ),
            (row["remarks"], row["remarks"]),
        )
        if not has_masks:
            lines.append(f"{row['dataset']}: no metrics of pixels, since not all images have masks.")
        lines += [f"{row['method']} on {row['dataset']}: {sentence}." for applies, sentence in said if applies]
    return list(dict.fromkeys(lines))  # runs of a method say the same
