# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What stands between a user and a prediction without network: looked at part by part, never downloaded or changed.

A part that is broken is a finding, too: every check imports what it looks at, and whatever it raises is reported.
"""

import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec

from .components.embedded import BACKBONE
from .findings import Finding, Settings, is_well
from .trained_parts import chosen_adapters, find_adapters, find_prompts

PACKAGE = "anomalib-aprilgan"
ENTRY_POINT = "anomalib_aprilgan:AprilGAN"
HOOK = "_anomalib_aprilgan_hook"
INSTALL = f"Install the package into this environment: python -m pip install {PACKAGE}."
# From this release on, open_clip's image towers take (N, T, W), and anomalib's WinClip still hands them (T, N, W).
WINCLIP_LIMIT = (2, 26, 1)


def examine(settings: Settings) -> list[Finding]:
    """Look at everything; the verdict on prediction comes last."""
    model_parts = [
        *_survive("CLIP weights", lambda: find_weights(settings), "Correct --backbone or --pretrained."),
        *_survive("adapters", lambda: find_adapters(settings), "Correct --adapters, or --backbone and --layers."),
    ]
    return [
        *_survive("versions", find_versions),
        *_survive("registration", find_registration),
        *_survive("hub", find_hub),
        *model_parts,
        *_survive("AnomalyCLIP's prompts", lambda: find_prompts(settings), "Correct --prompt_weights or --backbone."),
        *_survive("cache", find_cache),
        *_survive("offline prediction", lambda: judge_prediction(settings, model_parts), "Correct these options."),
    ]


def _survive(subject: str, check: Callable[[], Iterator[Finding]], remedy: str = "") -> list[Finding]:
    """What a check finds, and what stopped it: a setting that is refused, with its remedy, or a broken part."""
    findings = []
    try:
        for finding in check():
            findings.append(finding)  # ruff: ignore[manual-list-copy] - what was found before an error counts
    except Exception as error:  # ruff: ignore[blind-except]
        if remedy and isinstance(error, (ValueError, OSError)):
            findings.append(Finding(ok=False, subject=subject, detail=str(error), remedy=remedy))
        else:
            repair = "Repair the installation: 'python -m pip check' tells which packages do not fit."
            findings.append(
                Finding(ok=False, subject=subject, detail=f"{type(error).__name__}: {error}", remedy=repair)
            )
    return findings


def find_versions() -> Iterator[Finding]:
    """Versions of Python and of the packages that matter."""
    yield Finding(ok=True, subject="Python", detail=f"{platform.python_version()}, {sys.executable}")
    names = (PACKAGE, "anomalib", "torch", "torchvision", "lightning", "open_clip_torch", "huggingface_hub")
    for name in names:
        if found := version_of(name):
            yield Finding(ok=True, subject=name, detail=found)
        else:
            remedy = f"Install it into this environment: python -m pip install {name}."
            yield Finding(ok=False, subject=name, detail="not installed", remedy=remedy)
    yield from judge_winclip(version_of("open_clip_torch"))


def version_of(distribution: str) -> str:
    """Version of an installed distribution; empty if it is missing, as in a checkout that is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def judge_winclip(open_clip_version: str) -> Iterator[Finding]:
    """Warn where another model of anomalib is wrong because of open_clip."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", open_clip_version)[:3])
    if numbers >= WINCLIP_LIMIT:
        detail = f"silently wrong window embeddings with open_clip_torch {open_clip_version}; AprilGAN is not affected"
        remedy = "If you use WinClip: python -m pip install 'open_clip_torch<2.26.1'."
        yield Finding(ok=None, subject="anomalib's WinClip", detail=detail, remedy=remedy)


def find_registration() -> Iterator[Finding]:
    """Whether and how anomalib comes to know the model."""
    from . import host

    hook = sys.modules[host.install.__module__]  # a module of its own when installed, part of the package in a checkout
    plugins = list(entry_points(group=hook.GROUP))
    is_listed = any(plugin.value == ENTRY_POINT for plugin in plugins)
    listed = f"{ENTRY_POINT} {'is' if is_listed else 'is not'} in the group {hook.GROUP}"
    yield Finding(ok=is_listed, subject="entry point", detail=listed, remedy="" if is_listed else INSTALL)
    package = ENTRY_POINT.partition(":")[0]
    for plugin in plugins:
        if plugin.value.partition(":")[0].partition(".")[0] != package:
            yield Finding(ok=None, subject="other plugin", detail=f"{plugin.name} = {plugin.value}")
    yield _find_hook(hook.GROUP, hook.SWITCH)
    yield from _find_model()


def _find_hook(group: str, switch: str) -> Finding:
    spec = find_spec(HOOK)
    place = spec.origin if spec else None
    if any(getattr(finder, "plugin_group", None) == group for finder in sys.meta_path):
        return Finding(ok=True, subject="start-up hook", detail=f"active: {place or 'a copy of another package'}")
    if place is None:
        return Finding(ok=False, subject="start-up hook", detail="not installed", remedy=INSTALL)
    if value := os.environ.get(switch):
        return Finding(
            ok=False, subject="start-up hook", detail=f"inactive: {switch}={value}", remedy=f"Unset {switch}."
        )
    remedy = "Install into the interpreter's own site-packages, or import anomalib_aprilgan before anomalib is used."
    detail = f"inactive: Python has not run the .pth file beside {place}"
    return Finding(ok=False, subject="start-up hook", detail=detail, remedy=remedy)


def _find_model() -> Iterator[Finding]:
    from anomalib import models

    from anomalib_aprilgan import AprilGAN

    module, _, name = ENTRY_POINT.partition(":")
    facts = {
        f"anomalib.models.{name}": getattr(models, name, None) is AprilGAN,
        "ALLOWED_MODULES": module in getattr(models, "ALLOWED_MODULES", {module}),
        "get_model": name in models.list_models(case="pascal"),
    }
    remedy = "Another model may hold the name: see the warnings of 'python -c \"import anomalib.models\"'."
    for subject, is_known in facts.items():
        detail = "knows the model" if is_known else "does not know the model"
        yield Finding(ok=is_known, subject=subject, detail=detail, remedy="" if is_known else remedy)


def find_hub() -> Iterator[Finding]:
    """Where the hub's client would look and keep files."""
    from huggingface_hub import constants

    from .components.offline import HUB_OFFLINE_VARIABLE, forbidden_by

    yield Finding(ok=None, subject="hub cache", detail=constants.HF_HUB_CACHE)
    variable = forbidden_by()
    network = f"{variable} forbids the network" if variable else f"{HUB_OFFLINE_VARIABLE} is not set"
    detail = f"{constants.ENDPOINT} (HF_ENDPOINT names another); {network}"
    yield Finding(ok=None, subject="hub endpoint", detail=detail)


def find_weights(settings: Settings) -> Iterator[Finding]:
    """Whether CLIP's weights are on this machine, where, and which; those of the default model besides."""
    yield from _find_weights(settings.backbone, settings.pretrained)
    default = Settings()
    if (settings.backbone, settings.pretrained) != (default.backbone, default.pretrained):
        for finding in _find_weights(default.backbone, default.pretrained):
            yield Finding(ok=None, subject=f"default {finding.subject}", detail=finding.detail)


def _find_weights(backbone: str, pretrained: str | None) -> Iterator[Finding]:
    from .components.clip_config import load_config
    from .components.weights import HubFile, file_digest, find_local, locate

    load_config(backbone)  # refuses an unknown backbone
    if pretrained is None:
        yield Finding(ok=None, subject="CLIP weights", detail="random: good for tests only")
        return
    name = f"{backbone}, {pretrained}"
    location = locate(backbone.replace("/", "-"), pretrained)
    path = find_local(location)
    if path is not None:
        yield Finding(ok=True, subject="CLIP weights", detail=f"{name}: {path}, SHA-256 {file_digest(path)}")
    elif isinstance(location, HubFile):
        remedy = (
            f"With network: predict once, or hf download {location.repo_id} {location.filenames[0]}. Without: copy the "
            "hub's cache of a machine that has it, or copy the file and give --model.pretrained PATH. To try out "
            f"without any download: --model.backbone {BACKBONE}, the small CLIP of this package."
        )
        detail = f"{name}: {location.repo_id} is not in the hub's cache"
        yield Finding(ok=False, subject="CLIP weights", detail=detail, remedy=remedy)
    else:
        yield Finding(ok=False, subject="CLIP weights", detail=f"{name}: {location} is gone", remedy="Put it back.")


def find_cache() -> Iterator[Finding]:
    """The package's own cache, which saves the text tower's work."""
    from .components.cache import CACHE_VARIABLE, cache_dir

    folder = cache_dir()
    entries = len(list((folder / "text").glob("*.safetensors")))
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        yield Finding(ok=True, subject="text cache", detail=f"{folder}, writable, entries: {entries}")
    else:
        detail = f"{folder}, not writable, entries: {entries}; text is encoded anew in every process"
        yield Finding(ok=None, subject="text cache", detail=detail, remedy=f"Name another folder in {CACHE_VARIABLE}.")


def judge_prediction(settings: Settings, parts: Sequence[Finding]) -> Iterator[Finding]:
    """The verdict: where all parts are there, the model is built from them."""
    from anomalib_aprilgan import AprilGANModel

    if not is_well(parts):  # building would ask the network for them
        remedy = "Follow the remedies of CLIP weights and adapters."
        yield Finding(ok=False, subject="offline prediction", detail="impossible with these settings", remedy=remedy)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is among the findings
        arguments = asdict(replace(settings, adapters=chosen_adapters(settings)))
        arguments.pop("prompt_weights")  # AnomalyCLIP's
        AprilGANModel(**arguments)
    yield Finding(ok=True, subject="offline prediction", detail="possible with these settings: the model was built")
