# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-aprilgan``: what there is to do around the model. Training and prediction are anomalib's."""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser

from .components.embedded import AUTO, settings_of
from .components.interrupts import STOPPED, is_stop, stopped_by_signals
from .doctor import examine
from .findings import Settings, is_well, render


def doctor(
    backbone: str = Settings.backbone,
    pretrained: str | None = AUTO,
    adapters: str | None = Settings.adapters,
    image_size: int | None = None,
    layers: Sequence[int] | None = None,
    prompt_weights: str | None = Settings.prompt_weights,
) -> int:
    """Tell whether anomalib knows AprilGAN, and whether it can predict without network; never uses the network.

    The options are the model's arguments of the same names. Lines marked [!!] must be put right, and say how.

    Args:
        backbone: open_clip architecture, path of an open_clip model config (JSON), or aprilgan-tiny.
        pretrained: open_clip tag, hf-hub:org/name, path of a weights file, auto, or null for random weights.
        adapters: File of trained adapters, mvtec, visa, embedded, or auto for those that AprilGAN would choose.
        image_size: Side in pixels of the model's input.
        layers: Stages compared with the text.
        prompt_weights: File of AnomalyCLIP's prompts, mvtec, visa, embedded, or auto for those that it would choose.

    Returns:
        0 if all is well, 1 if a line is marked [!!].
    """
    chosen = settings_of(backbone).unless_given(pretrained, image_size, layers)
    settings = Settings(backbone, chosen.pretrained, adapters, chosen.image_size, tuple(chosen.layers), prompt_weights)
    findings = examine(settings)
    sys.stdout.write(render(findings))
    return 0 if is_well(findings) else 1


def benchmark(
    methods: dict[str, dict[str, Any]],
    datasets: dict[str, dict[str, Any]],
    output: str = "results/benchmark",
    shots: Sequence[int | Literal["full"]] = (),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    accelerator: str = "auto",
    latency_seconds: float = 5.0,
    latency_once: bool = False,
) -> int:
    """Compare models on datasets and write results.csv and a report; started again, it goes on where it was stopped.

    All options may stand in a YAML file, such as --config configs/own_benchmark.yaml, which says what methods and
    datasets may have; what follows it overrules it. Stop it with Ctrl-C at any time.

    Args:
        methods: Models by name, each with class_path, and perhaps init_args, shots, trainer, published_as.
        datasets: Images by name, each with class_path, and perhaps init_args, categories, class_names,
            max_train_images, max_test_images, published_as.
        output: Folder of the results.
        shots: Numbers of references, 0 for zero-shot and "full" for all training images, such as [0,1,4].
        seeds: Of the draw of references, such as [0,1,2].
        accelerator: auto, cpu or gpu.
        latency_seconds: How long to time each batch size; 0 leaves it out.
        latency_once: Time a method in a setting on a dataset with its first run only, not with each.

    Returns:
        0 if all runs are done, 1 if some failed, 2 if the plan is wrong, 130 if it was stopped.
    """
    import logging
    from pathlib import Path

    from .benchmark.classes import PlanError
    from .benchmark.harness import FAILURES, run_benchmark
    from .benchmark.journal import JournalError
    from .benchmark.plan import Dataset, Method, read_plan
    from .benchmark.report import failure_lines
    from .benchmark.single_run import Settings as MeasuringSettings

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger(run_benchmark.__module__).setLevel(logging.INFO)  # progress
    for name in ("anomalib", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # else they describe themselves in every run
    folder = Path(output)
    try:
        settings = MeasuringSettings(accelerator, latency_seconds, latency_once)
        plans = read_plan(Method, methods), read_plan(Dataset, datasets)
        failures = run_benchmark(*plans, folder, shots, seeds, settings)
    except (PlanError, JournalError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"Stopped. {folder / 'report.md'} tells what is done; the same command goes on from there.\n")
        return STOPPED
    sys.stdout.write("".join(f"{line}\n" for line in failure_lines(failures)))
    if failures:
        sys.stdout.write(f"{len(failures)} failed: {folder / FAILURES} says where; the same command tries again.\n")
    sys.stdout.write(f"The report is {folder / 'report.md'}, also as .html and .tex.\n")
    return 1 if failures else 0


def predict(
    data: str,
    model: dict[str, Any] | None = None,
    ckpt_path: str | None = None,
    output: str = "results/predictions.csv",
    maps: str | None = None,
    batch_size: int = 8,
    num_workers: int = 2,
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
) -> int:
    """Judge a folder of any number of photos; started again, it goes on where it was stopped.

    Verdicts are those of "anomalib predict". Photos that cannot be read are listed at the end, and tried again by the
    next start. A photo is known by its path in the folder; one whose modification time is another than when it was
    judged is judged anew.

    Args:
        data: Folder of photos, searched with its subfolders.
        model: AprilGAN, which is the default, or AnomalyCLIP, and arguments of it, such as --model.class_name bottle.
        ckpt_path: A checkpoint of AprilGAN or AnomalyCLIP, which knows its model and arguments.
        output: Table of a row a photo, .csv or .parquet: path, score, label, map, error, modified (seconds since 1970).
        maps: Folder for anomaly maps, as float32 arrays in NumPy's format; null writes none.
        batch_size: Photos a batch.
        num_workers: Processes that read photos.
        accelerator: auto, cpu or gpu.
        devices: How many processes of this machine share the photos.
        num_nodes: How many machines share them; all must see the output's folder.
        strategy: Of Lightning's trainer; ddp for several processes on CPUs.

    Returns:
        0 if all photos have a verdict, 1 if some cannot be read, 2 if it cannot go on, 130 if Ctrl-C or SIGTERM stopped
        it.
    """
    import logging
    from pathlib import Path

    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from .prediction.bulk import predict_folder
    from .prediction.detectors import build_detector

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    trainer = {"accelerator": accelerator, "devices": devices, "num_nodes": num_nodes, "strategy": strategy}
    folder = Path(maps) if maps else None
    try:
        build = partial(build_detector, model, ckpt_path)
        rows = predict_folder(build, Path(data), Path(output), folder, batch_size, num_workers, trainer)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. The same command goes on from there.\n")
        return STOPPED
    except (OSError, ValueError, ModuleNotFoundError, MisconfigurationException) as error:  # rows that are written stay
        sys.stderr.write(f"error: {error}\n")
        return 2
    except Exception:  # memory that runs out, or worse; status 1 would say that all but some is done
        logging.getLogger(__name__).exception("It cannot go on; rows stay. If memory ran out, add --batch_size 1.")
        return 2
    without = [row for row in rows if row.error]
    if rows:
        sys.stdout.write(f"{output}: {len(rows) - len(without)} verdicts.\n")
    sys.stdout.write("".join(f"No verdict: {row.path}: {row.error}\n" for row in without))
    return 1 if without else 0


def speed(
    backbone: str = "ViT-L-14-336",
    image_size: int | None = None,
    layers: Sequence[int] | None = None,
    precision: str = "fp32",
    batch_size: int = 1,
    photo_scale: int = 2,
    threads: int | None = None,
    device: str = "cpu",
    repeats: int = 5,
    parts: Sequence[Literal["predict", "shots", "anomaly_clip", "rivals", "memory", "text", "references"]] = (
        "predict",
        "shots",
        "anomaly_clip",
        "rivals",
        "memory",
        "text",
        "references",
    ),
    json: str | None = None,
) -> int:
    """Time AprilGAN against the bare image tower, in turns, with random weights; AnomalyCLIP, WinClip, Patchcore, too.

    Each ratio is the median of a time over the tower's right beside it, and has its quartiles; predict reads JPEG files
    in the same process. Memory is that of a pass in a process of its own, without the imports.
    Each part is printed, and the file written, as soon as it is measured: Ctrl-C loses only the part that runs.
    Tried without gain: torch.compile (0.99 times the time at ViT-B-16 and 240 px, after minutes); chunks of 256 to 2048
    reference patches instead of 1024 (within 10 %); references by fours, not one by one (as fast, 8 % more memory).
    One matrix for adapters and text is impossible: cosines need the adapted vectors' lengths.

    Args:
        backbone: open_clip architecture, or path of an open_clip model config (JSON).
        image_size: Side in pixels of the model's input; null for that of aprilgan-tiny, or the paper's.
        layers: Stages compared with text and references; null likewise.
        precision: Of the image tower, the bare one's, too.
        batch_size: Images a pass.
        photo_scale: Side of the JPEG files that predict reads, as a multiple of image_size.
        threads: Of PyTorch; null takes its default.
        device: cpu or cuda.
        repeats: Turns, after one to warm up; of text and references three at most.
        parts: What to measure besides zero- and 4-shot verdicts: predict; shots, that is 1 and 16; anomaly_clip;
            rivals of anomalib; memory; text and references, that is set-up.
        json: File for the results.

    Returns:
        0, 1 if a process was killed for its memory, 2 if a value is wrong, 130 if it was stopped.
    """
    from .benchmark.contenders import Settings as SpeedSettings
    from .benchmark.peak_memory import KilledError
    from .benchmark.speed import measure_speed, use_threads
    from .benchmark.speed_report import tell

    chosen = settings_of(backbone).unless_given(None, image_size, layers)  # of the weights only their shapes count

    def begin() -> Iterator[dict[str, Any]]:
        use_threads(threads)
        settings = SpeedSettings(
            backbone, chosen.image_size, tuple(chosen.layers), precision, batch_size, device, photo_scale
        )
        return measure_speed(settings, repeats, parts)

    try:
        with stopped_by_signals():
            return tell(begin, json)
    except KilledError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except (KeyboardInterrupt, SystemExit) as error:
        if not is_stop(error):
            raise
        sys.stderr.write("Stopped. What was measured before stays.\n")
        return STOPPED


COMMANDS: dict[str, Callable[..., int]] = {
    "benchmark": benchmark,
    "doctor": doctor,
    "predict": predict,
    "speed": speed,
}


class OptionParser(ArgumentParser):
    """A parser that asks whether another option was meant, where it knows none of that name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Tell a mistake and exit."""
        from .benchmark.classes import suggest

        unknown = re.search(r"does not accept option '([\w.-]+)'|Unrecognized arguments: --([\w.-]+)", message)
        known = [name for command in COMMANDS.values() for name in inspect.signature(command).parameters]
        hint = suggest(unknown[1] or unknown[2], known) if unknown else ""
        super().error(f"{message}.{hint}" if hint else message, ex)


def main(args: list[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        args: Words of the command line; None takes those of the process.

    Returns:
        The exit status.
    """
    parser = OptionParser(prog="anomalib-aprilgan", version=version("anomalib-aprilgan"))
    subcommands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        about = str(command.__doc__).partition("Args:")[0]
        subcommands.add_subcommand(name, _parser_of(command, about), help=about.partition("\n")[0])
    # Only what is given: a checkpoint knows the other arguments of its model.
    given = parser.parse_args(args, defaults=False).as_dict()
    arguments = given[given["subcommand"]]
    arguments.pop("config", None)
    return COMMANDS[given["subcommand"]](**arguments)


def _parser_of(command: Callable[..., int], about: str) -> OptionParser:
    """The options of a command are the arguments of its function; a model's are those of its class."""
    parser = OptionParser(description=about)
    parser.add_argument("--config", action="config", help="YAML file with options.")
    takes_model = command is predict
    skipped: set[str | int] = {"model"} if takes_model else set()
    parser.add_function_arguments(command, as_group=False, as_positional=False, skip=skipped)
    if takes_model:
        from .prediction.detectors import DETECTORS

        left_out = {"pre_processor", "post_processor", "evaluator", "visualizer"}
        parser.add_subclass_arguments(
            tuple(DETECTORS.values()), "model", as_group=False, skip=left_out, instantiate=False, required=False
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
