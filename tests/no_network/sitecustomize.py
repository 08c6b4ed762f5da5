# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""On the path of a process, ends it where it tries the network by Python's sockets, even if it would do without."""

import os
import sys

TRIED = 97
# Of Python's audit events: look-ups of names, and what goes to an address. Addresses of local sockets are no tuples.
LOOK_UPS = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
TO_AN_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}


def watch(event: str, arguments: tuple) -> None:
    """End the process if the event is one of the network."""
    if event in LOOK_UPS or (event in TO_AN_ADDRESS and isinstance(arguments[1], tuple)):
        sys.stderr.write(f"The network was tried: {event} {arguments}\n")
        sys.stderr.flush()
        os._exit(TRIED)


sys.addaudithook(watch)
