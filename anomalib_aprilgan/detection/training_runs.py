# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What trainings of small parts have in common: what they have seen, and what is tested after them."""

from pathlib import Path

from lightning.pytorch import LightningDataModule, Trainer


def with_data_of(trained_on: str | None, datamodule: LightningDataModule | None) -> str | None:
    """Add the data of a training to those that a part saw in earlier ones: none of them must be tested on.

    Args:
        trained_on (str | None): Names with commas in between, as in metadata.
        datamodule (LightningDataModule | None): Of this training; names its data if it is ``AuxiliaryData``.

    Returns:
        str | None: All names, each once, or None if there are none.

    Example:
        >>> with_data_of("Visa/candle", None)
        'Visa/candle'
    """
    seen = [*(trained_on or "").split(", "), *getattr(datamodule, "training_data", [])]
    return ", ".join(dict.fromkeys(name for name in seen if name)) or None


def is_about_to_forget(trainer: Trainer | None, resumed_from: str | Path | None) -> bool:
    """Whether anomalib's ``Engine.train``, having resumed a training, loads the old checkpoint for the test."""
    if trainer is None or resumed_from is None:
        return False
    return bool(trainer.testing and trainer.ckpt_path == resumed_from)
