# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The watch that ``.ci/run`` and the tests of the host keep over their processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "no_network")}
TRY = """
import socket
try:
    {}
except OSError:
    pass
"""


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', 9))",
        "socket.socket().connect_ex(('127.0.0.1', 9))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
        "socket.gethostbyname('localhost')",
    ],
)
def test_a_try_ends_the_process_though_it_would_do_without(attempt):
    command = [sys.executable, "-c", TRY.format(attempt)]
    done = subprocess.run(command, env=WATCHED, capture_output=True, text=True, check=False)
    assert done.returncode == 97
    assert done.stderr.startswith("The network was tried: socket.")


def test_sockets_within_the_machine_are_no_network():
    code = "import socket; socket.socketpair(); socket.socket(socket.AF_UNIX).connect_ex('/nowhere')"
    subprocess.run([sys.executable, "-c", code], env=WATCHED, check=True)
