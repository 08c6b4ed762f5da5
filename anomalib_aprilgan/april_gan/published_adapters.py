# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Adapters by name: those that the paper's authors published, from the web or a mirror, and the bundled ones."""

from collections.abc import Sequence
from pathlib import Path

from anomalib_aprilgan.components.clip_config import architecture_of
from anomalib_aprilgan.components.clip_source import known_tag
from anomalib_aprilgan.components.dataset_names import trained_on_same
from anomalib_aprilgan.components.embedded import ADAPTERS_FILE, FOLDER, PRETRAINED
from anomalib_aprilgan.components.published_files import PublishedFile

from .adapters import PUBLISHED, AdapterFile, AdapterMetadata, read_adapters

AUTHORS_URL = "https://github.com/ByChelsea/VAND-APRIL-GAN/raw/f13b8a6/exps/pretrained"
# Address of a folder that holds the authors' files under their names.
MIRROR_VARIABLE = "ANOMALIB_APRILGAN_ADAPTERS_URL"
# By the data that they were trained on: "mvtec" and "visa".
PUBLISHED_FILES = {
    data: PublishedFile(
        title=f"Adapters {data!r}",
        argument="adapters=PATH",
        folder=AUTHORS_URL,
        path=f"{data}_pretrained.pth",
        cached_as=f"adapters/{data}_pretrained.pth",
        blob=blob,
        mirror_variable=MIRROR_VARIABLE,
    )
    for blob, data in ((blob, str(metadata.trained_on)) for blob, metadata in PUBLISHED.items())
}


def choose_for(*datasets: str) -> str:
    """The published adapters for data under test: those that have not seen them, as the paper's protocol has it.

    Args:
        *datasets (str): Names of datasets or of their datamodules, such as ``Visa``, ``MVTecAD/bottle`` or ``Folder``.

    Returns:
        str: ``mvtec`` for VisA, ``visa`` for everything else.
    """
    return "mvtec" if any(trained_on_same("visa", dataset) for dataset in datasets) else "visa"


def published_for(
    backbone: str, pretrained: str | None, layers: Sequence[int], quick_gelu: bool | None = None
) -> AdapterMetadata | None:
    """What the published adapters that belong to a model say of themselves, or None if none belong to it.

    The same CLIP may be spelt in several ways. Of the activation ``quick_gelu`` has the say, not the backbone's name.

    Raises:
        ValueError: If they belong to the model but for the activation that is asked for.
    """
    wanted = (architecture_of(backbone), known_tag(backbone, pretrained), tuple(layers))
    offered = PUBLISHED.values()
    found = next((data for data in offered if (data.backbone, data.pretrained, data.layers) == wanted), None)
    if found is not None and quick_gelu not in {None, found.quick_gelu}:
        msg = f"quick_gelu={quick_gelu}, but the authors' adapters belong to {found.quick_gelu}. Leave it out."
        raise ValueError(msg)
    return found


def find_adapters(adapters: str | Path) -> AdapterFile:
    """Read adapters by their name, or from a file.

    Args:
        adapters (str | Path): ``mvtec``, ``visa``, ``embedded`` for those of the embedded small CLIP, or the path of a
            file.

    Returns:
        AdapterFile: Weights and metadata.

    Raises:
        PublishedFileNotFoundError: If published ones are neither here nor to be had.
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no adapters.
    """
    if adapters == PRETRAINED:
        return read_adapters(FOLDER / ADAPTERS_FILE)
    return read_adapters(PUBLISHED_FILES[str(adapters)].fetch() if adapters in PUBLISHED_FILES else adapters)
