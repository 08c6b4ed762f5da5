# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""How fast AprilGAN is, as multiples of CLIP's bare image tower, which no detector that runs it can beat.

``anomalib-aprilgan speed`` prints, and with ``--json`` writes, medians over turns, each part as soon as it is measured:

- ``tower_seconds``: a pass of the tower, in the turns of the first part.
- ``ratio_NAME``: a contender's time over the tower's beside it; ``spread`` has lower and upper quartile.
- ``arithmetic_NAME``: the same of multiplications; what a time would be if all arithmetic were equally fast.
- ``ratio_peak_memory_NAME``: most memory of a pass, weights included, in a process of its own; ``ratio_peak_memory``
  is that of ``few_shot``, with four references.
- ``speedup_text_cold``: encoding of all prompts at CLIP's full context over ours, with the text tower built before;
  ``text_warm_seconds``: text set-up from the disk cache.
- ``ratio_references_K``: set-up of K references over as many images in the tower.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from anomalib_aprilgan.april_gan import AprilGANModel

from .contenders import ADDED, VERDICTS, Builder, Settings, build_model, check_number, choose, tower
from .machine import describe_machine
from .peak_memory import peak_in_new_process
from .text_setup import measure_text
from .turns import Timer, ratio_of, take_turns, timed

REFERENCES = (1, 4, 16)
REFERENCE_TURNS = 3
# Contenders in CLIP's image tower, whose arithmetic is worth comparing.
IN_THE_TOWER = frozenset({*VERDICTS, *ADDED["shots"], *ADDED["anomaly_clip"]})

Results = dict[str, Any]


def measure_speed(settings: Settings, repeats: int, parts: Sequence[str]) -> Iterator[Results]:
    """Time all contenders in turns, each against a pass of the tower of its own.

    Args:
        settings: Sizes and device.
        repeats: Turns, after one to warm up.
        parts: What to measure besides zero- and 4-shot verdicts.

    Returns:
        First ``settings`` and ``machine``, then the results by the names above, part by part; the next part is
        measured when it is asked for.

    Raises:
        ValueError: If a value does not fit, before anything is measured.
    """
    check_number("repeats", repeats, "5 is the default")
    groups = choose(parts)
    model = build_model(settings)
    if "anomaly_clip" in parts and not model.source.is_vit:
        msg = (
            f"parts={list(parts)} has anomaly_clip, which needs a ViT, but backbone={settings.backbone!r} is a ResNet. "
            "Leave anomaly_clip out of --parts, or choose a ViT."
        )
        raise ValueError(msg)
    return _measure(settings, model, groups, repeats, parts)


def use_threads(threads: int | None) -> None:
    """Let PyTorch use so many threads from now on; None takes its default.

    Raises:
        ValueError: If there are none.
    """
    if threads is not None:
        check_number("threads", threads, "leave it out for PyTorch's default")
        torch.set_num_threads(threads)


def _measure(
    settings: Settings,
    model: AprilGANModel,
    groups: Sequence[Mapping[str, Builder]],
    repeats: int,
    parts: Sequence[str],
) -> Iterator[Results]:
    environment = {"threads": torch.get_num_threads(), "repeats": repeats, "torch": torch.__version__}
    known = {**asdict(settings), "dtype": str(model.clip.dtype), "parts": list(parts), **environment}
    yield {"settings": known, "machine": describe_machine(settings.device)}
    yardstick = tower(settings, model)
    for place, builders in enumerate(groups):
        results = measure_verdicts(settings, model, yardstick, builders, repeats)
        if place:
            results.pop("tower_seconds")  # one is enough
        yield results
    if "references" in parts:
        yield measure_references(settings, model, yardstick, repeats)
    if "text" in parts:
        yield measure_text(model.source, repeats)
    del model, yardstick  # other processes may need the memory
    if "memory" in parts:
        yield measure_memory(settings, {name: build for builders in groups for name, build in builders.items()})


@torch.inference_mode()  # whoever asks for the results stays out of it
def measure_verdicts(
    settings: Settings, model: AprilGANModel, yardstick: Timer, builders: Mapping[str, Builder], repeats: int
) -> Results:
    """Ratios of time, with their spread, and of arithmetic."""
    timers = {name: build(settings, model) for name, build in builders.items()}
    pairs = take_turns(yardstick, timers, repeats)
    ratios = {name: ratio_of(of_work) for name, of_work in pairs.items()}
    tower_seconds = [pair.yardstick for of_work in pairs.values() for pair in of_work]
    results: Results = {"tower_seconds": statistics.median(tower_seconds)}
    results |= {f"ratio_{name}": ratio.median for name, ratio in ratios.items()}
    results["spread"] = {name: [ratio.low, ratio.high] for name, ratio in ratios.items()}
    compared = IN_THE_TOWER & timers.keys()
    bare = count_operations(yardstick) if compared else 0
    counted = {name: count_operations(timer) / bare for name, timer in timers.items() if name in compared}
    return results | {f"arithmetic_{name}": ratio for name, ratio in counted.items()}


def count_operations(timer: Timer) -> int:
    """Floating point operations of the matrix products and convolutions of a pass."""
    # Torch's counter does not know the fused attention of CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        timer()
    return int(counter.get_total_flops())


def measure_memory(settings: Settings, builders: dict[str, Builder]) -> Results:
    """Peak memory of a pass, weights included and imports not, as a multiple of the bare tower's."""
    peaks = {
        name: peak_in_new_process(_build_timer, (build, settings), settings.device, torch.get_num_threads())
        for name, build in {"tower": tower, **builders}.items()
    }
    bare = peaks.pop("tower")
    ratios = {f"ratio_peak_memory_{name}": peak / bare for name, peak in peaks.items()}
    return {"tower_peak_bytes": bare, "ratio_peak_memory": ratios["ratio_peak_memory_few_shot"], **ratios}


def _build_timer(build: Builder, settings: Settings) -> Timer:
    return build(settings, build_model(settings))


@torch.inference_mode()
def measure_references(settings: Settings, model: AprilGANModel, yardstick: Timer, repeats: int) -> Results:
    """Time to set up memory banks of k references, over the tower's for as many images, with its spread."""
    side = settings.image_size
    images = torch.randn(max(REFERENCES), 3, side, side)
    results: Results = {"spread": {}}
    for shots in REFERENCES:
        setup = timed(partial(model.setup, reference_images=images[:shots]), settings.device)
        pairs = take_turns(yardstick, {"setup": setup}, min(repeats, REFERENCE_TURNS))["setup"]
        results[f"references_{shots}_seconds"] = statistics.median(pair.own for pair in pairs)
        an_image = settings.batch_size / shots
        ratio = ratio_of(pairs)
        results[f"ratio_references_{shots}"] = ratio.median * an_image
        results["spread"][f"references_{shots}"] = [ratio.low * an_image, ratio.high * an_image]
    return results
