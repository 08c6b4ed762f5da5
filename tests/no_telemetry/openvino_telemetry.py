# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Stands before Intel's package of this name on the path of all tests: who imports it does without, and is silent."""

msg = "Tests tell nobody that they run."
raise ImportError(msg)
