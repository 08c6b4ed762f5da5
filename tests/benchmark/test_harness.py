# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""A miniature of the whole benchmark: two categories, two seeds, every kind of method, through the command line."""

import base64
import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml
from anomalib.models import Patchcore
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torchvision.transforms.v2 import Compose, Normalize, Resize

from anomalib_aprilgan.benchmark import COLUMNS, harness
from anomalib_aprilgan.benchmark.harness import run_benchmark
from anomalib_aprilgan.benchmark.plan import Dataset, Method, read_plan
from anomalib_aprilgan.benchmark.single_run import LATENCY_COLUMNS, PAPER_COLUMNS, digest
from anomalib_aprilgan.cli import main

CATEGORIES = ["bottle", "cable"]
PARTS = {"train/good": 4, "test/good": 3, "test/broken": 2}


def small_patchcore(post_processor, evaluator, visualizer):
    """Patchcore on small images, named by its path in the plan."""
    transform = Compose([Resize((32, 32)), Normalize([0.5] * 3, [0.25] * 3)])
    parts = {"post_processor": post_processor, "evaluator": evaluator, "visualizer": visualizer}
    return Patchcore(
        "resnet18", ("layer1",), pre_trained=False, num_neighbors=1, pre_processor=PreProcessor(transform), **parts
    )


def write_images(root: Path, *, masks: bool = True) -> Path:
    """Images in the layout of MVTec AD: noise on grey, with a bright spot if broken."""
    generator = np.random.default_rng(0)
    for category in CATEGORIES:
        for kind, count in PARTS.items():
            (root / category / kind).mkdir(parents=True)
            (root / category / "ground_truth" / "broken").mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = generator.integers(90, 130, (60, 60, 3), dtype=np.uint8)
                if kind == "test/broken":
                    mask = np.zeros((60, 60), dtype=np.uint8)
                    mask[20:40, 15:35] = 255
                    pixels[mask > 0] += 100
                    if masks:
                        Image.fromarray(mask).save(root / category / f"ground_truth/broken/{number:03}_mask.png")
                Image.fromarray(pixels).save(root / category / kind / f"{number:03}.png")
    return root


@pytest.fixture(scope="module")
def plan(tmp_path_factory, tiny_backbone):
    """A plan as a YAML file holds it, with a method that fails."""
    root = write_images(tmp_path_factory.mktemp("images") / "MVTecAD")
    tiny = {"backbone": tiny_backbone, "pretrained": None, "image_size": 56}
    return {
        "output": str(tmp_path_factory.mktemp("output") / "report"),
        "seeds": [0, 1],
        "shots": [1],
        "accelerator": "cpu",
        "latency_seconds": 0.01,
        "methods": {
            "AprilGAN": {
                "class_path": "AprilGAN",
                "init_args": {**tiny, "layers": [2, 4]},
                "shots": [0, 1],
                "published_as": "APRIL-GAN",
            },
            "WinClip": {"class_path": "WinClip", "init_args": tiny, "shots": [0, 1]},
            "Patchcore": {"class_path": "test_harness.small_patchcore", "shots": [1, "full"]},
            "Untaught": {"class_path": "test_harness.small_patchcore", "shots": [0]},
            "Broken": {"class_path": "Padim", "init_args": {"backbone": "no_such_network"}},
        },
        "datasets": {
            "MVTecAD": {
                "class_path": "MVTecAD",
                "init_args": {"root": str(root), "num_workers": 0, "eval_batch_size": 2},
                "categories": CATEGORIES,
                "published_as": "mvtec",
            }
        },
    }


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    """Exit status and output folder of the plan, run from the command line."""
    file = tmp_path_factory.mktemp("plan") / "plan.yaml"
    file.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    loggers = [logging.getLogger(name) for name in ("anomalib", "lightning.pytorch", "lightning_fabric")]
    levels = [each.level for each in loggers]
    status = main(["benchmark", "--config", str(file)])
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)
    return status, Path(plan["output"])


def read_rows(folder):
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
class TestMiniature:
    def test_every_good_run_has_a_row_and_the_others_are_reported(self, finished):
        status, folder = finished
        rows = read_rows(folder)
        counts = {name: sum(row["method"] == name for row in rows) for name in ("AprilGAN", "WinClip", "Patchcore")}
        assert counts == {"AprilGAN": 6, "WinClip": 6, "Patchcore": 8}
        assert len(rows) == 20
        assert len({row["run"] for row in rows}) == 20
        assert status == 1
        failures = (folder / "failures.log").read_text(encoding="utf-8")
        assert failures.count("Broken, 1-shot, MVTecAD/") == 4
        assert (
            failures.count("Untaught learns from normal images, so 0 is not among its shots. Give it") == 4
        )  # text, trace
        assert "no_such_network" in failures
        assert "Runs done: 20 of 26." in (folder / "report.md").read_text(encoding="utf-8")

    def test_rows_hold_all_that_was_measured(self, finished):
        for row in read_rows(finished[1]):
            assert all(0 <= float(row[column]) <= 1 for column in COLUMNS)
            assert all(bool(row[column]) == (row["method"] == "AprilGAN") for column in PAPER_COLUMNS)
            assert 0 < float(row["ms_median_batch_1"]) <= float(row["ms_p95_batch_1"])
            assert all(float(row[column]) > 0 for column in (*LATENCY_COLUMNS, "seconds_to_prepare", "peak_host_mib"))
            assert (row["test_images"], row["anomalous_images"]) == ("5", "2")
            assert row["map_size"] == ("32x32" if row["method"] == "Patchcore" else "56x56")
            assert row["anomalib"]
            assert row["torch"]
            assert row["device"].startswith("CPU")
        assert {row["adapters"] for row in read_rows(finished[1]) if row["method"] == "AprilGAN"} == {"none"}

    def test_methods_see_the_same_references_at_equal_shots(self, finished, plan):
        draws = {}
        for row in read_rows(finished[1]):
            draws.setdefault((row["category"], row["shots"], row["seed"]), []).append(row)
        for (category, shots, _), rows in draws.items():
            assert len({(row["references"], row["references_sha256"]) for row in rows}) == 1
            names = json.loads(rows[0]["references"])
            if shots == "1":
                assert len(rows) == 3
                root = Path(plan["datasets"]["MVTecAD"]["init_args"]["root"])
                assert rows[0]["references_sha256"] == digest([root / category / name for name in names])
            elif shots == "full":
                assert names == ["all 4"]
            else:
                assert (names, rows[0]["references_sha256"]) == ([], "")
        seeds = {row["seed"]: row["references"] for row in read_rows(finished[1]) if row["shots"] == "1"}
        assert len(set(seeds.values())) == 2

    def test_zero_shot_has_one_seed_and_one_score_in_both_protocols(self, finished):
        rows = [row for row in read_rows(finished[1]) if row["shots"] == "0"]
        assert {row["seed"] for row in rows} == {"0"}
        for row in rows:
            if row["method"] == "AprilGAN":
                assert row["AUROC-cls"] == row["AUROC-cls, paper protocol"]

    def test_report_has_the_form_of_the_papers_tables(self, finished):
        text = (finished[1] / "report.md").read_text(encoding="utf-8")
        assert f"| setting | method | protocol | seeds | {' | '.join(COLUMNS)} |" in text
        lines = [line.split(" | ")[:4] for line in text.split("## MVTecAD, by category", maxsplit=1)[0].splitlines()]
        settings = [line for line in lines if line[0].startswith(("| zero", "| 1-shot", "| full"))]
        assert settings == [
            ["| zero-shot", "AprilGAN", "streaming", "1"],
            ["| zero-shot", "WinClip", "streaming", "1"],
            ["| 1-shot", "AprilGAN", "streaming", "2"],
            ["| 1-shot", "AprilGAN", "paper", "2"],
            ["| 1-shot", "WinClip", "streaming", "2"],
            ["| 1-shot", "Patchcore", "streaming", "2"],
            ["| full", "Patchcore", "streaming", "2"],
        ]
        assert ", as published" not in text  # two categories are not the paper's fifteen
        assert "| bottle | full | Patchcore | streaming | 2 |" in text
        assert "WinClip on MVTecAD: WinCLIP's code with the CLIP" in text
        assert "(random weights, 56 px) instead of its own" in text
        assert "| F1-max-cls | streaming, paper | the best on the images under test, as F1-max is defined |" in text
        assert "| MVTecAD | bottle | 3 | 2 |" in text
        assert "| MVTecAD | full | Patchcore | 32x32 |" in text
        assert "latency.png" in text
        assert (finished[1] / "latency.png").read_bytes().startswith(b"\x89PNG")

    def test_report_comes_in_three_forms_with_the_same_cells(self, finished):
        folder = finished[1]
        markdown = (folder / "report.md").read_text(encoding="utf-8")
        latex = (folder / "report.tex").read_text(encoding="utf-8")
        page = (folder / "report.html").read_text(encoding="utf-8")
        row = next(line for line in markdown.splitlines() if line.startswith("| 1-shot | Patchcore"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert " & ".join(cells).replace("±", r"$\pm$") + r" \\" in latex
        assert "".join(f"<td>{cell}</td>" for cell in cells) in page
        assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == page.count("<table>") == 5
        picture = base64.b64encode((folder / "latency.png").read_bytes()).decode()
        assert f'<img src="data:image/png;base64,{picture}"' in page
        fragment = (folder / "comparison.md").read_text(encoding="utf-8")
        assert fragment.startswith("### MVTecAD\n\n| setting |")
        assert row in fragment
        assert "by category" not in fragment

    def test_a_second_start_runs_only_what_is_missing(self, finished, plan, monkeypatch):
        folder = finished[1]
        before = (folder / "results.csv").read_bytes()
        tried = []
        monkeypatch.setattr(harness, "execute", lambda run, settings: tried.append(run) or 1 / 0)
        failures = run_benchmark(
            read_plan(Method, plan["methods"]),
            read_plan(Dataset, plan["datasets"]),
            folder,
            plan["shots"],
            plan["seeds"],
        )
        assert {run.method_name for run in tried} == {"Broken", "Untaught"}
        assert len(failures) == 6
        assert (folder / "results.csv").read_bytes() == before
