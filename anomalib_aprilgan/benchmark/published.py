# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Published figures: of the paper's Tables 3 and 4 (arXiv 2305.17382), and of AnomalyCLIP's authors' logs.

The logs lie beside the published prompts in github.com/zqhang/AnomalyCLIP, commit 45ed4dd.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .classes import PlanError

TABLES = [Path(__file__).parent / name for name in ("paper_tables.csv", "anomaly_clip_logs.csv")]
# The paper's means are over all categories of a dataset.
CATEGORIES = {"mvtec": 15, "visa": 12}


class Figure(NamedTuple):
    """A printed figure in percent, with its standard deviation over five seeds if it has one."""

    mean: float
    std: float | None


@cache
def _figures() -> dict[tuple[str, str, str, str], Figure]:
    rows = [row for table in TABLES for row in csv.DictReader(table.read_text(encoding="utf-8").splitlines())]
    return {
        (row["dataset"], row["setting"], row["method"], row["metric"]): Figure(
            float(row["mean_percent"]), float(row["std_percent"]) if row["std_percent"] else None
        )
        for row in rows
    }


def published_figure(dataset: str | None, setting: str, method: str | None, metric: str) -> Figure | None:
    """What was published, or None where nothing was.

    Args:
        dataset: ``mvtec`` or ``visa``.
        setting: ``zero-shot``, ``1-shot``, ``2-shot`` or ``4-shot``.
        method: As its authors name it.
        metric: A column of the paper's tables.

    Example:
        >>> published_figure("visa", "1-shot", "APRIL-GAN", "AUROC-cls")
        Figure(mean=91.2, std=0.8)
    """
    return _figures().get((dataset or "", setting, method or "", metric))


def check_published_names(dataset: str | None, method: str | None) -> None:
    """Refuse names that the tables do not have.

    Raises:
        PlanError: If there is one; it lists those that there are.
    """
    for position, name in ((0, dataset), (2, method)):
        known = sorted({key[position] for key in _figures()})
        if name is not None and name not in known:
            remedy = f"Choose of {', '.join(known)}, or leave it out."
            msg = f"published_as={name!r} is not among the published figures. {remedy}"
            raise PlanError(msg)
