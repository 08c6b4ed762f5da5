# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-aprilgan``: what there is to do around the model. Training and prediction are anomalib's."""

import sys
from collections.abc import Sequence
from typing import Any

from .doctor import Settings, examine, is_well, render


def doctor(
    backbone: str = Settings.backbone,
    pretrained: str | None = Settings.pretrained,
    adapters: str | None = Settings.adapters,
    image_size: int = Settings.image_size,
    layers: Sequence[int] = Settings.layers,
) -> int:
    """Tell whether anomalib knows AprilGAN, and whether it can predict without network; never uses the network.

    The options are the model's arguments of the same names. Lines marked [!!] must be put right, and say how.

    Args:
        backbone: open_clip architecture, or path of an open_clip model config (JSON).
        pretrained: open_clip tag, hf-hub:org/name, path of a weights file, or null for random weights.
        adapters: File of trained adapters, mvtec, visa, or auto for those that AprilGAN would choose.
        image_size: Side in pixels of the model's input.
        layers: Stages compared with the text.

    Returns:
        0 if all is well, 1 if a line is marked [!!].
    """
    findings = examine(Settings(backbone, pretrained, adapters, image_size, tuple(layers)))
    sys.stdout.write(render(findings))
    return 0 if is_well(findings) else 1


def benchmark(
    methods: dict[str, dict[str, Any]],
    datasets: dict[str, dict[str, Any]],
    output: str = "results/benchmark",
    shots: Sequence[int | str] = (),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    accelerator: str = "auto",
    latency_seconds: float = 5.0,
) -> int:
    """Compare models on datasets and write results.csv and a report; started again, it goes on where it was stopped.

    All options may stand in a YAML file, such as --config configs/paper_mvtec.yaml; what follows it overrules it.

    Args:
        methods: Models by name: class_path, init_args, shots, trainer, published_as.
        datasets: Images by name: class_path, init_args, categories, class_names, published_as.
        output: Folder of the results.
        shots: Numbers of references, 0 for zero-shot and "full" for all training images.
        seeds: Of the draw of references.
        accelerator: auto, cpu or gpu.
        latency_seconds: How long to time each batch size; 0 leaves it out.

    Returns:
        0 if all runs are done, 1 if some failed.
    """
    import logging
    from pathlib import Path

    from .benchmark.harness import run_benchmark
    from .benchmark.plan import Dataset, Method, read_plan
    from .benchmark.single_run import Settings as MeasuringSettings

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("anomalib", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)  # else they describe themselves in every run
    failures = run_benchmark(
        read_plan(Method, methods),
        read_plan(Dataset, datasets),
        Path(output),
        shots,
        seeds,
        MeasuringSettings(accelerator, latency_seconds),
    )
    sys.stdout.write("".join(f"Failed: {failure}\n" for failure in failures))
    sys.stdout.write(f"The report is {Path(output) / 'report.md'}.\n")
    return 1 if failures else 0


def main(args: list[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        args: Words of the command line; None takes those of the process.

    Returns:
        The exit status.
    """
    from jsonargparse import auto_cli

    commands = {"benchmark": benchmark, "doctor": doctor}
    status: int = auto_cli(commands, args=args, prog="anomalib-aprilgan", as_positional=False)
    return status


if __name__ == "__main__":
    sys.exit(main())
