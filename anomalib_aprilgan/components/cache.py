# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The package's own cache folder: small derived files that any process may rebuild."""

import logging
import os
from pathlib import Path
from uuid import uuid4

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ANOMALIB_APRILGAN_CACHE"


def cache_dir() -> Path:
    """Folder for derived files, not created here.

    Returns:
        Path: ``$ANOMALIB_APRILGAN_CACHE``, else ``$XDG_CACHE_HOME/anomalib-aprilgan``, else
        ``~/.cache/anomalib-aprilgan``.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "anomalib-aprilgan"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content, the new content, or no file; its folder is created.

    Its permissions are those of any new file: what the umask leaves.

    Raises:
        OSError: If the folder cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")  # tempfile's would be for the owner's eyes only
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_cache_entry(path: Path, content: bytes) -> None:
    """Write a file of the cache; where that is impossible, warn and go on: a cache is a convenience."""
    try:
        write_atomically(path, content)
    except OSError as error:
        logger.warning("Cannot write %s (%s): going on without this cache entry.", path, error)
