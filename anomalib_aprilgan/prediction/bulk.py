# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Verdicts on a folder of photos, row by row, on any number of processes and machines."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data import ImageBatch
from anomalib.data.utils.image import is_image_file
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_aprilgan import AprilGAN
from anomalib_aprilgan.april_gan.export import metadata
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor

from .journal import Journal, Row
from .photos import load_photos, name_of

logger = logging.getLogger(__name__)


class ResultWriter(Callback):
    """Writes verdicts after every batch; it takes the place of a model's visualizer, after the post-processor.

    Args:
        journal (Journal): Where rows go.
        maps (Path | None): Folder for anomaly maps, as float32 arrays (S, S) of NumPy's; None writes none.
    """

    def __init__(self, journal: Journal, maps: Path | None) -> None:
        super().__init__()
        self.journal = journal
        self.maps = maps

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a row a photo, its map before it."""
        del pl_module, batch, batch_idx, dataloader_idx
        self.journal.append(trainer.global_rank, [self._row(outputs, index) for index in range(len(outputs))])

    def _row(self, outputs: Any, index: int) -> Row:  # ruff: ignore[any-type] - fields of a batch are any tensors
        path, _, error = outputs.explanation[index].partition("\n")
        if error:
            return Row(path, None, None, error=error)
        score, label = float(outputs.pred_score[index]), int(outputs.pred_label[index])
        if self.maps is None:
            return Row(path, score, label)
        file = self.maps / f"{path}.npy"  # the photo's own suffix stays: a.png and a.jpg are two photos
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, outputs.anomaly_map[index].float().cpu().numpy())
        return Row(path, score, label, file.relative_to(self.maps).as_posix())


def predict_folder(
    model: AprilGAN,
    folder: Path,
    output: Path,
    maps: Path | None,
    batch_size: int,
    num_workers: int,
    trainer_arguments: dict[str, Any],
) -> list[Row]:
    """Judge all photos of a folder that have no verdict in the output yet.

    Args:
        model (AprilGAN): The model; its pictures and metrics are left out.
        folder (Path): Folder of photos, searched with its subfolders.
        output (Path): Table to write, ``.csv`` or ``.parquet``.
        maps (Path | None): Folder for anomaly maps.
        batch_size (int): Photos a batch.
        num_workers (int): Processes that read photos.
        trainer_arguments (dict[str, Any]): Of Lightning's trainer: ``accelerator``, ``devices``, ``num_nodes`` ...

    Returns:
        list[Row]: All rows of the table, those of earlier runs, too; in other processes than the first none.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image, or the output was begun differently or is of another format.
    """
    if not folder.is_dir():
        msg = f"data={str(folder)!r} is no folder. Give a folder of photos."
        raise FileNotFoundError(msg)
    if not isinstance(model.pre_processor, CLIPPreProcessor):
        msg = f"Bulk prediction needs the model's own pre-processor, not {type(model.pre_processor).__name__}."
        raise ValueError(msg)  # ruff: ignore[type-check-without-type-error] - an argument of the model's
    paths = sorted(path for path in folder.rglob("*") if is_image_file(path))
    if not paths:
        msg = f"data={str(folder)!r} holds no images."
        raise ValueError(msg)
    journal = Journal(output)
    model.setup("predict")
    done = journal.open({**_description(model), "maps": maps is not None})
    open_paths = [path for path in paths if name_of(path, folder) not in done]
    logger.info("%d photos, %d of them have a verdict already.", len(paths), len(paths) - len(open_paths))
    writer: Any = ResultWriter(journal, maps)
    model.evaluator, model.visualizer = None, writer
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_model_summary=False, **trainer_arguments)
    if open_paths:
        loader = load_photos(open_paths, folder, model.model.image_size, batch_size, num_workers)
        trainer.predict(model, loader, return_predictions=False)  # memory stays flat
    trainer.strategy.barrier()
    return journal.finish() if trainer.is_global_zero else []


def _description(model: AprilGAN) -> dict[str, Any]:
    """What decides about the verdicts: the model, and the thresholds of its post-processor."""
    state = {} if model.post_processor is None else model.post_processor.state_dict()
    thresholds = {name: str(value.item()) for name, value in state.items()}
    return {**metadata(model.model, model.reference_paths), **thresholds}
