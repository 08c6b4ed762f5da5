# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Reports as commands: a report on standard output, without what others log meanwhile."""

import logging
import sys
from collections.abc import Callable, Iterable

from anomalib_aprilgan.components.interrupts import STOPPED, is_stop, stopped_by_signals

CHATTY = ("anomalib", "anomalib_aprilgan", "lightning.pytorch")


def print_report(
    report: Callable[..., str],
    args: list[str] | None,
    *,
    quiet: Iterable[str] = CHATTY,
    level: int = logging.ERROR,
    as_positional: bool = False,
) -> None:
    """Run a report with arguments of the command line; Ctrl-C and SIGTERM stop it, with status 130.

    Args:
        report: Gives the text to print; its parameters are the command's options.
        args: Of the command line; None takes the process's own.
        quiet: Loggers to quieten.
        level: What these may still say.
        as_positional: Whether required parameters are positional arguments.

    Raises:
        SystemExit: If it was stopped, or the arguments are wrong.
    """
    from jsonargparse import auto_cli

    for name in quiet:
        logging.getLogger(name).setLevel(level)
    try:
        with stopped_by_signals():  # a trainer would only take note of SIGTERM, and its test go on
            text = auto_cli(report, args=args, as_positional=as_positional)
    except (KeyboardInterrupt, SystemExit) as error:
        if not is_stop(error):
            raise
        raise SystemExit(STOPPED) from None
    sys.stdout.write(text)
