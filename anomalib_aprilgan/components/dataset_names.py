# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Names of datasets, to tell whether a part was trained on the data that it is tested on."""

import re

# The names of datasets that anomalib and authors spell differently.
SAME_DATASET = {"mvtecad": "mvtec"}
# Datamodules of anomalib whose names say nothing about the images.
ANY_IMAGES = {"folder", "tabular", "datumaro"}


def dataset_name(dataset: str) -> str:
    """One spelling of a dataset's or datamodule's name.

    Example:
        >>> dataset_name("MVTecAD"), dataset_name("Visa")
        ('mvtec', 'visa')
    """
    return SAME_DATASET.get(dataset.lower(), dataset.lower())


def trained_on_same(trained_on: str | None, dataset: str) -> bool:
    """Whether a part was trained on the dataset under test, so that results with it say little.

    Args:
        trained_on (str | None): As in the part's metadata, one dataset or several; None is taken for another one.
        dataset (str): Name of a dataset or of its datamodule.

    Returns:
        bool: False for datamodules of any images, such as ``Folder``: nobody can know.

    Example:
        >>> trained_on_same("MVTecAD/bottle, Visa/candle", "MVTecAD"), trained_on_same("Folder/bolt", "Folder")
        (True, False)
    """
    name = dataset_name(dataset)
    words = re.findall(r"\w+", trained_on or "")
    return name not in ANY_IMAGES and name in {dataset_name(word) for word in words}
