# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Arguments as plain data, so that checkpoints load with ``weights_only=True``."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anomalib_aprilgan.components.clip_tower import as_layers
from anomalib_aprilgan.components.prompts import PromptEnsemble, as_prompts


def plain_paths(source: str | Path | Sequence[str | Path] | None) -> Any:  # ruff: ignore[any-type] - str, list[str] or None
    """A path or a list of paths as strings."""
    if source is None or isinstance(source, (str, Path)):
        return None if source is None else str(source)
    return [str(path) for path in source]


def plain_layers(layers: Sequence[int], name: str) -> list[int]:
    """A sequence of layers as a list.

    Raises:
        ValueError: If it is something else, such as a single number.
    """
    return list(as_layers(layers, name))


def plain_prompts(prompts: PromptEnsemble | dict[str, Any] | None) -> Any:  # ruff: ignore[any-type] - dict or None
    """A prompt ensemble as a dictionary of lists."""
    if prompts is None:
        return None
    return {name: list(entries) for name, entries in asdict(as_prompts(prompts)).items()}
