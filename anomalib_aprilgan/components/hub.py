# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Weights from the Hugging Face hub, into the hub's own cache, and a quick answer where there is no network."""

import hashlib
import logging
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]  # exported lazily

from .embedded import BACKBONE
from .offline import REMEDY, forbidden_by

logger = logging.getLogger(__name__)

# Names that open_clip gives to a checkpoint in a hub repository, safe formats first.
CHECKPOINT_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
# The hub's client retries for 23 to 46 seconds where no network is; nobody waits that long for "no".
PROBE_SECONDS = 5.0


class WeightsNotFoundError(FileNotFoundError):
    """Pretrained weights are neither on this machine nor to be had; the message says where they may be put."""


def find_in_hub_cache(repo_id: str, filenames: Sequence[str] = CHECKPOINT_NAMES) -> Path | None:
    """Look for a checkpoint in the hub's cache, without network.

    Args:
        repo_id (str): Repository, ``org/name``.
        filenames (Sequence[str]): Names to look for, best first.

    Returns:
        Path | None: The first that is there.
    """
    for filename in filenames:
        cached = try_to_load_from_cache(repo_id, filename)
        if isinstance(cached, str):
            return Path(cached)
    return None


def fetch_from_hub(repo_id: str, filenames: Sequence[str] = CHECKPOINT_NAMES) -> Path:
    """Path of a checkpoint in the hub's cache; it is downloaded if need be.

    What a broken download has received stays in the cache, and the next call goes on there, in any process. Only what
    has the right SHA-256 comes into place.

    Args:
        repo_id (str): Repository, ``org/name``.
        filenames (Sequence[str]): Names that the checkpoint may have, best first.

    Returns:
        Path: The first of the names that the repository holds.

    Raises:
        WeightsNotFoundError: If it is not in the cache and the hub is off, out of reach or without it.
    """
    if cached := find_in_hub_cache(repo_id, filenames):
        return cached
    if variable := forbidden_by():
        raise WeightsNotFoundError(_explain(repo_id, filenames, f"{variable} forbids the network"))
    if not _is_reachable(constants.ENDPOINT):
        reason = f"{constants.ENDPOINT} cannot be reached"
        raise WeightsNotFoundError(_explain(repo_id, filenames, reason))
    try:
        return next(path for filename in filenames if (path := _download(repo_id, filename)))
    except StopIteration:
        reason = "the repository holds none of these files"
        raise WeightsNotFoundError(_explain(repo_id, filenames, reason)) from None
    # No such repository, no access, disk full; of a broken connection, httpx and hf_xet tell in errors of their own.
    except Exception as error:
        # The hub's "not on this machine" hides what the server said.
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
        reason = " ".join(str(cause or error).split())
        raise WeightsNotFoundError(_explain(repo_id, filenames, reason)) from error


def _download(repo_id: str, filename: str) -> Path | None:
    """Download a file, or None where the repository has no such file."""
    try:
        _receive_blob(repo_id, filename)
        return Path(hf_hub_download(repo_id, filename, etag_timeout=PROBE_SECONDS))  # finds the blob and links to it
    except LocalEntryNotFoundError:  # the connection broke; it is an EntryNotFoundError, too
        raise
    except EntryNotFoundError:
        return None


def _receive_blob(repo_id: str, filename: str) -> None:
    """Put a large file among the blobs of the hub's cache, as its client does, but keep what a broken download has.

    The client gives each download a file of its own, and deletes it when the connection breaks
    (``_download_to_tmp_and_move`` in its ``file_download.py``).
    """
    url = hf_hub_url(repo_id, filename)
    metadata = get_hf_file_metadata(url, timeout=PROBE_SECONDS)
    digest, size = metadata.etag or "", metadata.size
    if size is None or not re.fullmatch(r"[0-9a-f]{64}", digest):
        return  # a small file, or a mirror of another kind: the client knows how to fetch it
    cache = Path(constants.HF_HUB_CACHE)
    repository = repo_folder_name(repo_id=repo_id, repo_type="model")
    blob = cache / repository / "blobs" / digest
    lock = cache / ".locks" / repository / f"{digest}.lock"  # the client's own
    for folder in (blob.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if not blob.exists():
            partial = blob.with_name(f"{digest}.incomplete")  # a name that the hub's tools know and can clean up
            _complete(partial, url, digest, size)
            partial.replace(blob)


def _complete(partial: Path, url: str, digest: str, size: int) -> None:
    """Make ``partial`` the whole file with the right hash, or delete it.

    Raises:
        OSError: If the server has another file.
    """
    is_resumed = partial.exists()
    with partial.open("ab") as file:
        if (start := file.tell()) < size:
            headers = build_hf_headers() | {"Accept-Encoding": "identity"}  # compressed files come from the start only
            http_get(url, file, resume_size=start, headers=headers, expected_size=size)
    if (found := sha256_of(partial)) == digest:
        return
    partial.unlink()
    if not is_resumed:
        msg = f"{url} holds another file: expected SHA-256 {digest}, found {found}"
        raise OSError(msg)
    logger.warning("What %s held before is damaged or of another file: downloading from the start.", partial)
    _complete(partial, url, digest, size)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _is_reachable(endpoint: str) -> bool:
    """Whether a server answers at all. In a thread of its own, because looking up a name knows no timeout."""
    answers: list[bool] = []
    probe = threading.Thread(target=lambda: answers.append(_answers(endpoint)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return bool(answers) and answers[0]


def _answers(endpoint: str) -> bool:
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # ruff: ignore[suspicious-url-open-usage] - the user's own HF_ENDPOINT
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS):  # ruff: ignore[suspicious-url-open-usage]
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500 and error.code != 429  # a refusal is an answer; "not now" is none
    except urllib.error.URLError as error:
        # The hub's client may know certificates that urllib does not: let it try.
        return "CERTIFICATE" in str(error.reason)
    except (OSError, ValueError, HTTPException):  # nobody there, no URL, no web server
        return False


def _explain(repo_id: str, filenames: Sequence[str], reason: str) -> str:
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}"
    return (
        f"Weights '{filenames[0]}' of '{repo_id}' are not on this machine and cannot be downloaded: {reason}. "
        f"Do one of these: copy the file ({' or '.join(filenames)}) from {constants.ENDPOINT}/{repo_id} to any place "
        "and pass pretrained=PATH, to AprilGAN with quick_gelu as for the tag; "
        f"put the hub's cache of another machine at {folder} (HF_HOME moves it); "
        f"name a mirror in HF_ENDPOINT; or {REMEDY} "
        f"To try out without any download, use the small CLIP of this package: backbone={BACKBONE}."
    )
