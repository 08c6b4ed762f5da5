# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Reports as commands: a report on standard output, without what others log meanwhile."""

import logging
import sys
from collections.abc import Callable, Iterable

CHATTY = ("anomalib", "anomalib_aprilgan", "lightning.pytorch")


def print_report(
    report: Callable[..., str],
    args: list[str] | None,
    *,
    quiet: Iterable[str] = CHATTY,
    level: int = logging.ERROR,
    as_positional: bool = False,
) -> None:
    """Run a report with arguments of the command line.

    Args:
        report: Gives the text to print; its parameters are the command's options.
        args: Of the command line; None takes the process's own.
        quiet: Loggers to quieten.
        level: What these may still say.
        as_positional: Whether required parameters are positional arguments.
    """
    from jsonargparse import auto_cli

    for name in quiet:
        logging.getLogger(name).setLevel(level)
    sys.stdout.write(auto_cli(report, args=args, as_positional=as_positional))
