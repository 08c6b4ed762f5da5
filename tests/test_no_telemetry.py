# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO would tell Intel of each import, NNCF of each compression; here they find nothing to tell it with."""

import subprocess
import sys
from unittest.mock import MagicMock

from nncf.telemetry import telemetry
from openvino.tools.ovc import telemetry_utils

SILENT = "openvino.tools.ovc.telemetry_stub"


def test_this_process_is_silent():
    assert telemetry_utils.tm.__name__ == SILENT
    assert isinstance(telemetry, MagicMock)


def test_its_children_are_silent():
    code = "import sys; from openvino.tools.ovc import telemetry_utils; sys.stdout.write(telemetry_utils.tm.__name__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == SILENT
