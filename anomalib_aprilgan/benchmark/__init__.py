# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Measurements of the models on image sets, written as reports."""

from anomalib_aprilgan.detection.region_overlap import PublishedAUPRO

from .metrics import COLUMNS, paper_metrics

__all__ = ["COLUMNS", "PublishedAUPRO", "paper_metrics"]
