# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What a check of an installation finds, and what it is asked about."""

from collections.abc import Sequence
from dataclasses import dataclass

from .components.embedded import AUTO, PAPER

MARKS = {True: "[ok]", False: "[!!]", None: "[--]"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        ok (bool | None): Whether it is as it must be; None for what is merely good to know.
        subject (str): What was looked at.
        detail (str): What was found.
        remedy (str): What to do about it, if anything.
    """

    ok: bool | None
    subject: str
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Settings:
    """Arguments of the model that is to predict, as in :class:`anomalib_aprilgan.AprilGANModel`.

    Attributes:
        prompt_weights (str | None): Of AnomalyCLIP, which is looked at besides.
    """

    backbone: str = "ViT-L-14-336"
    pretrained: str | None = PAPER.pretrained
    adapters: str | None = AUTO
    image_size: int = PAPER.image_size
    layers: Sequence[int] = PAPER.layers
    prompt_weights: str | None = AUTO


def is_well(findings: Sequence[Finding]) -> bool:
    """Whether nothing must be put right."""
    return all(finding.ok is not False for finding in findings)


def render(findings: Sequence[Finding]) -> str:
    """The report as text, one line a finding, its remedy below it."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{MARKS[finding.ok]} {finding.subject:<{width}}  {' '.join(finding.detail.split())}")
        if finding.remedy:
            lines.append(f"{'':<{width + 7}}-> {finding.remedy}")
    return "".join(f"{line}\n" for line in lines)
