# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Files that grow line by line, and what a kill leaves at their end."""

import os
from typing import IO


def drop_torn_line(file: IO[bytes]) -> None:
    """Cut off what a killed process had begun to write after the last line break; the file is then at its end."""
    if not file.seek(0, os.SEEK_END):
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.seek(file.read().rfind(b"\n") + 1)
        file.truncate()
