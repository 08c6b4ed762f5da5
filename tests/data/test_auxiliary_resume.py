# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A resumed run reads the images that an uninterrupted one would read, whoever reads them and whenever it was saved."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from anomalib_aprilgan.data.auxiliary import AuxiliaryData

pytestmark = pytest.mark.filterwarnings("ignore")


class Reader(LightningModule):
    """Learns nothing, and notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[Any, ...]] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        del batch_idx
        self.seen.append((self.current_epoch, *batch.image_path, *batch.image.mean(dim=(1, 2, 3)).tolist()))
        return 0 * self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def bottles(tmp_path) -> Path:
    """Seven images of different grey levels, in MVTec AD's folders."""
    for folder, levels in (("train/good", [0]), ("test/good", [0]), ("test/bad", range(30, 210, 30))):
        for level in levels:
            path = tmp_path / "bottle" / folder / f"{level:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)
            if level:
                mask = tmp_path / "bottle" / "ground_truth" / "bad" / f"{level:03}_mask.png"
                mask.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), 255, np.uint8)).save(mask)
    return tmp_path


def train(root: Path, epochs: int, saving: dict[str, Any], workers: int, ckpt_path: str | None = None) -> Reader:
    data = AuxiliaryData(
        dataset="mvtec", root=root, categories=["bottle"], mosaic=0.5, image_size=8, train_batch_size=3,
        num_workers=workers,
    )  # fmt: skip
    reader = Reader()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(root / str(epochs), save_last=True, **saving)],
    )
    trainer.fit(reader, datamodule=data, ckpt_path=ckpt_path)
    return reader


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "saving",
    [{"save_on_train_epoch_end": True}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": 1}],
    ids=["epoch_end", "validation_end", "last_step"],
)
def test_resumed_run_reads_what_comes_next(bottles, saving, workers):
    whole = train(bottles, 4, saving, workers)
    first = train(bottles, 2, saving, workers)
    rest = train(bottles, 4, saving, workers, str(bottles / "2" / "last.ckpt"))
    assert [epoch for epoch, *_ in rest.seen] == [2, 2, 2, 3, 3, 3]
    assert first.seen + rest.seen == whole.seen
    assert len({batch[1:] for batch in whole.seen[::3]}) == 4  # no epoch begins like another
