# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Rows of results, put together: means over categories, and their spread over seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import pandas as pd

from .latency import BATCH_SIZES
from .metrics import COLUMNS, IMAGE_COLUMNS
from .plan import Run, setting_name
from .published import CATEGORIES, Figure, published_figure
from .single_run import LATENCY_COLUMNS, PAPER_COLUMNS

STREAMING, PAPER = "streaming", "paper"
COST_COLUMNS = ("seconds_to_prepare", *LATENCY_COLUMNS, "peak_host_mib", "peak_device_mib")


@dataclass(frozen=True)
class Group:
    """All runs of a method in one setting on one dataset.

    Attributes:
        runs (list[Run]): Those that were planned.
        rows (pd.DataFrame): Those that are done, numbers as floats.
    """

    runs: list[Run]
    rows: pd.DataFrame

    @property
    def first(self) -> Run:
        """A run to ask for names."""
        return self.runs[0]

    @property
    def setting(self) -> str:
        """Name of the setting, as in the paper's tables."""
        return setting_name(self.first.shots)

    @property
    def protocols(self) -> list[str]:
        """Protocols whose image metrics can differ; zero-shot scores are the same in both."""
        has_paper = self.first.shots != 0 and self.rows[list(PAPER_COLUMNS)].notna().any().any()
        return [STREAMING, PAPER] if has_paper else [STREAMING]

    def metrics(self, protocol: str) -> pd.DataFrame:
        """Rows with the paper's columns, in percent, and ``category`` and ``seed``."""
        names = dict(zip(PAPER_COLUMNS, IMAGE_COLUMNS, strict=True)) if protocol == PAPER else {}
        columns = ["category", "seed", *COLUMNS]
        chosen = self.rows.drop(columns=list(names.values())).rename(columns=names)[columns]
        return chosen.assign(**{column: 100 * chosen[column] for column in COLUMNS})

    def by_seed(self, protocol: str) -> pd.DataFrame:
        """Means over all categories, for each seed that has them all."""
        wanted = {run.category for run in self.runs}
        found = self.metrics(protocol).groupby("seed")
        whole = [group for _, group in found if set(group.category) == wanted]
        return pd.DataFrame([group[list(COLUMNS)].mean(skipna=False) for group in whole], columns=list(COLUMNS))

    @property
    def slowdown(self) -> float:
        """How many times its median a p95 is, at most over the batch sizes; NaN without latencies."""
        costs = self.rows[list(LATENCY_COLUMNS)].median()
        ratios = [costs[f"ms_p95_batch_{size}"] / costs[f"ms_median_batch_{size}"] for size in BATCH_SIZES]
        return float(pd.Series(ratios).max())

    def published(self) -> dict[str, Figure | None]:
        """The paper's figures by column; nothing where the runs are not the paper's setting."""
        run = self.first
        dataset = run.dataset.published_as
        limits = {run.dataset.max_train_images, run.dataset.max_test_images}
        if dataset is None or limits != {None} or len({each.category for each in self.runs}) != CATEGORIES[dataset]:
            return {}
        figures = {
            column: published_figure(dataset, self.setting, run.method.published_as, column) for column in COLUMNS
        }
        return figures if any(figures.values()) else {}


def group_rows(rows: Sequence[Mapping[str, str]], runs: Sequence[Run]) -> list[Group]:
    """Groups that have rows, in the order in which they were planned: by dataset, setting, method."""
    planned: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        planned.setdefault((run.dataset_name, setting_name(run.shots), run.method_name), []).append(run)
    frame = _as_numbers(pd.DataFrame(rows))
    groups = [Group(group, frame[frame.run.isin({run.key for run in group})]) for group in planned.values()]
    return [group for group in groups if len(group.rows)]


def _as_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    numbers = [*COLUMNS, *PAPER_COLUMNS, *COST_COLUMNS]
    return frame.assign(**{column: pd.to_numeric(frame[column], errors="coerce") for column in numbers})


def metric_cells(by_seed: pd.DataFrame) -> list[str]:
    """Mean ± standard deviation over seeds (of the sample, n - 1) for each column; no deviation of one seed.

    Example:
        >>> cells = metric_cells(pd.DataFrame([[50.0] * 7, [51.0] * 7], columns=list(COLUMNS)))
        >>> cells[0]
        '50.5 ± 0.7'
    """
    deviations = by_seed.std(ddof=1)
    return [_cell(by_seed[column].mean(skipna=False), deviations[column]) for column in COLUMNS]


def _cell(mean: float, deviation: float | None) -> str:
    if pd.isna(mean):
        return "-"
    return f"{mean:.1f}" if deviation is None or pd.isna(deviation) else f"{mean:.1f} ± {deviation:.1f}"


def comparison_rows(groups: Sequence[Group]) -> Iterator[list[str]]:
    """Rows in the form of the paper's tables, below each the published figures and the difference, if it has some."""
    for group in groups:
        run = group.first
        for protocol in group.protocols:
            by_seed = group.by_seed(protocol)
            if len(by_seed):
                yield [group.setting, run.method_name, protocol, str(len(by_seed)), *metric_cells(by_seed)]
        figures = group.published()
        by_seed = group.by_seed(group.protocols[-1])  # the paper's protocol where there is one
        if figures and len(by_seed):
            printed = [_cell(figure.mean, figure.std) if figure else "-" for figure in figures.values()]
            seeds = "5" if any(figure and figure.std is not None for figure in figures.values()) else "1"
            yield [group.setting, f"{run.method.published_as}, as published", PAPER, seeds, *printed]
            means = by_seed.mean(skipna=False)
            gaps = [means[column] - figure.mean if figure else None for column, figure in figures.items()]
            differences = ["-" if gap is None or pd.isna(gap) else f"{gap:+.1f}" for gap in gaps]
            yield [group.setting, "difference", PAPER, "", *differences]


def category_rows(groups: Sequence[Group]) -> Iterator[list[str]]:
    """Rows of single categories: mean and deviation over the seeds that are done."""
    categories = dict.fromkeys(run.category for group in groups for run in group.runs)
    for category, group in product(categories, groups):
        for protocol in group.protocols:
            rows = group.metrics(protocol)
            chosen = rows.loc[rows.category == category, list(COLUMNS)]
            if len(chosen):
                names = [category, group.setting, group.first.method_name, protocol]
                yield [*names, str(len(chosen)), *metric_cells(chosen)]


def cost_rows(groups: Sequence[Group]) -> Iterator[list[str]]:
    """What methods cost, and the size of their maps: medians over the runs, of memory the largest."""
    for group in groups:
        costs = group.rows[list(COST_COLUMNS)]
        peaks = [f"{value:.0f}" for value in costs[["peak_host_mib", "peak_device_mib"]].max()]
        times = ["-" if pd.isna(value) else f"{value:.1f}" for value in costs[list(COST_COLUMNS[:-2])].median()]
        map_sizes = ", ".join(sorted({*group.rows.map_size} - {""})) or "-"
        yield [group.first.dataset_name, group.setting, group.first.method_name, map_sizes, *times, *peaks]


def image_rows(groups: Sequence[Group]) -> Iterator[list[str]]:
    """Numbers of normal and anomalous test images of each category; ``-`` for a dataset without categories."""
    rows = [row for group in groups for row in group.rows.to_dict("records")]
    counts = {(row["dataset"], row["category"]): (row["test_images"], row["anomalous_images"]) for row in rows}
    planned = {(run.dataset_name, run.category): run.dataset for group in groups for run in group.runs}
    for (name, category), dataset in planned.items():
        if (name, category) in counts:
            images, anomalous = (int(count) for count in counts[name, category])
            yield [name, category if dataset.categories else "-", str(images - anomalous), str(anomalous)]
