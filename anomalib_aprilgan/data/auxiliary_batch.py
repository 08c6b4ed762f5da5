# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Anomalib's image items and batches, with the name of the class that each image shows."""

from dataclasses import dataclass
from typing import ClassVar

from anomalib.data import ImageBatch, ImageItem, NumpyImageBatch, NumpyImageItem
from anomalib.data.dataclasses.generic import FieldDescriptor


# Keyword only, since required fields of a subclass cannot follow optional ones otherwise.
@dataclass(kw_only=True)
class _NamedItem:
    class_name: FieldDescriptor[str] = FieldDescriptor("validate_class_name")  # ruff: ignore[function-call-in-dataclass-default-argument] - a descriptor

    @staticmethod
    def validate_class_name(class_name: str) -> str:
        """Check the class name of an item.

        Raises:
            TypeError: If it is no string.
        """
        if not isinstance(class_name, str):
            msg = f"class_name of an item must be a string, got {class_name!r}."
            raise TypeError(msg)
        return class_name


@dataclass(kw_only=True)
class _NamedBatch:
    class_name: FieldDescriptor[list[str]] = FieldDescriptor("validate_class_name")  # ruff: ignore[function-call-in-dataclass-default-argument] - as above

    @staticmethod
    def validate_class_name(class_name: list[str]) -> list[str]:
        """Check the class names of a batch; a single string would be taken apart into letters.

        Raises:
            TypeError: If they are no list of strings.
        """
        if not isinstance(class_name, (list, tuple)) or not all(isinstance(name, str) for name in class_name):
            msg = f"class_name of a batch must be a list of strings, one an image, got {class_name!r}."
            raise TypeError(msg)
        return list(class_name)


@dataclass
class NumpyAuxiliaryItem(_NamedItem, NumpyImageItem):
    """What ``AuxiliaryItem.to_numpy`` returns."""


@dataclass
class NumpyAuxiliaryBatch(_NamedBatch, NumpyImageBatch):
    """What ``AuxiliaryBatch.to_numpy`` returns."""

    item_class: ClassVar[type[NumpyAuxiliaryItem]] = NumpyAuxiliaryItem


@dataclass
class AuxiliaryItem(_NamedItem, ImageItem):
    """An image with mask, label and the name of its class.

    Example:
        >>> import torch
        >>> AuxiliaryItem(image=torch.zeros(3, 2, 2), class_name="bottle").to_numpy().class_name
        'bottle'
    """

    numpy_class: ClassVar[type[NumpyAuxiliaryItem]] = NumpyAuxiliaryItem


@dataclass
class AuxiliaryBatch(_NamedBatch, ImageBatch):
    """N images with masks, labels and N class names.

    Example:
        >>> import torch
        >>> batch = AuxiliaryBatch(image=torch.zeros(2, 3, 4, 4), class_name=["bottle", "cable"])
        >>> [item.class_name for item in batch.items]
        ['bottle', 'cable']
    """

    item_class: ClassVar[type[AuxiliaryItem]] = AuxiliaryItem
    numpy_class: ClassVar[type[NumpyAuxiliaryBatch]] = NumpyAuxiliaryBatch
