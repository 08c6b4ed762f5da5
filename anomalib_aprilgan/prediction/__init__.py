# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Bulk work: verdicts on folders of many photos, written as they come."""
