# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Weights from the Hugging Face hub, into the hub's own cache, and a quick answer where there is no network."""

import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

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

    The hub's client resumes broken connections within a call, and moves complete files into place.

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
    if constants.HF_HUB_OFFLINE:
        raise WeightsNotFoundError(_explain(repo_id, filenames, "HF_HUB_OFFLINE forbids the network"))
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
        return Path(hf_hub_download(repo_id, filename, etag_timeout=PROBE_SECONDS))
    except LocalEntryNotFoundError:  # the connection broke; it is an EntryNotFoundError, too
        raise
    except EntryNotFoundError:
        return None


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
        "and pass pretrained=PATH, with quick_gelu as for the tag; put the hub's cache of another machine at "
        f"{folder} (HF_HOME moves it); "
        "name a mirror in HF_ENDPOINT; or, where HF_HUB_OFFLINE is set and the network may be used, unset it."
    )
