# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Fine-tune prompts on data of one's own, and tell what it gained on images that were held out.

``python -m anomalib_aprilgan.anomaly_clip.fine_tuning --config configs/anomaly_clip_finetune.yaml``
"""

import copy
import logging
import re
import sys
from collections.abc import Mapping, Sequence

import torch
from anomalib.cli import AnomalibCLI
from anomalib.data.utils.label import LabelName
from anomalib.engine import Engine
from anomalib.metrics import AnomalibMetric, Evaluator
from lightning.pytorch.utilities import rank_zero_only

from anomalib_aprilgan.data import AuxiliaryData
from anomalib_aprilgan.detection.leak import leak_mark
from anomalib_aprilgan.detection.region_overlap import PublishedAUPRO as TorchPublishedAUPRO

from .prompt_training import AnomalyCLIPPrompts

logger = logging.getLogger(__name__)

# Columns of the table, and anomalib's names of the metrics. AUPRO is that of the published figures, up to some points
# from the one that anomalib reports.
METRICS = {
    "pixel AUROC": "pixel_AUROC",
    "pixel AUPRO": "pixel_PublishedAUPRO",
    "pixel AP": "pixel_AveragePrecision",
    "image AUROC": "image_AUROC",
    "image AP": "image_AveragePrecision",
}


class PublishedAUPRO(AnomalibMetric, TorchPublishedAUPRO):  # type: ignore[misc]
    """AUPRO as published, of anomalib batches; a test set that leaves it undefined must not cost the table."""

    def compute(self) -> torch.Tensor:
        """AUPRO; NaN, with a warning, where it is undefined."""
        try:
            found: torch.Tensor = super().compute()
        except ValueError as error:
            logger.warning("AUPRO as published is undefined: %s", error)
            return torch.tensor(float("nan"))
        return found


def fine_tune(args: Sequence[str]) -> str:
    """Train, and test the new prompts and those from before, with the options of ``anomalib train``.

    The held-out categories of the data are tested on; no image of theirs may be among those to train on.

    Args:
        args (Sequence[str]): Options, such as ``["--config", "configs/anomaly_clip_finetune.yaml"]``; the model must be
            ``AnomalyCLIPPrompts`` and the data ``AuxiliaryData`` with ``validation``.

    Returns:
        str: A table in Markdown with one row before and one after, in percent, and the path of the new prompts.

    Raises:
        ValueError: If model or data are others, there are no prompts to start from, or an image is in training and in
            test.
        RuntimeError: If the prompts are trained and then the test fails; it says where they lie.
    """
    cli = AnomalibCLI(["train", *args], run=False)
    model, data = cli.model, cli.datamodule
    if not isinstance(model, AnomalyCLIPPrompts):
        msg = (
            f"The model is {type(model).__name__}: fine-tuning is for AnomalyCLIPPrompts. Set model.class_path to it, "
            "as in configs/anomaly_clip_finetune.yaml."
        )
        raise ValueError(msg)  # ruff: ignore[type-check-without-type-error] - a value of a configuration file
    if not isinstance(data, AuxiliaryData) or not data.held_out_categories:
        msg = "The data must be AuxiliaryData with validation, the names of the sources to test on."
        raise ValueError(msg)
    if not model.model.prompts.is_loaded:
        msg = (
            f"start_from={model.hparams['start_from']!r} brings no prompts for the row before. Set start_from to a "
            "file, mvtec, visa or embedded, or leave it out; ckpt_path may be given besides."
        )
        raise ValueError(msg)
    data.prepare_data()
    data.setup()  # refuses shared images before any work
    engine: Engine = cli.engine
    _report_published_aupro(model)
    start = model.hparams["start_from"] or "random prompts"
    prompts, trained_on = copy.deepcopy(model.model.prompts.state_dict()), model.model.trained_on
    engine.fit(model, datamodule=data, ckpt_path=cli.config["train"]["ckpt_path"])
    try:
        after = engine.test(model, datamodule=data)[0]
        # Tested last: anomalib gives a run a folder of its own only if it begins with the training.
        model.model.prompts.load_state_dict(prompts)
        model.model.trained_on = trained_on
        before = engine.test(model, datamodule=data)[0]
    except Exception as error:  # of any kind: hours of training come before
        msg = (
            f"The prompts are trained and lie in {model.prompts_path}, but testing them failed: {error} "
            "Mend that, and use them with AnomalyCLIP(prompt_weights=PATH)."
        )
        raise RuntimeError(msg) from error
    table = render(data, {f"before ({start})": before, "after": after})
    processes = engine.trainer.world_size
    if len(data.test_data) % processes:  # Lightning fills the last batch up
        table += f"\n{processes} processes counted some test images twice: run with one for exact figures.\n"
    return f"{table}\nPrompts: {model.prompts_path}\n"


def _report_published_aupro(model: AnomalyCLIPPrompts) -> None:
    """Let tests report the AUPRO of the published figures, too, where they have metrics at all."""
    evaluator = model.evaluator
    if isinstance(evaluator, Evaluator):
        evaluator.test_metrics.append(PublishedAUPRO(["anomaly_map", "gt_mask"], "pixel_", strict=False))


def render(data: AuxiliaryData, results: Mapping[str, Mapping[str, float]]) -> str:
    """A table in Markdown.

    Args:
        data (AuxiliaryData): Set up.
        results (Mapping[str, Mapping[str, float]]): Metrics by anomalib's names, a row each; what is missing gets a
            dash, as do metrics of images where all test images are of one kind. Rows of prompts that have seen the test
            images say so.

    Returns:
        str: Title, head and rows, in percent.
    """
    labels = data.test_data.samples.label_index
    anomalous = int((labels == LabelName.ABNORMAL).sum())
    undefined = {name for name in METRICS.values() if name.startswith("image_") and labels.nunique() == 1}

    def cell(found: Mapping[str, float], name: str) -> str:
        return f"{100 * found[name]:.1f}" if name in found and name not in undefined else "-"

    def title_of(row: str, found: Mapping[str, float]) -> str:
        return f"{row}, trained on data under test" if leak_mark("prompts") in found else row

    rows = [[title_of(row, found), *(cell(found, name) for name in METRICS.values())] for row, found in results.items()]
    lines = [["prompts", *METRICS], ["---"] * (1 + len(METRICS)), *rows]
    title = (
        f"{len(data.train_data)} images to train on ({', '.join(data.training_data)}), {len(labels)} to test on "
        f"({', '.join(data.testing_data)}), {anomalous} of them anomalous; in percent."
    )
    return "\n".join([title, "", *(f"| {' | '.join(cells)} |" for cells in lines)]) + "\n"


def main(args: Sequence[str]) -> int:
    """Print the table of :func:`fine_tune`, once however many processes share the work, or what is wrong.

    What fails once the prompts are trained is raised, with its traceback and the path of the prompts.

    Returns:
        int: 0, or 2 if model, data or files are wrong.
    """
    try:
        table = fine_tune(args)
    except (OSError, ValueError, ModuleNotFoundError) as error:
        sys.stderr.write(f"error: {_sentence(error)}\n")
        return 2
    rank_zero_only(sys.stdout.write)(table)
    return 0


def _sentence(error: Exception) -> str:
    """What a class said that could not be built: jsonargparse wraps it into a list of types that its value is not."""
    listed = re.findall(r"^ *- (.+(?:\n(?! *- |Given value).+)*)", str(error), re.MULTILINE)
    said = [reason for reason in listed if not reason.startswith("Expected a <class ")]
    return " ".join(said[-1].split()) if said and "Does not validate against any" in str(error) else str(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
