# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Single files from the web, known by their git blob hash: resumed, verified, and whole or absent."""

import atexit
import functools
import hashlib
import logging
import os
import shutil
import tempfile
import threading
import urllib.request
from collections.abc import Generator
from concurrent import futures
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

# Until a server has looked up, connected, redirected and answered; nobody waits longer for "no network".
ANSWER_SECONDS = 8.0
# Between two pieces of a file that is on its way.
STALL_SECONDS = 30.0
# For another process that downloads the same file.
LOCK_SECONDS = 600.0
CHUNK_BYTES = 1 << 16


class DownloadError(OSError):
    """A file is not to be had from its address; the message says why."""


def git_blob_hash(path: Path) -> str:
    """The name that git gives to a file's content, 40 hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def is_intact(path: Path, blob: str) -> bool:
    """Whether a file is there, can be read, and has the git blob hash ``blob``."""
    try:
        return git_blob_hash(path) == blob
    except OSError:
        return False


def download(url: str, target: Path, blob: str, *, answer_seconds: float = ANSWER_SECONDS) -> Path:
    """Path of a file with the given hash; it is downloaded unless it is there.

    What a broken download has received lies beside the target, as ``NAME.part``, and the next call goes on there.
    Of several processes one downloads, and the others wait for it.

    Args:
        url (str): Address of the file.
        target (Path): Where it shall lie; the folder is created.
        blob (str): Git blob hash of the file.
        answer_seconds (float): Time for the server to begin an answer.

    Returns:
        Path: ``target``; where that cannot be written, a temporary file that ends with this process.

    Raises:
        DownloadError: If the server is out of reach, refuses, breaks off, or has another file.
        OSError: If neither the target nor a temporary folder can be written.
    """
    if is_intact(target, blob):
        return target
    try:
        return _download_alone(url, target, blob, answer_seconds)
    except DownloadError:
        raise
    except OSError as error:  # the network's errors are DownloadErrors, so it is the folder, the disk or the lock
        temporary = _temporary_folder() / blob / target.name
        logger.warning("Cannot write %s (%s): keeping it for this process only, at %s.", target, error, temporary)
        return _download_alone(url, temporary, blob, answer_seconds)


@functools.cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="anomalib-aprilgan-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _download_alone(url: str, target: Path, blob: str, answer_seconds: float) -> Path:
    """Download while no other process does."""
    part = target.with_name(f"{target.name}.part")
    with _lock(target.with_name(f".{target.name}.lock")):
        if is_intact(target, blob):  # another process had the lock before
            return target
        if target.exists():
            logger.warning("%s is damaged or another file: it is downloaded again.", target)
        _complete(url, part, blob, answer_seconds)
        part.replace(target)
    return target


@contextmanager
def _lock(path: Path) -> Generator[None, None, None]:
    """Hold a lock file; where the file system knows locks, it is free when its process ends in any way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(path).acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        msg = f"another process has held {path} for {LOCK_SECONDS:.0f} s"
        raise DownloadError(msg) from error
    except NotImplementedError as error:  # of a file system without locks
        raise OSError(str(error)) from error
    with held:
        yield


def _complete(url: str, part: Path, blob: str, answer_seconds: float) -> None:
    """Make ``part`` the whole file with the right hash, or delete it."""
    is_resumed = _receive(url, part, answer_seconds)
    if is_resumed and not is_intact(part, blob):
        logger.warning("What %s held before belongs to another file: downloading from the start.", part)
        part.unlink()
        _receive(url, part, answer_seconds)
    if (found := git_blob_hash(part)) != blob:
        part.unlink()
        msg = f"{url} holds another file: expected git blob {blob}, found {found}"
        raise DownloadError(msg)


def _receive(url: str, part: Path, answer_seconds: float) -> bool:
    """Append what ``part`` lacks, or replace it where the server only sends whole files.

    Returns:
        bool: Whether the beginning is of an earlier download.
    """
    start = part.stat().st_size if part.exists() else 0
    response = _ask(url, start, answer_seconds)
    if response is None:
        return True
    with response, part.open("ab") as file:
        is_resumed = response.status == HTTPStatus.PARTIAL_CONTENT
        if not is_resumed:
            file.truncate(0)
        length = response.headers["Content-Length"] or ""
        expected = file.seek(0, os.SEEK_END) + int(length) if length.isdecimal() else None
        while chunk := _read(response, url):
            file.write(chunk)
        if expected not in {None, file.tell()}:  # a connection that ends early raises nothing
            msg = f"{url} broke off after {file.tell()} of {expected} bytes, which are kept for the next try"
            raise DownloadError(msg)
    return is_resumed


def _read(response: HTTPResponse, url: str) -> bytes:
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, HTTPException) as error:
        msg = f"{url} broke off ({error}); what came is kept for the next try"
        raise DownloadError(msg) from error


def _ask(url: str, start: int, answer_seconds: float) -> HTTPResponse | None:
    """The server's answer to a request for the bytes from ``start`` on, or None if there are no more."""
    future: futures.Future[HTTPResponse] = futures.Future()
    # In a thread of its own, because looking up a name knows no timeout.
    threading.Thread(target=_answer, args=(future, url, start), daemon=True).start()
    try:
        return future.result(answer_seconds)
    except HTTPError as error:
        error.close()
        if start and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return None
        msg = f"{url} answers {error.code} {error.reason}"
        raise DownloadError(msg) from error
    except (futures.TimeoutError, TimeoutError) as error:
        future.cancel()
        msg = f"no answer from {url} within {answer_seconds:.0f} s"
        raise DownloadError(msg) from error
    except (OSError, ValueError, HTTPException) as error:  # nobody there, no URL, no web server
        msg = f"no answer from {url} ({getattr(error, 'reason', error)})"
        raise DownloadError(msg) from error


def _answer(future: "futures.Future[HTTPResponse]", url: str, start: int) -> None:
    try:
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # ruff: ignore[suspicious-url-open-usage] - the caller's own address
        response = urllib.request.urlopen(request, timeout=STALL_SECONDS)  # ruff: ignore[suspicious-url-open-usage]
    except Exception as error:  # ruff: ignore[blind-except] - the waiting thread raises it again
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
        return
    if future.set_running_or_notify_cancel():
        future.set_result(response)
    else:  # nobody waits any more
        response.close()
