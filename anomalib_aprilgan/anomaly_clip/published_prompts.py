# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Prompts by name: those that the paper's authors published, and the bundled ones."""

from collections.abc import Sequence
from pathlib import Path

from anomalib_aprilgan.components.clip_config import architecture_of
from anomalib_aprilgan.components.clip_source import known_tag
from anomalib_aprilgan.components.dataset_names import trained_on_same
from anomalib_aprilgan.components.embedded import FOLDER, PRETRAINED, PROMPTS_FILE
from anomalib_aprilgan.components.published_files import PublishedFile

from .learned_prompts import PUBLISHED, PromptFile, read_prompts

AUTHORS_URL = "https://github.com/zqhang/AnomalyCLIP/raw/45ed4dd/checkpoints"
# Address of a folder that holds the authors' folders under their names.
MIRROR_VARIABLE = "ANOMALIB_APRILGAN_PROMPTS_URL"
# The authors name a folder by the data that its prompts are tested on.
AUTHORS_FOLDERS = {"visa": "9_12_4_multiscale", "mvtec": "9_12_4_multiscale_visa"}
# By the data that they were trained on.
PUBLISHED_FILES = {
    data: PublishedFile(
        title=f"Prompts {data!r}",
        argument="prompt_weights=PATH (start_from=PATH to train)",
        folder=AUTHORS_URL,
        path=f"{AUTHORS_FOLDERS[data]}/epoch_15.pth",
        cached_as=f"prompts/{AUTHORS_FOLDERS[data]}_epoch_15.pth",
        blob=blob,
        mirror_variable=MIRROR_VARIABLE,
    )
    for blob, data in ((blob, str(trained_with.trained_on)) for blob, trained_with in PUBLISHED.items())
}
# What prompt_length, deep_prompt_length and deep_prompt_depth the published prompts have.
PUBLISHED_LENGTHS = (12, 4, 9)


def choose_for(*datasets: str) -> str:
    """The published prompts for data under test: those that have not seen them, as in the paper (section 4.1).

    Args:
        *datasets (str): Names of datasets or of their datamodules, such as ``Visa``, ``MVTecAD/bottle`` or ``Folder``.

    Returns:
        str: ``visa`` for MVTec AD, ``mvtec`` for everything else.
    """
    return "visa" if any(trained_on_same("mvtec", dataset) for dataset in datasets) else "mvtec"


def are_published_for(backbone: str, pretrained: str | None, lengths: Sequence[int]) -> bool:
    """Whether the published prompts belong to this CLIP, however it is spelt, and have these lengths."""
    clips = {(trained_with.backbone, trained_with.pretrained) for trained_with in PUBLISHED.values()}
    has_lengths = tuple(lengths) == PUBLISHED_LENGTHS
    return has_lengths and (architecture_of(backbone), known_tag(backbone, pretrained)) in clips


def find_prompts(prompt_weights: str | Path) -> PromptFile:
    """Read prompts by their name, or from a file.

    Args:
        prompt_weights (str | Path): ``mvtec``, ``visa``, ``embedded`` for those of the embedded small CLIP, or the path
            of a file.

    Returns:
        PromptFile: Prompts and metadata.

    Raises:
        PublishedFileNotFoundError: If published ones are neither here nor to be had.
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no prompts.
    """
    if prompt_weights == PRETRAINED:
        return read_prompts(FOLDER / PROMPTS_FILE)
    file = PUBLISHED_FILES.get(str(prompt_weights))
    return read_prompts(prompt_weights if file is None else file.fetch())
