# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""``Engine.predict`` as something that can be timed."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_aprilgan.april_gan import AprilGAN, AprilGANModel
from anomalib_aprilgan.demo.rendering import render

from .turns import now


class EnginePredict(Callback):
    """``Engine.predict`` on JPEG files, from reading to post-processed verdicts, without pictures.

    Files are read as ``Engine.predict(data_path=...)`` reads them, by the process that judges them.

    Args:
        module (AprilGAN): The module, its pictures switched off.
        model (AprilGANModel): The torch model that it shall use, set up.
        batch_size (int): Photographs a batch.
        batches (int): Batches a run, after a first one that does not count: it starts the engine.
        photo_scale (int): Side of the photographs, as a multiple of the model's.
        device (str): ``cpu``, or a CUDA device.
    """

    def __init__(
        self, module: AprilGAN, model: AprilGANModel, batch_size: int, batches: int, photo_scale: int, device: str
    ) -> None:
        super().__init__()
        module.model, module.class_name = model, model.class_name
        self.module, self.batch_size, self.batches, self.device = module, batch_size, batches, device
        self.folder = TemporaryDirectory()
        _draw_photographs(Path(self.folder.name), (batches + 1) * batch_size, photo_scale * model.image_size)
        self.engine = Engine(
            callbacks=[self],
            logger=False,
            accelerator="gpu" if device.startswith("cuda") else device,
            devices=1,
            default_root_dir=self.folder.name,
            enable_progress_bar=False,
        )
        self.start = self.end = 0.0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock when the first batch is done, before the second is read."""
        del trainer, pl_module, outputs, batch, dataloader_idx
        if batch_idx == 0:
            self.start = now(self.device)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock after the last verdict."""
        del trainer, pl_module
        self.end = now(self.device)

    def seconds(self) -> float:
        """Seconds a batch."""
        dataset = PredictDataset(self.folder.name)
        loader = DataLoader(dataset, self.batch_size, collate_fn=dataset.collate_fn)
        self.engine.predict(self.module, dataloaders=[loader], return_predictions=False)
        self.module.to(self.device)  # the trainer has brought it to the CPU, but others use the model, too
        return (self.end - self.start) / self.batches


def _draw_photographs(folder: Path, number: int, side: int) -> None:
    texture = render("leather", size=side).image  # a grainy one, which is slow to decode
    for index in range(number):
        Image.fromarray(np.roll(texture, index, axis=0)).save(folder / f"{index:04}.jpg", quality=95)
