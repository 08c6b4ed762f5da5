# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The small CLIP that comes with this package, and what a backbone is run with where the user does not say.

It is for trying out, tests and teaching; ``embedded/MODEL_CARD.md`` has data, training and figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

BACKBONE = "aprilgan-tiny"
PRETRAINED = "embedded"
# Value of ``pretrained``, ``adapters`` and ``prompt_weights`` that leaves the choice to the backbone.
AUTO = "auto"

FOLDER = Path(__file__).resolve().parent.parent / "embedded"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ADAPTERS_FILE = "adapters.safetensors"
PROMPTS_FILE = "prompts.safetensors"
IMAGE_SIZE = 192
LAYERS = (3, 4, 5, 6)


@dataclass(frozen=True)
class RunSettings:
    """How a backbone is run.

    Attributes:
        pretrained (str | None): Weights; None means random ones.
        image_size (int): Side in pixels of the model's input.
        layers (Sequence[int]): Stages compared with the text.
    """

    pretrained: str | None
    image_size: int
    layers: Sequence[int]

    def unless_given(
        self, pretrained: str | None, image_size: int | None, layers: Sequence[int] | None
    ) -> "RunSettings":
        """These settings, but for those of the user's: weights that are not ``auto``, and what is not None."""
        return RunSettings(
            self.pretrained if pretrained == AUTO else pretrained,
            self.image_size if image_size is None else image_size,
            self.layers if layers is None else layers,
        )

    def for_tiles(self, tiles: int) -> "RunSettings":
        """These settings for images that are cut: each tile is as large as the whole image was."""
        return replace(self, image_size=self.image_size * tiles)


class PromptSettings(NamedTuple):
    """How AnomalyCLIP runs a backbone, in the order of its arguments.

    Attributes:
        image_size (int): Side in pixels of the model's input.
        layers (Sequence[int]): Stages compared with the prompts.
        dpam_layers (int): How many of the last blocks have value-value attention.
        prompt_length (int): Number of learned vectors before the words.
        deep_prompt_length (int): Number of learned vectors in between blocks of the text tower.
        deep_prompt_depth (int): Number of blocks of the text tower with learned vectors.
    """

    image_size: int
    layers: Sequence[int]
    dpam_layers: int
    prompt_length: int
    deep_prompt_length: int
    deep_prompt_depth: int

    @property
    def lengths(self) -> tuple[int, int, int]:
        """What settles the shapes of the prompts."""
        return self.prompt_length, self.deep_prompt_length, self.deep_prompt_depth

    def unless_given(self, *given: Any) -> "PromptSettings":  # ruff: ignore[any-type] - one of each field's type, or None
        """These settings, but for those of the user's that are not None, in the same order."""
        chosen: list[Any] = [own if said is None else said for own, said in zip(self, given, strict=True)]
        return PromptSettings(*chosen)


PAPER = RunSettings("openai", 518, (6, 12, 18, 24))
EMBEDDED = RunSettings(PRETRAINED, IMAGE_SIZE, LAYERS)
# Of AnomalyCLIP's paper, section 4.1; ours suit the embedded CLIP's 6 blocks.
PAPER_PROMPTS = PromptSettings(518, (24,), 19, 12, 4, 9)
EMBEDDED_PROMPTS = PromptSettings(IMAGE_SIZE, (5, 6), 3, 12, 4, 3)


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


def prompt_settings_of(backbone: str) -> PromptSettings:
    """Settings of AnomalyCLIP that belong to a backbone: the embedded one's own, the paper's for all others.

    Args:
        backbone (str): Name of an architecture, or path of a config.

    Returns:
        PromptSettings: What to use where nothing else is said.

    Example:
        >>> prompt_settings_of("aprilgan-tiny").image_size, prompt_settings_of("ViT-L-14-336").lengths
        (192, (12, 4, 9))
    """
    return EMBEDDED_PROMPTS if backbone == BACKBONE else PAPER_PROMPTS


def embedded_prompts(backbone: str, pretrained: str | None, lengths: Sequence[int]) -> Path | None:
    """The bundled prompts of AnomalyCLIP, if they belong to this model.

    Args:
        backbone (str): Name of the architecture.
        pretrained (str | None): Weights.
        lengths (Sequence[int]): ``prompt_length``, ``deep_prompt_length`` and ``deep_prompt_depth``.

    Returns:
        Path | None: Their file, or None.
    """
    fits = (backbone, pretrained, tuple(lengths)) == (BACKBONE, PRETRAINED, EMBEDDED_PROMPTS.lengths)
    return FOLDER / PROMPTS_FILE if fits else None
