# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The watch that ``.ci/run`` and the tests of the host keep over their processes, and all tests over their own."""

import os
import socket
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


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (lambda: socket.getaddrinfo("hub.invalid", 443), r"socket\.getaddrinfo of 'hub\.invalid'"),
        (lambda: socket.create_connection(("192.0.2.1", 9), 0.01), r"socket\.getaddrinfo of '192\.0\.2\.1'"),
        (lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 9)), r"socket\.sendto of"),
    ],
)
def test_no_test_may_ask_another_machine(attempt, told):
    with pytest.raises(pytest.fail.Exception, match=f"A test tried the network: {told}"):
        attempt()
