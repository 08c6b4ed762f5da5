# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""On the path of a process, ends it where it tries the network, even if it would do without."""

import os
import sys

TRIED = 97


def watch(event: str, arguments: tuple) -> None:
    """Of Python's audit events, those of sockets; paths of local ones are no tuples."""
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        sys.stderr.write(f"The network was tried: {event} {arguments}\n")
        sys.stderr.flush()
        os._exit(TRIED)


sys.addaudithook(watch)
