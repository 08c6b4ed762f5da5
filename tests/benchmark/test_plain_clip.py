# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Baselines of AnomalyCLIP's paper, beside it in a benchmark."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_aprilgan import AprilGANModel
from anomalib_aprilgan.benchmark.harness import run_benchmark
from anomalib_aprilgan.benchmark.plain_clip import clip, clip_ac
from anomalib_aprilgan.benchmark.plan import Dataset, Method, list_runs
from anomalib_aprilgan.benchmark.single_run import Settings, execute

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def tiny(tiny_backbone) -> dict:
    return {"backbone": tiny_backbone, "pretrained": None, "image_size": 56}


def test_one_sentence_and_the_whole_ensemble(tiny):
    plain, ensemble = clip("bottle", **tiny), clip_ac("bottle", **tiny)
    sentences = plain.model.prompts.sentences("bottle")
    assert sentences == (["a photo of a normal bottle."], ["a photo of an anomalous bottle."])
    assert len(ensemble.model.prompts.sentences("bottle").anomalous) == 5 * 35
    assert [tuple(model.model.layers) for model in (plain, ensemble)] == [(4,), (4,)]


@pytest.mark.parametrize("baseline", [clip, clip_ac])
def test_a_baseline_is_not_reproached_with_its_purpose(baseline, tiny):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        baseline("bottle", **tiny)
    assert not [each for each in told if "No adapters given" in str(each.message)]


def test_verdicts_are_clips_own(tiny):
    module = clip_ac("bottle", **tiny).eval()
    module.setup("predict")
    model = AprilGANModel(**tiny, layers=[4])
    model.setup("bottle")
    images = torch.randn(2, 3, 56, 56)
    ours, theirs = module.model(images), model(images)
    assert torch.equal(ours.anomaly_map, theirs.anomaly_map)
    assert torch.equal(ours.pred_score, theirs.pred_score)
    assert not list(module.model.adapters.parameters())


@pytest.fixture
def bottles(tmp_path) -> dict[str, Dataset]:
    """Noise on grey, with a bright spot if broken."""
    generator = np.random.default_rng(0)
    for kind, count in {"train/good": 2, "test/good": 3, "test/broken": 2}.items():
        for number in range(count):
            pixels = generator.integers(90, 130, (60, 60, 3), dtype=np.uint8)
            mask = np.zeros((60, 60), dtype=np.uint8)
            if kind == "test/broken":
                mask[20:40, 15:35] = 255
                pixels[mask > 0] += 100
                save(tmp_path / "images" / "bottle" / "ground_truth" / "broken" / f"{number:03}_mask.png", mask)
            save(tmp_path / "images" / "bottle" / kind / f"{number:03}.png", pixels)
    arguments = {"root": str(tmp_path / "images"), "num_workers": 0}
    return {"bottles": Dataset("MVTecAD", arguments, ["bottle"])}


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_two_lines_of_a_plan_each_beside_anomalyclip(bottles, tiny, tmp_path):
    methods = {
        "AnomalyCLIP": Method("AnomalyCLIP", {**tiny, "layers": [4], "dpam_layers": 3}),
        "CLIP": Method("CLIP", tiny),
        "CLIP-AC": Method("CLIP-AC", tiny),
    }
    assert not run_benchmark(methods, bottles, tmp_path / "report", [0], [0], Settings("cpu", 0))
    lines = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()
    compared = [line.split(" | ")[1:3] for line in lines if line.startswith("| zero-shot")]
    assert compared == [[name, "streaming"] for name in ("AnomalyCLIP", "CLIP", "CLIP-AC")]


@pytest.mark.parametrize(("name", "more"), [("AnomalyCLIP", {"layers": [4], "dpam_layers": 3}), ("CLIP", {})])
def test_figures_of_no_references_are_not_told_as_few_shot(name, more, bottles, tiny):
    (run,) = list_runs({name: Method(name, {**tiny, **more})}, bottles, [1], [0])
    with pytest.raises(ValueError, match=rf"{name} looks at no reference, so 1 is not among its shots"):
        execute(run, Settings("cpu", 0))
