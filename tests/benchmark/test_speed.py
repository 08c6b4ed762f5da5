# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-aprilgan speed`` measures what it says."""

import json
import os
import time

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from anomalib_aprilgan import AprilGANModel
from anomalib_aprilgan.benchmark import contenders, speed, text_setup
from anomalib_aprilgan.benchmark.machine import processor_name
from anomalib_aprilgan.benchmark.peak_memory import KilledError, peak_in_new_process
from anomalib_aprilgan.benchmark.turns import Pair, Ratio, ratio_of, take_turns
from anomalib_aprilgan.cli import main
from anomalib_aprilgan.components.embedded import IMAGE_SIZE, LAYERS
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.text_encoder import TextEncoder

pytestmark = pytest.mark.filterwarnings("ignore")

REFERENCE_KEYS = [("references", "_seconds"), ("ratio_references", "")]
VERDICTS = ["zero_shot", "few_shot", "few_shot_1", "few_shot_16", "anomaly_clip"]
EXPECTED = {
    "tower_seconds",
    *(f"ratio_{name}" for name in [*VERDICTS, "predict"]),
    *(f"arithmetic_{name}" for name in VERDICTS),
    "speedup_text_cold",
    "text_cold_seconds",
    "text_warm_seconds",
    *(f"{name}_{shots}{suffix}" for name, suffix in REFERENCE_KEYS for shots in (1, 4, 16)),
}


def words(tiny_backbone, path, *more):
    options = ["--image_size=28", "--layers=[1,2,3,4]", "--repeats=1", "--threads=1", f"--json={path}"]
    return ["speed", f"--backbone={tiny_backbone}", *options, *more]


class TestTurns:
    def test_ratio_is_the_median_of_pairs(self):
        pairs = [Pair(ratio * seconds, seconds) for ratio, seconds in ((1.0, 1.0), (1.5, 8.0), (5.0, 2.0))]
        assert ratio_of(pairs) == Ratio(1.5, 1.25, 3.25)

    def test_each_work_stands_beside_its_own_yardstick_first_and_last_by_turns(self):
        calls = []

        def timer(name):
            return lambda: calls.append(name) or float(len(calls))

        pairs = take_turns(timer("tower"), {"a": timer("a"), "b": timer("b")}, repeats=2)
        assert calls == ["a", "tower", "b", "tower", "tower", "a", "tower", "b", "a", "tower", "b", "tower"]
        assert pairs == {"a": [Pair(6.0, 5.0), Pair(9.0, 10.0)], "b": [Pair(8.0, 7.0), Pair(11.0, 12.0)]}


def test_command_prints_and_writes_all(tiny_backbone, tmp_path, capsys, cache_folder):
    path = tmp_path / "new" / "speed.json"
    parts = "--parts=[predict,shots,anomaly_clip,text,references]"
    assert main(words(tiny_backbone, path, parts)) == 0
    results = json.loads(path.read_text(encoding="utf-8"))
    assert results.keys() >= EXPECTED
    assert all(results[name] > 0 for name in EXPECTED)
    setups = {"speedup_text_cold", *(f"references_{shots}" for shots in (1, 4, 16))}
    assert results["spread"].keys() == {*VERDICTS, "predict", *setups}
    for name, (low, high) in results["spread"].items():
        assert low <= results[name if name in results else f"ratio_{name}"] <= high, name
    assert (results["settings"]["threads"], results["settings"]["dtype"]) == (1, "torch.float32")
    assert results["machine"]["processor"] == processor_name()
    assert results["settings"]["torch"].startswith(results["machine"]["torch"])  # without the build
    printed = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in printed) == sorted(EXPECTED)  # each once
    assert not list(cache_folder.rglob("*.safetensors"))  # the text of random weights is nobody's


def test_rivals_and_memory_have_their_keys(tiny_backbone, tmp_path, monkeypatch):
    rivals = ["winclip_zero_shot", "winclip_few_shot", "patchcore", "patchcore_all_images"]
    assert list(contenders.ADDED["rivals"]) == rivals
    monkeypatch.setitem(contenders.ADDED, "rivals", dict.fromkeys(rivals, contenders.zero_shot))  # theirs take seconds
    monkeypatch.setattr(speed, "peak_in_new_process", lambda *_: 100)
    path = tmp_path / "speed.json"
    assert main(words(tiny_backbone, path, "--parts=[rivals,memory]")) == 0
    results = json.loads(path.read_text(encoding="utf-8"))
    measured = ["zero_shot", "few_shot", *rivals]
    assert results.keys() >= {f"ratio_{name}" for name in measured}
    assert {results[f"ratio_peak_memory_{name}"] for name in measured} == {results["ratio_peak_memory"]} == {1.0}


def test_size_and_stages_are_the_backbones_own(tmp_path):
    path = tmp_path / "speed.json"
    assert main(["speed", "--backbone=aprilgan-tiny", "--parts=[]", "--repeats=1", f"--json={path}"]) == 0
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    assert (settings["image_size"], settings["layers"]) == (IMAGE_SIZE, list(LAYERS))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--layers=[9]", "layers=[9] must be ascending, without duplicates and between 1 and 4"),
        ("--image_size=60", "image_size=60 must be a positive multiple of 14 for this backbone, such as 56."),
        ("--precision=int8", "precision='int8' is unknown, expected one of fp32, bf16, fp16 or auto."),
        ("--repeats=0", "repeats=0 must be at least 1; 5 is the default."),
        ("--batch_size=-2", "batch_size=-2 must be at least 1; 1 is the default."),
        ("--photo_scale=0", "photo_scale=0 must be at least 1; 2 is the default."),
        ("--threads=0", "threads=0 must be at least 1; leave it out for PyTorch's default."),
        ("--device=cuda:1", "device='cuda:1' is unknown, expected one of cpu, cuda. Of several GPUs, CUDA_VIS"),
        ("--device=cuda", "device='cuda', but PyTorch sees no CUDA GPU. Take cpu, or install PyTorch for your GPU."),
        ("--backbone=ViT-Z", "Unknown backbone 'ViT-Z'. Give an architecture of open_clip_torch"),
    ],
)
def test_wrong_values_are_told_before_any_work(tiny_backbone, tmp_path, capsys, monkeypatch, option, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(speed, "tower", None)  # the first work would fail
    assert main(words(tiny_backbone, tmp_path / "speed.json", option)) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_anomaly_clip_on_a_resnet_is_told_before_any_work(golden_dir, monkeypatch):
    monkeypatch.setattr(speed, "tower", None)
    settings = contenders.Settings(str(golden_dir / "tiny_rn.json"), 64, (1, 2))
    with pytest.raises(ValueError, match=r"parts=\['anomaly_clip'\] has anomaly_clip, .* is a ResNet. Leave"):
        speed.measure_speed(settings, 1, ["anomaly_clip"])
    assert next(speed.measure_speed(settings, 1, ["shots"]))["settings"]["parts"] == ["shots"]


def test_slower_verdicts_show(tiny_backbone, monkeypatch, tmp_path):
    plain = AprilGANModel.forward

    def slow(self, images):
        time.sleep(0.2)
        return plain(self, images)

    monkeypatch.setattr(AprilGANModel, "forward", slow)
    main(words(tiny_backbone, tmp_path / "speed.json", "--parts=[]"))
    results = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert results["ratio_zero_shot"] > 2
    assert results["ratio_few_shot"] > 2


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_yardstick_is_all_of_open_clips_tower_in_the_precision(tiny_backbone, monkeypatch, precision):
    settings = contenders.Settings(tiny_backbone, 28, (1, 2, 3, 4), precision)
    model = contenders.build_model(settings)
    seen, plain = [], VisionTransformer.forward
    monkeypatch.setattr(VisionTransformer, "forward", lambda *inputs: seen.append(plain(*inputs)))
    contenders.tower(settings, model)()  # which discards what it times
    assert {features.dtype for features in seen} == {model.clip.dtype}
    assert {tuple(features.shape) for features in seen} == {(1, model.clip.embed_dim)}


def test_arithmetic_of_references_is_linear_in_their_number(tiny_backbone):
    settings = contenders.Settings(tiny_backbone, 56, (1, 2, 3, 4))
    model = contenders.build_model(settings)
    bare = speed.count_operations(contenders.tower(settings, model))
    zero, one, four = (
        speed.count_operations(
            contenders.few_shot(settings, model, shots) if shots else contenders.zero_shot(settings, model)
        )
        for shots in (0, 1, 4)
    )
    patches = (56 // model.clip.stride) ** 2
    assert one - zero == 4 * 2 * patches * patches * model.clip.widths[0]  # four stages, each pair of patches
    assert four - zero == 4 * (one - zero)
    assert bare < zero


def test_arithmetic_of_an_image_depends_neither_on_products_nor_on_other_images(tiny_backbone):
    model = contenders.build_model(contenders.Settings(tiny_backbone, 56, (1, 2, 3, 4)))

    def operations(images: int) -> int:
        return speed.count_operations(lambda: model(torch.zeros(images, 3, 56, 56)))

    of_one = operations(1)
    assert operations(5) == 5 * of_one
    for name in ("bottle", "metal nut", "printed circuit board"):
        model.setup(name)
    assert operations(1) == of_one


def test_text_at_full_context_is_the_same_text(tiny_backbone):
    model = contenders.build_model(contenders.Settings(tiny_backbone, 28, (1, 2, 3, 4)))
    encoder, prompts = TextEncoder(model.source), PromptEnsemble()
    expected = torch.cat([encoder(sentences) for sentences in prompts.sentences("object")])
    torch.testing.assert_close(text_setup.encode_at_full_context(encoder, prompts), expected, rtol=0, atol=1e-5)


def test_references_leave_the_zero_shot_model_alone(tiny_backbone):
    model = contenders.build_model(contenders.Settings(tiny_backbone, 28, (1, 2, 3, 4)))
    few = contenders.with_references(model, 2)
    assert few.is_few_shot
    assert not model.is_few_shot
    assert few.clip is model.clip


def test_unknown_parts_are_refused():
    with pytest.raises(ValueError, match=r"parts=\['speed'\] are unknown, expected any of predict, shots, "):
        contenders.choose(["memory", "speed"])


def hold(kilobytes: int):
    """A work that holds so much while it runs, with as much for weights."""
    weights = nn.Parameter(torch.ones(kilobytes * 256))
    return lambda: weights * 2


@pytest.mark.slow
def test_peak_memory_is_of_weights_and_pass_without_imports():
    small, large = (peak_in_new_process(hold, (size * 1024,), "cpu", 1) for size in (50, 200))
    assert large - small == pytest.approx(2 * 150 * 2**20, rel=0.1)
    assert small == pytest.approx(2 * 50 * 2**20, rel=0.25)


def die():
    """A work that ends as where memory ran out."""
    return lambda: os._exit(9)


@pytest.mark.slow
def test_a_process_that_is_killed_is_not_waited_for():
    with pytest.raises(KilledError, match=r"was killed, most likely .* Leave memory out of --parts, or take"):
        peak_in_new_process(die, (), "cpu", 1)


def test_memory_is_compared_with_the_towers(tiny_backbone, monkeypatch):
    peaks = iter([100, 104, 112])

    def peak(build, arguments, device, threads):
        assert build(*arguments)() > 0  # a timer of a pass
        return next(peaks)

    monkeypatch.setattr(speed, "peak_in_new_process", peak)
    settings = contenders.Settings(tiny_backbone, 28, (1, 2, 3, 4))
    ratios = {"ratio_peak_memory": 1.12, "ratio_peak_memory_zero_shot": 1.04, "ratio_peak_memory_few_shot": 1.12}
    assert speed.measure_memory(settings, contenders.VERDICTS) == {"tower_peak_bytes": 100, **ratios}
