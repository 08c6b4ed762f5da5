# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The small CLIP that comes with this package, and what a backbone is run with where the user does not say.

It is for trying out, tests and teaching; ``embedded/MODEL_CARD.md`` has data, training and figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BACKBONE = "aprilgan-tiny"
PRETRAINED = "embedded"
# Value of ``pretrained`` and ``adapters`` that leaves the choice to the backbone.
AUTO = "auto"

FOLDER = Path(__file__).resolve().parent.parent / "embedded"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ADAPTERS_FILE = "adapters.safetensors"
IMAGE_SIZE = 128
LAYERS = (3, 4, 5, 6)


@dataclass(frozen=True)
class RunSettings:
    """How a backbone is run.

    Attributes:
        pretrained (str | None): Weights; None means random ones.
        image_size (int): Side in pixels of the model's input.
        layers (tuple[int, ...]): Stages compared with the text.
    """

    pretrained: str | None
    image_size: int
    layers: tuple[int, ...]


PAPER = RunSettings("openai", 518, (6, 12, 18, 24))
EMBEDDED = RunSettings(PRETRAINED, IMAGE_SIZE, LAYERS)


def settings_of(backbone: str) -> RunSettings:
    """Settings that belong to a backbone: the embedded one's own, the paper's for all others.

    Args:
        backbone (str): Name of an architecture, or path of a config.

    Returns:
        RunSettings: What to use where nothing else is said.

    Example:
        >>> settings_of("aprilgan-tiny").pretrained, settings_of("ViT-L-14-336").image_size
        ('embedded', 518)
    """
    return EMBEDDED if backbone == BACKBONE else PAPER


def embedded_adapters(backbone: str, pretrained: str | None, layers: Sequence[int]) -> Path | None:
    """The bundled adapters, if they belong to this model.

    Args:
        backbone (str): Name of the architecture.
        pretrained (str | None): Weights.
        layers (Sequence[int]): Stages compared with the text.

    Returns:
        Path | None: Their file, or None.
    """
    fits = (backbone, pretrained, tuple(layers)) == (BACKBONE, PRETRAINED, LAYERS)
    return FOLDER / ADAPTERS_FILE if fits else None
