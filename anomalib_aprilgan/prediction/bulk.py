# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Verdicts on a folder of photos, row by row, on any number of processes and machines."""

import errno
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data import ImageBatch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import distributed

from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.components.hub import sha256_of
from anomalib_aprilgan.components.interrupts import Stop, ended_though_deaf, is_stop, stopped_by_signals
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor

from .detectors import Detector
from .journal import Journal, Row
from .photos import list_photos, load_photos, name_of

logger = logging.getLogger(__name__)

# Of photos that nobody took, because machines that share a folder did not see the same in it at the start.
UNJUDGED = "Not judged: another process did not see it. Start the same command again."
LONG_NAME = "Not judged: its map needs a longer name than the photo, and the folder of maps cannot take it"
NO_NUMBER = (
    "Not judged: its score is {}. Half precision may overflow (try precision=fp32), or weights hold such values."
)
# Seconds between two looks at whether other processes are done.
PATIENCE = 0.05
# Seconds until torch has heard by a signal, too, that a reader is gone; what it raises then would replace our words.
PATIENCE_WITH_TORCH = 1.0
# How long a process that is done waits for the others: torch's own half an hour is less than slow machines need.
LONGEST_WAIT = timedelta(days=30)
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows the latter kills, too


class ResultWriter(Callback):
    """Writes verdicts after every batch; it takes the place of a model's visualizer, after the post-processor.

    Args:
        journal (Journal): Where rows go.
        modified (Mapping[str, int]): When each photo was changed last.
        maps (Path | None): Folder for anomaly maps, as float32 arrays (S, S) of NumPy's; None writes none.
        stop (Stop): Whether to go on after a batch.
    """

    def __init__(self, journal: Journal, modified: Mapping[str, int], maps: Path | None, stop: Stop) -> None:
        super().__init__()
        self.journal = journal
        self.modified = modified
        self.maps = maps
        self.stop = stop
        self.others: distributed.ProcessGroup | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Call the other processes; one that has no photo comes no further than here."""
        del trainer, pl_module, stage
        self.others = _call_others()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be the first to hear of signals: Lightning's handler of SIGTERM would wait for the other processes."""
        del trainer, pl_module
        self.stop.listen()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: ImageBatch,
        batch: ImageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write a row a photo, its map before it; a signal that got lost in this batch stops the next one."""
        del pl_module, batch, batch_idx, dataloader_idx
        self.journal.append(trainer.global_rank, [self._row(outputs, index) for index in range(len(outputs))])
        self.stop.check()

    def _row(self, outputs: Any, index: int) -> Row:  # ruff: ignore[any-type] - fields of a batch are any tensors
        path, _, error = outputs.explanation[index].partition("\n")
        modified = self.modified[path]
        if error:
            return Row(path, None, None, error=error, modified=modified)
        score = float(outputs.pred_score[index])
        if not math.isfinite(score):
            return Row(path, None, None, error=NO_NUMBER.format(score), modified=modified)
        label = None if outputs.pred_label is None else int(outputs.pred_label[index])  # of a post-processor
        if self.maps is None:
            return Row(path, score, label, modified=modified)
        file = self.maps / f"{path}.npy"  # the photo's own suffix stays: a.png and a.jpg are two photos
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, outputs.anomaly_map[index].float().cpu().numpy())
        except OSError as problem:
            if problem.errno != errno.ENAMETOOLONG:
                raise
            return Row(path, None, None, error=f"{LONG_NAME} ({problem.strerror}).", modified=modified)
        return Row(path, score, label, file.relative_to(self.maps).as_posix(), modified=modified)


def predict_folder(
    build: Callable[[], Detector],
    folder: Path,
    output: Path,
    maps: Path | None,
    batch_size: int,
    num_workers: int,
    trainer_arguments: dict[str, Any],
) -> list[Row]:
    """Judge all photos of a folder that have no verdict in the output yet.

    Args:
        build (Callable[[], Detector]): Builds the model, when all else is known to be right; its pictures and metrics
            are left out.
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
        OSError: If output or maps cannot be written.
        ValueError: If it holds no image, or the output was begun differently or is of another format.
        ConnectionError: If another process that shares the work is gone.
        ChildProcessError: If a process that reads photos was killed.
        KeyboardInterrupt: If SIGINT or SIGTERM stopped it; rows that are written stay, and the next call goes on.
    """
    with stopped_by_signals() as stop:
        paths, journal = list_photos(folder), Journal(output)
        _make_folder("output", output.parent)
        if maps is not None:
            _make_folder("maps", maps)
        model = _prepare(build())
        # Photos are known by their names in the folder: another one may have the same.
        folders = {"data": str(folder.resolve()), "maps": maps and str(maps.resolve())}
        journal.open({**_description(model), **folders})
        names = [name_of(path, folder) for path in paths]
        modified = dict(zip(names, map(_modified, paths), strict=True))
        done = {row.path for row in journal.rows(modified) if not row.error}
        open_paths = [path for path, name in zip(paths, names, strict=True) if name not in done]
        logger.info("%d photos, %d of them have a verdict already.", len(paths), len(paths) - len(open_paths))
        writer: Any = ResultWriter(journal, modified, maps, stop)
        model.evaluator, model.visualizer = None, writer
        trainer = _build_trainer(trainer_arguments)
        with _no_process_left_behind(trainer), ended_though_deaf(stop, partial(_kill_started, trainer)):
            if open_paths:
                loader = load_photos(open_paths, folder, model.model.image_size, batch_size, num_workers)
                with _readers_told():
                    trainer.predict(model, loader, return_predictions=False)  # memory stays flat
            if writer.others is not None:
                _wait_for(writer.others, stop)
        if not trainer.is_global_zero:
            return []
        judged = {row.path for row in journal.rows(modified)}
        if unjudged := [name for name in modified if name not in judged]:
            rows = [Row(name, None, None, error=UNJUDGED, modified=modified[name]) for name in unjudged]
            journal.append(trainer.global_rank, rows)
        return journal.finish(modified)


def _build_trainer(arguments: dict[str, Any]) -> Trainer:
    return Trainer(
        # Lightning's other bar shows into a file or pipe nothing but the end.
        callbacks=[TQDMProgressBar()] if arguments.get("enable_progress_bar", True) else [],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **arguments,
    )


def _modified(photo: Path) -> int:
    """When a photo was changed last, in whole seconds: systems that share a folder cut finer times differently."""
    try:
        return int(photo.stat().st_mtime)
    except OSError:
        return 0  # whoever reads it says why


def _make_folder(option: str, folder: Path) -> None:
    """Make a folder that can be written to, before any work.

    Raises:
        OSError: If that is impossible; the option is named.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{option} cannot be written: there is no folder {str(folder)!r} and none can be made ({error.strerror})."
        raise OSError(msg) from error
    if not os.access(folder, os.W_OK):
        msg = f"{option} cannot be written: you may not write to the folder {str(folder)!r}. Name another one."
        raise PermissionError(msg)


def _prepare(model: Detector) -> Detector:
    if not isinstance(model.pre_processor, CLIPPreProcessor):
        theirs = type(model.pre_processor).__name__
        msg = f"Bulk prediction needs the model's own pre-processor, not {theirs}. Leave pre_processor out."
        raise ValueError(msg)  # ruff: ignore[type-check-without-type-error] - an argument of the model's
    model.setup("predict")
    model.allow_zero_length_dataloader_with_multiple_devices = True
    return model


@contextmanager
def _readers_told() -> Generator[None, None, None]:
    """Say what to do when a process that reads photos was killed, as the system does where memory runs out.

    Raises:
        ChildProcessError: If one was.
    """
    try:
        with _torch_heard():
            yield
    except (RuntimeError, ConnectionError, FileNotFoundError, EOFError) as error:  # by what it was doing
        if not _is_of_loader(error):
            raise
        msg = (
            f"A process that reads photos was killed ({error}), perhaps because memory ran out. Rows stay; start the "
            "command again. If it happens again, add --num_workers 0 --batch_size 1: where that stops, the photo after "
            "the last row is the one."
        )
        raise ChildProcessError(msg) from error


@contextmanager
def _torch_heard() -> Generator[None, None, None]:
    """Where a reader's connection broke, let torch's signal handler say why, too, before anybody else says it."""
    try:
        yield
    except (ConnectionError, FileNotFoundError, EOFError) as error:
        if _is_of_loader(error):
            time.sleep(PATIENCE_WITH_TORCH)
        raise


def _is_of_loader(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return getattr(error, "filename", None) is None  # sockets have no file names


@contextmanager
def _no_process_left_behind(trainer: Trainer) -> Generator[None, None, None]:
    """Kill the processes that the trainer has started, if this one does not get to the end.

    Raises:
        KeyboardInterrupt: If a signal stopped it, whatever Lightning makes of that.
    """
    try:
        yield
    except BaseException as error:
        _kill_started(trainer)
        if is_stop(error):
            raise KeyboardInterrupt from error
        raise


def _kill_started(trainer: Trainer) -> None:
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.kill(KILL)  # they may wait for this one and hear nothing else


def _call_others() -> distributed.ProcessGroup | None:
    """The processes that share the work, on a line that stays open; all must call. None where there are no others."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    everyone = distributed.new_group(backend="gloo", timeout=LONGEST_WAIT)
    return everyone if isinstance(everyone, distributed.ProcessGroup) else None


def _wait_for(others: distributed.ProcessGroup, stop: Stop) -> None:
    """Wait until all processes are here; no signal gets through to one that waits in ``barrier`` itself.

    Raises:
        ConnectionError: If one of them is gone.
    """
    arrival = distributed.barrier(others, async_op=True)
    while not arrival.is_completed():
        stop.check()
        time.sleep(PATIENCE)
    try:
        arrival.wait()  # raises what went wrong
    except RuntimeError as error:
        msg = f"A process that shares the photos is gone ({error}). Rows stay; start the command again everywhere."
        raise ConnectionError(msg) from error


def _description(model: Detector) -> dict[str, Any]:
    """What decides about the verdicts: the model, and the thresholds of its post-processor."""
    state = {} if model.post_processor is None else model.post_processor.state_dict()
    description = {name: json.loads(entry) for name, entry in model.export_metadata().items()}
    description["thresholds"] = {name: str(value.item()) for name, value in state.items()}
    if isinstance(model, AprilGAN) and model.few_shot_source is not None:
        # Their features differ in the last bits between processors that share the work; the files do not.
        description["references"] = [sha256_of(Path(path)) for path in model.reference_paths]
    return description
