# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Where CLIP's weights come from: an open_clip tag, the Hugging Face hub, a file, or a seed."""

import hashlib
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # ruff: ignore[suspicious-pickle-import] - only the error that a refused pickle raises

import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from safetensors import safe_open

from .cache import cache_dir, write_cache_entry
from .embedded import BACKBONE, FOLDER, PRETRAINED, WEIGHTS_FILE
from .hub import CHECKPOINT_NAMES, WeightsNotFoundError, fetch_from_hub, find_in_hub_cache, sha256_of
from .pretrained_tags import HUB_REPOSITORIES

logger = logging.getLogger(__name__)

HUB_PREFIX = "hf-hub:"
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# Integers that OpenAI's TorchScript archives carry among the weights.
OPENAI_SETTINGS = frozenset({"input_resolution", "context_length", "vocab_size"})


@dataclass(frozen=True)
class HubFile:
    """A checkpoint in a repository of the Hugging Face hub, under one of several names."""

    repo_id: str
    filenames: tuple[str, ...] = CHECKPOINT_NAMES


def locate(backbone: str, pretrained: str) -> Path | HubFile:
    """Tell where weights are to be found, without network.

    Args:
        backbone (str): Name of an open_clip architecture, or path of a config.
        pretrained (str): Tag of open_clip's registry, ``hf-hub:org/name``, path of a file, or ``embedded``.

    Returns:
        Path | HubFile: A file on this machine, or one of the hub.

    Raises:
        WeightsNotFoundError: If the file does not exist.
        ValueError: If open_clip knows no such tag for the backbone.
    """
    if pretrained.startswith(HUB_PREFIX):
        return HubFile(pretrained.removeprefix(HUB_PREFIX))
    if (backbone, pretrained) == (BACKBONE, PRETRAINED):
        return FOLDER / WEIGHTS_FILE
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    if path.suffix in WEIGHT_SUFFIXES or len(path.parts) != 1:
        msg = f"pretrained={pretrained!r} is not a file. Give the path of a {', '.join(WEIGHT_SUFFIXES)} file."
        raise WeightsNotFoundError(msg)
    return _locate_tag(backbone, pretrained)


def _locate_tag(backbone: str, tag: str) -> HubFile:
    entry = get_pretrained_cfg(backbone, tag)
    if not entry:
        tags = [PRETRAINED] if backbone == BACKBONE else list_pretrained_tags_by_model(backbone)
        msg = (
            f"pretrained={tag!r} is not a tag of backbone {backbone!r}; open_clip knows {', '.join(tags) or 'none'}. "
            f"Give {'one of these, ' if tags else ''}'hf-hub:org/name', or the path of a weights file."
        )
        raise ValueError(msg)
    repository = entry.get("hf_hub") or HUB_REPOSITORIES.get(tag_key(backbone, tag), "")
    if not repository:
        msg = f"pretrained={tag!r} has no repository on the hub: download {entry.get('url')} and pass pretrained=PATH."
        raise ValueError(msg)
    organisation, name, filename = (*repository.split("/"), "")[:3]
    return HubFile(f"{organisation}/{name}", (filename,) if filename else CHECKPOINT_NAMES)


def tag_key(backbone: str, tag: str) -> str:
    """Key of the tables in ``pretrained_tags``: ``architecture:tag``."""
    return f"{backbone.removesuffix('-quickgelu')}:{tag.lower().replace('-', '_')}"


def find_local(location: Path | HubFile) -> Path | None:
    """The weights as a file on this machine, or None; never uses the network."""
    if isinstance(location, HubFile):
        return find_in_hub_cache(location.repo_id, location.filenames)
    return location if location.is_file() else None


def fetch(location: Path | HubFile) -> Path:
    """The weights as a file on this machine, downloaded if need be.

    Raises:
        WeightsNotFoundError: If they are neither here nor to be had.
    """
    if isinstance(location, HubFile):
        return fetch_from_hub(location.repo_id, location.filenames)
    return location


def load_tensors(path: Path, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
    """Read some tensors of a checkpoint, in float32 on the CPU.

    Args:
        path (Path): Safetensors, a state dict of ``torch.save`` or a TorchScript archive such as OpenAI's.
        wanted (Callable[[str], bool]): Whether the tensor of that name is to be read.

    Returns:
        dict[str, torch.Tensor]: Tensors by their open_clip names; integers keep their type.

    Raises:
        ValueError: If the file holds no weights.
    """
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # ruff: ignore[in-dict-keys]
        else:
            tensors = {name: tensor for name, tensor in _load_pickled(path).items() if wanted(name)}
    except (FileNotFoundError, PermissionError, MemoryError):
        raise
    except UnpicklingError as error:
        msg = (
            f"{path} holds more than tensors, which is not loaded for safety, or is damaged. "
            "Fetch it again, or save its state dict as safetensors."
        )
        raise ValueError(msg) from error
    # Whatever is wrong with a file, its reader stumbles over it: BadZipFile, struct.error, IndexError, OSError.
    except Exception as error:
        msg = f"{path} cannot be read as weights ({error}). It may be incomplete: fetch it again."
        raise ValueError(msg) from error
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def _load_pickled(path: Path) -> dict[str, torch.Tensor]:
    is_zip = zipfile.is_zipfile(path)
    if is_zip and _is_torchscript(path):
        archive = torch.jit.load(path, map_location="cpu").state_dict()
        return {name: value for name, value in archive.items() if name not in OPENAI_SETTINGS}
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    state = content.get("state_dict", content)
    if others := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        msg = f"{others[0]!r} is no tensor"
        raise TypeError(msg)
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def file_digest(path: Path) -> str:
    """SHA-256 of a file, remembered for the file's size and time of change.

    The hub names its large files by this digest, which then is not computed at all.

    Args:
        path (Path): An existing file.

    Returns:
        str: 64 hexadecimal digits.
    """
    resolved = path.resolve()
    if resolved.parent.name == "blobs" and len(resolved.name) == 64:
        return resolved.name
    stat = resolved.stat()
    identity = hashlib.sha256(f"{resolved}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    memo = cache_dir() / "digests" / identity
    try:
        known = memo.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        known = ""
    if len(known) == 64:
        return known
    digest = sha256_of(resolved)
    write_cache_entry(memo, digest.encode("ascii"))
    return digest
