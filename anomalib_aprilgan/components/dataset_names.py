# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Names of datasets, to tell whether a part was trained on the data that it is tested on."""

import re

# The names of datasets that anomalib and the authors spell differently.
SAME_DATASET = {"mvtecad": "mvtec"}
# Datamodules of anomalib whose names say nothing about the images.
ANY_IMAGES = {"folder", "tabular", "datumaro"}


def trained_on_same(trained_on: str | None, dataset: str) -> bool:
    """Whether a part was trained on the data under test, so that results with them say little.

    Categories are compared where both sides name one.

    Args:
        trained_on (str | None): As in the part's metadata, one dataset or several, each perhaps with its category:
            ``mvtec``, ``MVTecAD/bottle, MVTecAD/cable``. None is taken for other data.
        dataset (str): A dataset or its datamodule, perhaps with its category: ``MVTecAD``, ``MVTecAD/bottle``.

    Returns:
        bool: For datamodules of any images, such as ``Folder``, false unless the categories are the same: nobody can
        know.

    Example:
        >>> trained_on_same("MVTecAD/bottle", "MVTecAD/cable"), trained_on_same("mvtec", "MVTecAD/cable")
        (False, True)
    """
    name, _, category = dataset.lower().partition("/")
    for entry in (trained_on or "").lower().split(","):
        their_names, _, their_category = entry.strip().partition("/")
        is_same_dataset = _name_of(name) in {_name_of(word) for word in re.findall(r"\w+", their_names)}
        is_whole_dataset = name not in ANY_IMAGES and not (category and their_category)
        if is_same_dataset and (is_whole_dataset or (category and category == their_category)):
            return True
    return False


def _name_of(dataset: str) -> str:
    return SAME_DATASET.get(dataset.lower(), dataset.lower())
