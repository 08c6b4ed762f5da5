# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Libraries that talk so much that nobody finds what matters."""

import logging
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet(*names: str) -> Generator[None, None, None]:
    """Let loggers, and those below them, tell no more than warnings.

    Args:
        names (str): Of loggers.

    Example:
        >>> with quiet("onnx_ir"):
        ...     logging.getLogger("onnx_ir.passes").isEnabledFor(logging.INFO)
        False
    """
    levels = {name: logging.getLogger(name).level for name in names}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
