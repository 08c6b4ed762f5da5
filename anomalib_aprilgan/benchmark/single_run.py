# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""One run: prepare a model, let it judge the test images, and put down all that was measured as one row."""

import gc
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule
from lightning import seed_everything
from lightning.pytorch.trainer.states import TrainerFn

from anomalib_aprilgan.anomaly_clip import AnomalyCLIP
from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.april_gan.adapters import StageAdapters
from anomalib_aprilgan.components.dataset_names import trained_on_same
from anomalib_aprilgan.components.embedded import AUTO, PRETRAINED
from anomalib_aprilgan.data.references import draw_references, list_normal_training_images

from .classes import PlanError
from .latency import BATCH_SIZES, measure_latency
from .machine import DISTRIBUTIONS, processor_name, timestamp, versions
from .metrics import COLUMNS, IMAGE_COLUMNS
from .peak_memory import peak_device_memory, peak_host_memory, reset_peaks
from .plan import FULL, Run
from .preconditions import check_shots, check_test_images, check_validation
from .verdicts import VerdictCollector, judge

ACCELERATORS = ("auto", "cpu", "gpu")
# Image metrics of the paper's protocol beside those of ours.
PAPER_COLUMNS = tuple(f"{column}, paper protocol" for column in IMAGE_COLUMNS)
LATENCY_COLUMNS = tuple(f"ms_{kind}_batch_{size}" for size in BATCH_SIZES for kind in ("median", "p95"))
ROW_COLUMNS = (
    *("run", "ended", "method", "dataset", "category", "shots", "seed", *COLUMNS, *PAPER_COLUMNS),
    *("test_images", "anomalous_images", "map_size", "seconds_to_prepare", *LATENCY_COLUMNS, "seconds"),
    *("peak_host_mib", "peak_device_mib", "device", "threads", "python", *DISTRIBUTIONS),
    *("adapters", "prompt_weights", "trained_on", "trained_on_test_data", "references", "references_sha256", "remarks"),
)


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        accelerator (str): ``auto``, ``cpu`` or ``gpu``, as Lightning has it.
        latency_seconds (float): How long to time each batch size; 0 leaves it out.
        latency_once (bool): Time a method in a setting on a dataset with its first run only, not with each.

    Raises:
        PlanError: If there is no such accelerator, or the time is negative.
    """

    accelerator: str = "auto"
    latency_seconds: float = 5.0
    latency_once: bool = False

    def __post_init__(self) -> None:
        """Tell mistakes before they fail every run."""
        if self.accelerator not in ACCELERATORS:
            msg = f"accelerator={self.accelerator!r} is unknown, expected one of {', '.join(ACCELERATORS)}."
            raise PlanError(msg)
        if self.accelerator == "gpu" and not torch.accelerator.is_available():
            msg = "accelerator='gpu', but PyTorch sees none. Take cpu, or auto; or install PyTorch for your GPU."
            raise PlanError(msg)
        if self.latency_seconds < 0:
            msg = f"latency_seconds={self.latency_seconds} must be at least 0, which leaves latencies out."
            raise PlanError(msg)


def execute(run: Run, settings: Settings) -> dict[str, Any]:
    """Do a run.

    Returns:
        The row, by :data:`ROW_COLUMNS`; what was not measured is empty.
    """
    started = time.perf_counter()
    gc.collect()  # a trainer and its model hold each other: what is left of earlier runs would count as this one's
    seed_everything(run.seed, verbose=False)
    datamodule, references = open_data(run)
    check_test_images(run, datamodule)
    model = run.build_model()
    check_shots(run, model)
    check_validation(run, model, datamodule)
    collector = VerdictCollector()
    reset_peaks()
    prepared_in, device = _test(run, model, datamodule, collector, settings)
    peaks = {"peak_host_mib": peak_host_memory() >> 20, "peak_device_mib": peak_device_memory() >> 20}
    found = collector.arrays()
    is_ours = isinstance(model, AprilGAN)
    streaming, paper = judge(found, has_paper_scores=is_ours and run.shots != 0)
    if is_ours and run.shots == 0:
        paper = streaming  # one score in both protocols
    measured: dict[str, Any] = {
        "run": run.key,
        "ended": timestamp(),
        "method": run.method_name,
        "dataset": run.dataset_name,
        "category": run.category,
        "shots": run.shots,
        "seed": run.seed,
        **streaming,
        **{name: paper[column] for name, column in zip(PAPER_COLUMNS, IMAGE_COLUMNS, strict=True) if paper},
        "test_images": len(found["labels"]),
        "anomalous_images": int(found["labels"].sum()),
        "map_size": "x".join(str(side) for side in collector.map_size),
        "seconds_to_prepare": prepared_in,
        **_latencies(model, datamodule, settings.latency_seconds, device),
        **peaks,
        **_circumstances(device),
        **_training_of(model, run, datamodule),
        "remarks": getattr(model, "remarks", ""),
        "references": json.dumps(_names(references, run)),
        "references_sha256": digest(references),
    }
    measured["seconds"] = time.perf_counter() - started
    return {column: measured.get(column, "") for column in ROW_COLUMNS}


def open_data(run: Run) -> tuple[AnomalibDataModule, list[Path]]:
    """The datamodule of a run, whose training images are the references, and these; none with zero shots."""
    datamodule = run.build_datamodule()
    datamodule.prepare_data()
    datamodule.setup(TrainerFn.FITTING)  # any trainer's stage: without one, a trainer would set it up anew
    if run.dataset.max_test_images is not None:
        _limit(datamodule.test_data, run.dataset.max_test_images)
    if run.shots == 0:
        return datamodule, []
    if run.dataset.max_train_images is not None:
        _limit(datamodule.train_data, run.dataset.max_train_images)
    candidates = list_normal_training_images(datamodule)
    if run.shots == FULL:
        return datamodule, candidates
    references = draw_references(candidates, int(run.shots), run.seed)
    paths = [Path(path) for path in datamodule.train_data.samples.image_path]
    datamodule.train_data.subsample([paths.index(path) for path in references], inplace=True)
    return datamodule, references


def _limit(images: AnomalibDataset, most: int) -> None:
    """Keep so many of each kind, normal and anomalous, in their order; the same for all methods and seeds."""
    shuffled = images.samples.reset_index(drop=True).sample(frac=1, random_state=0)
    images.subsample(sorted(shuffled.groupby("label_index").head(most).index), inplace=True)


def _test(
    run: Run,
    model: AnomalibModule,
    datamodule: AnomalibDataModule,
    collector: VerdictCollector,
    settings: Settings,
) -> tuple[float, torch.device]:
    """Prepare the model and test it; seconds from the loaded model to the first image that it could judge, device."""
    trainer: dict[str, Any] = {"limit_val_batches": 0, "accelerator": settings.accelerator, **run.method.trainer}
    with TemporaryDirectory() as folder:
        engine = Engine(
            callbacks=[collector],
            default_root_dir=folder,
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            **trainer,
        )
        start = time.perf_counter()
        if model.learning_type is LearningType.ONE_CLASS:
            engine.fit(model, datamodule=datamodule)
        engine.test(model, datamodule=datamodule, verbose=False)
    if collector.first_batch_at is None:
        msg = f"{run} has no test images. Look at the dataset's folders and splits."
        raise ValueError(msg)
    return collector.first_batch_at - start, engine.trainer.strategy.root_device


def _latencies(
    model: AnomalibModule, datamodule: AnomalibDataModule, seconds: float, device: torch.device
) -> dict[str, float]:
    if seconds == 0:
        return {}
    test_data = datamodule.test_data
    items = [test_data[index] for index in range(min(max(BATCH_SIZES), len(test_data)))]
    images = test_data.collate_fn(items).image
    model.to(device)  # the trainer has brought it back to the CPU
    timed = [value for size in BATCH_SIZES for value in measure_latency(model, images, size, seconds)]
    return dict(zip(LATENCY_COLUMNS, timed, strict=True))


def _circumstances(device: torch.device) -> dict[str, Any]:
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else f"{device.type.upper()}, {processor_name()}",
        "threads": torch.get_num_threads(),
        **versions(),
    }


def _training_of(model: AnomalibModule, run: Run, datamodule: AnomalibDataModule) -> dict[str, Any]:
    """Names of trained parts, data that they were trained on, and whether these are under test."""
    trained_on = getattr(model.model, "trained_on", None)
    under_test = f"{type(datamodule).__name__}/{run.category}"
    is_leak = trained_on_same(trained_on, under_test)
    return {**_trained_parts(model), "trained_on": trained_on or "", "trained_on_test_data": is_leak}


def _trained_parts(model: AnomalibModule) -> dict[str, str]:
    """AprilGAN's adapters and AnomalyCLIP's prompts: published ones by their data, files by their name."""
    if isinstance(model, AprilGAN):
        is_trained = isinstance(model.model.adapters, StageAdapters)
        chosen = model.model.trained_on if model.chooses_adapters else PRETRAINED
        return {"adapters": _short_name(model.hparams["adapters"], chosen) if is_trained else "none"}
    if isinstance(model, AnomalyCLIP):
        trained_on, given = model.model.trained_on, model.hparams["prompt_weights"]
        is_trained = given not in {None, AUTO} or trained_on is not None  # all that auto finds names its data
        chosen = trained_on if model.chooses_prompts else PRETRAINED
        return {"prompt_weights": _short_name(given, chosen) if is_trained else "random"}
    return {}


def _short_name(given: str, chosen: str | None) -> str:
    return str(chosen) if given == AUTO else Path(given).name


def _names(references: Sequence[Path], run: Run) -> list[str]:
    """Short names of references; of a whole training set the number must do."""
    return [f"all {len(references)}"] if run.shots == FULL else ["/".join(path.parts[-3:]) for path in references]


def digest(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of files, in the order of their names; empty without any."""
    if not files:
        return ""
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()
