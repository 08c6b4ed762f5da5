# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""How fast AprilGAN is, as multiples of CLIP's bare image tower, which no detector that runs it can beat."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch

from anomalib_aprilgan import AprilGANModel
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.text_encoder import TextEncoder, encode_states, text_features

from .contenders import EnginePredict, Settings, Work, anomaly_clip, build_model, rivals, verdicts
from .peak_memory import peak_device_memory, peak_host_memory, reset_peaks

PREDICTED_BATCHES = 4
CACHE_VARIABLE = "ANOMALIB_APRILGAN_CACHE"
REFERENCES = (1, 4, 16)
TEXT_BATCH = 64

Turn = dict[str, float]


def measure_speed(settings: Settings, repeats: int, parts: Iterable[str]) -> dict[str, object]:
    """Time all contenders in turns, each against the tower of its own turn.

    Args:
        settings: Sizes and device.
        repeats: Turns, after one to warm up.
        parts: Which: ``verdicts`` always, and any of ``predict``, ``rivals``, ``text`` and ``references``.

    Returns:
        Medians under the names of the table's rows, and ``spread``: least and largest of each ratio.
    """
    model = build_model(settings)
    memory = measure_memory(settings, model)
    works = verdicts(settings, model) | anomaly_clip(settings, model)
    if "rivals" in parts:
        works |= rivals(settings)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        timers = {name: _timer(work, settings.device) for name, work in works.items()}
        if "predict" in parts:
            timers["predict"] = EnginePredict(settings, model, Path(folder), PREDICTED_BATCHES).seconds
        turns = [{name: timer() for name, timer in timers.items()} for _ in range(repeats + 1)][1:]
    results: dict[str, object] = {**ratios(turns), **memory}
    if "text" in parts:
        results |= measure_text(model)
    if "references" in parts:
        results |= measure_references(settings, model)
    environment = {"threads": torch.get_num_threads(), "repeats": repeats, "torch": torch.__version__}
    return {**results, "settings": {**asdict(settings), **environment}}


def ratios(turns: list[Turn]) -> dict[str, object]:
    """Medians over turns of each contender's time as a multiple of the tower's of the same turn, and their range.

    Example:
        >>> ratios([{"tower": 2.0, "zero_shot": 3.0}, {"tower": 1.0, "zero_shot": 2.0}])
        {'tower_seconds': 1.5, 'ratio_zero_shot': 1.75, 'spread': {'zero_shot': [1.5, 2.0]}}
    """
    by_name = {name: [turn[name] / turn["tower"] for turn in turns] for name in turns[0] if name != "tower"}
    medians = {f"ratio_{name}": statistics.median(values) for name, values in by_name.items()}
    spread = {name: [min(values), max(values)] for name, values in by_name.items()}
    return {"tower_seconds": statistics.median(turn["tower"] for turn in turns), **medians, "spread": spread}


def measure_memory(settings: Settings, model: AprilGANModel) -> dict[str, object]:
    """Peak memory of a pass, weights included, as a multiple of the bare tower's."""
    works = verdicts(settings, model)
    peak = peak_device_memory if settings.device.startswith("cuda") else peak_host_memory
    peaks = {}
    with torch.inference_mode():
        for name, work in works.items():
            reset_peaks()
            work()
            peaks[name] = peak()
    return {
        "tower_peak_bytes": peaks["tower"],
        "ratio_peak_memory_zero_shot": peaks["zero_shot"] / peaks["tower"],
        "ratio_peak_memory": peaks["few_shot"] / peaks["tower"],
    }


def measure_text(model: AprilGANModel) -> dict[str, object]:
    """Text set-up of one class: as we do it, at full context as open_clip would, and from the cache on disk."""
    prompts, encoder = PromptEnsemble(), TextEncoder(model.source)
    tokens = encoder.tokenize([sentence for state in prompts.sentences("object") for sentence in state])
    cold = _seconds(lambda: encode_states(encoder, prompts, "object"))
    full = _seconds(lambda: [encoder.encode_tokens(batch) for batch in tokens.split(TEXT_BATCH)])
    with tempfile.TemporaryDirectory() as folder, _cache_in(folder):
        file = Path(folder) / "weights"
        file.touch()
        source = _FiledSource(**{**vars(model.source), "path": file})
        text_features(source, prompts, "object")
        warm = _seconds(lambda: text_features(source, prompts, "object"))
    return {"text_cold_seconds": cold, "speedup_text_cold": full / cold, "text_warm_seconds": warm}


class _FiledSource(CLIPSource):
    """Random weights that are said to lie in a file: only such text goes into the cache."""

    def _tensors(self, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
        return CLIPSource._tensors(replace(self, path=None), wanted)  # ruff: ignore[private-member-access] - its own


@contextmanager
def _cache_in(folder: str) -> Generator[None, None, None]:
    """Keep what is cached out of the user's cache."""
    earlier = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = folder
    try:
        yield
    finally:
        os.environ.pop(CACHE_VARIABLE)
        if earlier is not None:
            os.environ[CACHE_VARIABLE] = earlier


def measure_references(settings: Settings, model: AprilGANModel) -> dict[str, object]:
    """Seconds to set up memory banks of k references."""
    side = settings.image_size
    images = torch.randn(max(REFERENCES), 3, side, side)
    results: dict[str, object] = {}
    for shots in REFERENCES:
        start = time.perf_counter()
        model.setup(reference_images=images[:shots])
        results[f"references_{shots}_seconds"] = time.perf_counter() - start
    return results


def _timer(work: Work, device: str) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        work()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return timed


def _seconds(work: Work) -> float:
    return _timer(work, "cpu")()


def render_speed(results: dict[str, object]) -> str:
    """The results as lines of a name and a value."""
    lines, spreads = [], results["spread"]
    assert isinstance(spreads, dict)
    for name, value in results.items():
        if isinstance(value, float):
            low_high = spreads.get(name.removeprefix("ratio_"))
            spread = f"  ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else ""
            lines.append(f"{name:<30}{value:>10.3f}{spread}\n")
    return "".join(lines)


def write_json(results: dict[str, object], path: Path) -> None:
    """Write the results for machines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2), encoding="utf-8")
