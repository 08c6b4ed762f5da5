# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Choice of the k normal references of few-shot detection."""

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from anomalib.data.utils import get_image_filenames
from anomalib.data.utils.label import LabelName

from .image_files import read_image, read_squashed

logger = logging.getLogger(__name__)


def list_source(source: str | Path | Sequence[str | Path]) -> list[Path]:
    """Image files of a few-shot source.

    Args:
        source (str | Path | Sequence[str | Path]): A folder (searched with its subfolders, sorted), an image, or a
            list of images (kept in order).

    Returns:
        list[Path]: At least one file.

    Raises:
        FileNotFoundError: If the folder or a file does not exist.
        ValueError: If there is no image.
    """
    if not isinstance(source, (str, Path)):
        files = [Path(path).expanduser() for path in source]
        if missing := [str(path) for path in files if not path.is_file()]:
            msg = f"few_shot_source names files that do not exist: {', '.join(missing)}."
            raise FileNotFoundError(msg)
        if repeated := sorted({str(path) for path in files if files.count(path) > 1}):
            msg = f"few_shot_source names the same file more than once: {', '.join(repeated)}. Name each once."
            raise ValueError(msg)
        if not files:
            msg = "few_shot_source is an empty list. Name at least k_shot normal images."
            raise ValueError(msg)
        return files
    path = Path(source).expanduser()
    if not path.exists():
        msg = f"few_shot_source={str(path)!r} does not exist. Give a folder of normal images, or a list of files."
        raise FileNotFoundError(msg)
    try:
        return [Path(name) for name in get_image_filenames(path)]
    except ValueError as error:
        msg = f"few_shot_source={str(path)!r} holds no images. Put at least k_shot normal images there."
        raise ValueError(msg) from error


def list_normal_training_images(datamodule: AnomalibDataModule) -> list[Path]:
    """Normal training images of a datamodule that is set up, in the order in which it lists them.

    Raises:
        ValueError: If the datamodule has no list of training images.
    """
    samples: Any = getattr(getattr(datamodule, "train_data", None), "samples", None)
    if samples is None:
        msg = f"{type(datamodule).__name__} lists no training images. Name references with few_shot_source."
        raise ValueError(msg)
    return [Path(path) for path in samples[samples.label_index == LabelName.NORMAL].image_path]


def list_candidates(
    source: str | Path | Sequence[str | Path] | None,
    datamodule: AnomalibDataModule | None,
    k_shot: int,
) -> list[Path]:
    """Files to draw references from: those of the source, else the datamodule's normal training images.

    Raises:
        ValueError: If there is neither.
    """
    if source is not None:
        return list_source(source)
    if datamodule is not None:
        return list_normal_training_images(datamodule)
    msg = f"k_shot={k_shot} needs normal images: set few_shot_source, or pass a datamodule that has some."
    raise ValueError(msg)


def draw_references(candidates: Sequence[Path], k_shot: int, seed: int) -> list[Path]:
    """Draw k different files.

    Args:
        candidates (Sequence[Path]): Files to draw from.
        k_shot (int): How many.
        seed (int): Same seed and candidates, same draw, on any machine.

    Returns:
        list[Path]: All candidates in their order if there are just k, else k of them in the order drawn.

    Raises:
        ValueError: If there are fewer than k.

    Example:
        >>> draw_references([Path("a.png"), Path("b.png"), Path("c.png")], k_shot=2, seed=0)
        [PosixPath('b.png'), PosixPath('c.png')]
    """
    if len(candidates) < k_shot:
        number = len(candidates)
        msg = (
            f"k_shot={k_shot}, but there are only {number} normal images to take references from. Lower k_shot, or add "
            "good images."
        )
        raise ValueError(msg)
    if len(candidates) == k_shot:
        return list(candidates)
    return random.Random(seed).sample(list(candidates), k_shot)  # ruff: ignore[suspicious-non-cryptographic-random-usage] - no secret


def load_references(
    paths: Sequence[Path],
    transform: Callable[[torch.Tensor], torch.Tensor] | None,
    side: int | None = None,
) -> torch.Tensor:
    """Read references and preprocess them like the images to be judged.

    Args:
        paths (Sequence[Path]): K files.
        transform (Callable[[torch.Tensor], torch.Tensor] | None): The model's transform; None leaves images as read.
        side (int | None): Side S of the square to squash images to before; None leaves that to the transform.

    Returns:
        torch.Tensor: (K, 3, S, S).

    Raises:
        UnreadableImageError: If a file cannot be read.
        ValueError: If the images end up with different sizes.
    """
    prepare = transform or torch.Tensor.contiguous
    read = read_image if side is None else partial(read_squashed, size=(side, side))
    # One at a time: photographs are large before they are resized.
    images = [prepare(read(path)) for path in paths]
    if len({image.shape for image in images}) > 1:
        shapes = {str(path): tuple(image.shape) for path, image in zip(paths, images, strict=True)}
        msg = f"References have different sizes: {shapes}. Use a pre_processor that resizes."
        raise ValueError(msg)
    return torch.stack(images)
