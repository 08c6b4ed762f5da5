# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Fine-tuning prints what it gained on other images, and the configs in configs/ fit the signatures."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from anomalib.cli import AnomalibCLI
from anomalib.data import ImageBatch
from anomalib.engine import Engine
from anomalib.metrics import create_anomalib_metric
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import load_file

from anomalib_aprilgan import AnomalyCLIP, AnomalyCLIPPrompts, AuxiliaryData
from anomalib_aprilgan.anomaly_clip import fine_tuning
from anomalib_aprilgan.anomaly_clip.fine_tuning import fine_tune, main
from anomalib_aprilgan.anomaly_clip.learned_prompts import LearnedPrompts
from anomalib_aprilgan.benchmark.plan import Dataset, Method, list_runs, read_plan
from anomalib_aprilgan.components.trained_file import TrainedWith
from anomalib_aprilgan.detection.region_overlap import PublishedAUPRO

CONFIGS = Path(__file__).parents[2] / "configs"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folders(mvtec_root: Path, tmp_path: Path) -> Path:
    """Folders ``train`` and ``test`` with anomalous images and masks of two categories."""
    for part, category in (("train", "bottle"), ("test", "cable")):
        for index in (3, 4):
            for folder, kind, ending in (("image", "test", ""), ("mask", "ground_truth", "_mask")):
                target = tmp_path / part / folder / f"{index}{ending}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(mvtec_root / category / kind / "bad" / target.name, target)
    return tmp_path


@pytest.fixture
def overrides(folders: Path, small_arguments: dict[str, Any], tmp_path: Path) -> list[str]:
    """The fine-tuning config with a small CLIP and small data in place of the real ones."""
    LearnedPrompts(32, 4, 2, 3).save(tmp_path / "start.safetensors", TrainedWith(trained_on="MVTecAD/bottle"))
    model = {**small_arguments, "start_from": str(tmp_path / "start.safetensors")}
    sources = [
        {
            "class_path": "anomalib_aprilgan.data.MaskedImages",
            "init_args": {"name": part, "root": str(folders / part), "image_dir": "image", "mask_dir": "mask"},
        }
        for part in ("train", "test")
    ]
    data = {"sources": sources, "image_size": 56, "num_workers": 0, "train_batch_size": 2}
    small = {
        "model": {"init_args": model},
        "data": {"init_args": data},
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False},
        "default_root_dir": str(tmp_path / "results"),
    }
    (tmp_path / "small.yaml").write_text(json.dumps(small), encoding="utf-8")
    return ["--config", str(CONFIGS / "anomaly_clip_finetune.yaml"), "--config", str(tmp_path / "small.yaml")]


def test_table_before_and_after(overrides, tmp_path):
    table = fine_tune(overrides)
    lines = table.splitlines()
    assert lines[0] == (
        "2 images to train on (MaskedImages/train), 2 to test on (MaskedImages/test), 2 of them anomalous; in percent."
    )
    assert lines[2].startswith("| prompts | pixel AUROC | pixel AUPRO |")
    before, after = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:6])
    assert before[0] == f"before ({tmp_path / 'start.safetensors'})"
    assert after[0] == "after"
    assert all(re.fullmatch(r"\d+\.\d", cell) for cell in [*before[1:4], *after[1:4]])
    assert before[4:] == after[4:] == ["-", "-"]  # all test images are anomalous
    assert before[1:4] != after[1:4]
    prompts = Path(lines[-1].removeprefix("Prompts: "))
    assert prompts.is_file()


def test_rows_are_of_the_prompts_that_they_name(overrides, folders):
    """What ``anomalib test`` says of the prompts from before, and of the new ones."""
    cells = [[float(cell) for cell in line.split("|")[2:5]] for line in fine_tune(overrides).splitlines()[4:6]]
    new = newest_run(folders) / "prompts.safetensors"
    for path, row in zip((folders / "start.safetensors", new), cells, strict=True):
        cli = AnomalibCLI(["train", *overrides, "--model.start_from", str(path)], run=False)
        fields = ["anomaly_map", "gt_mask"]
        cli.model.evaluator.test_metrics.append(create_anomalib_metric(PublishedAUPRO)(fields, "pixel_"))
        found = cli.engine.test(cli.model, datamodule=cli.datamodule)[0]
        names = ("pixel_AUROC", "pixel_PublishedAUPRO", "pixel_AveragePrecision")
        assert row == pytest.approx([100 * found[name] for name in names], abs=0.051)


def test_aupro_without_anomalous_pixels_is_told_and_costs_no_table(caplog):
    metric = fine_tuning.PublishedAUPRO(["anomaly_map", "gt_mask"], "pixel_", strict=False)
    maps, masks = torch.rand(1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    metric.update(ImageBatch(image=torch.zeros(1, 3, 8, 8), anomaly_map=maps, gt_mask=masks))
    assert metric.compute().isnan()
    assert "AUPRO as published is undefined: All 64 values of masks are normal" in caplog.text


def test_every_run_has_a_folder_of_its_own(overrides, folders):
    """No earlier prompts are written over, such as those that a run starts from, and anomalib can go on there."""
    fine_tune(overrides)
    first = newest_run(folders)
    start = (first / "prompts.safetensors").read_bytes()
    fine_tune([*overrides, "--model.start_from", str(first / "prompts.safetensors")])
    cli = AnomalibCLI(["train", *overrides], run=False)
    cli.engine.fit(cli.model, datamodule=cli.datamodule)
    written = sorted((folders / "results").rglob("v?/prompts.safetensors"))
    assert [path.parent.name for path in written] == ["v0", "v1", "v2"]
    assert written[0].read_bytes() == start != written[1].read_bytes()


def test_goes_on_from_a_checkpoint(overrides, folders):
    fine_tune(overrides)
    checkpoint = newest_run(folders) / "weights" / "lightning" / "model.ckpt"
    LearnedPrompts(32, 4, 2, 3).save(folders / "other.safetensors", TrainedWith())  # which the checkpoint replaces
    other = ["--model.start_from", str(folders / "other.safetensors"), "--trainer.max_epochs", "3"]
    fine_tune([*overrides, *other, "--ckpt_path", str(checkpoint)])
    resumed = load_file(newest_run(folders) / "prompts.safetensors")
    fine_tune([*overrides, "--trainer.max_epochs", "3"])
    whole = load_file(newest_run(folders) / "prompts.safetensors")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())


def newest_run(folder: Path) -> Path:
    return (folder / "results" / "AnomalyCLIPPrompts" / "AuxiliaryData" / "latest").resolve()


def test_prompts_that_saw_the_test_images_are_marked(overrides, folders):
    said = TrainedWith(trained_on="MaskedImages/test")
    LearnedPrompts(32, 4, 2, 3).save(folders / "start.safetensors", said)
    rows = [line.split("|")[1].strip() for line in fine_tune(overrides).splitlines()[4:6]]
    assert all(row.endswith(", trained on data under test") for row in rows)


def test_options_to_try_it_without_a_download(overrides, tmp_path):
    """Those that a comment in the config names: the bundled CLIP and prompts, at their size."""
    comment = (CONFIGS / "anomaly_clip_finetune.yaml").read_text(encoding="utf-8").replace("\n# ", " ")
    options = re.search(r"images and masks of your own: (--.*?)\.\n", comment).group(1).split()
    data = json.loads((tmp_path / "small.yaml").read_text(encoding="utf-8"))["data"]["init_args"]
    sources = ["--data.sources", json.dumps(data["sources"]), "--data.num_workers", "0"]
    run = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--default_root_dir", str(tmp_path / "tried")]
    table = fine_tune([*overrides[:2], *options, *sources, *run])
    assert "| before (embedded) |" in table


@pytest.fixture
def bmad(mvtec_root: Path, tmp_path: Path) -> Path:
    """BMAD's layout: Brain and Liver with masks, Chest with labels alone."""
    for category, images in (("Brain", "bottle"), ("Liver", "cable"), ("Chest", "carpet")):
        for index, kind in ((0, "train/good"), (1, "test/good/img"), (2, "test/good/img"), (3, "test/Ungood/img")):
            target = tmp_path / "BMAD" / category / kind / f"{index}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            source = {"train/good": "train/good", "test/good/img": "test/good"}.get(kind, "test/bad")
            shutil.copy(mvtec_root / images / source / target.name, target)
        if category != "Chest":
            (target.parents[1] / "label").mkdir()
            shutil.copy(mvtec_root / images / "ground_truth" / "bad" / "3_mask.png", target.parents[1] / "label/3.png")
    return tmp_path / "BMAD"


@pytest.mark.parametrize(("categories", "labels_only"), [(["Brain", "Liver"], False), (["Brain", "Chest"], True)])
def test_bmad_is_a_source(bmad, overrides, categories, labels_only, tmp_path):
    sources = [
        {"class_path": "BMAD", "init_args": {"root": str(bmad), "category": category, "num_workers": 0}}
        for category in categories
    ]
    data = {"sources": sources, "validation": categories[1:], "labels_only": labels_only}
    config = {"data": {"init_args": data}, "model": {"init_args": {"image_loss_only": labels_only}}}
    (tmp_path / "bmad.yaml").write_text(json.dumps(config), encoding="utf-8")
    lines = fine_tune([*overrides, "--config", str(tmp_path / "bmad.yaml")]).splitlines()
    said = f"3 images to train on (BMAD/{categories[0]}), 3 to test on (BMAD/{categories[1]}), 1 of them anomalous"
    assert lines[0].startswith(said)
    after = [cell.strip() for cell in lines[5].split("|")[2:-1]]
    assert [cell == "-" for cell in after] == [labels_only] * 3 + [False] * 2  # nothing is said of pixels


def test_image_in_both_is_refused_before_any_work(overrides, folders, tmp_path):
    shutil.copy(folders / "train" / "image" / "3.png", folders / "test" / "image" / "4.png")
    with pytest.raises(ValueError, match="1 image is in training and in test"):
        fine_tune(overrides)
    assert not list((tmp_path / "results").rglob("*.safetensors"))


def test_processes_print_one_table_that_tells_of_images_counted_twice(overrides, monkeypatch, capsys):
    monkeypatch.setattr(Trainer, "world_size", 3)
    assert main(overrides) == 0
    assert "3 processes counted some test images twice: run with one" in capsys.readouterr().out
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    monkeypatch.setattr(fine_tuning, "fine_tune", lambda _: "table")
    main(overrides)
    assert not capsys.readouterr().out


def test_start_from_random_prompts(overrides):
    rows = fine_tune([*overrides, "--model.start_from", "null"]).splitlines()[4:6]
    before, after = ([cell.strip() for cell in row.split("|")[1:-1]] for row in rows)
    assert (before[0], after[0]) == ("before (random prompts)", "after")
    assert before[1:4] != after[1:4]


def test_start_from_a_checkpoint_that_brings_nothing_before(overrides, tmp_path):
    with pytest.raises(ValueError, match=r"start_from='checkpoint' brings no prompts .* Set start_from to a file"):
        fine_tune([*overrides, "--model.start_from", "checkpoint"])
    assert not list((tmp_path / "results").rglob("*.safetensors"))


def test_prompts_are_not_lost_if_the_test_fails(overrides, monkeypatch, folders):
    def fail(*_arguments: object, **_options: object) -> None:
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(Engine, "test", fail)
    with pytest.raises(RuntimeError, match=r"trained and lie in .*prompts\.safetensors, but .*: disk full") as caught:
        main(overrides)
    path = newest_run(folders) / "prompts.safetensors"
    assert path.is_file()
    assert isinstance(caught.value.__cause__, OSError)


def test_other_models_are_refused(overrides, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fine_tuning, "AnomalyCLIPPrompts", AnomalyCLIP)
        with pytest.raises(ValueError, match=r"The model is AnomalyCLIPPrompts: .* Set model.class_path"):
            fine_tune(overrides)


def test_other_data_are_refused(overrides):
    with pytest.raises(ValueError, match="The data must be AuxiliaryData with validation"):
        fine_tune([*overrides, "--data.validation", "[]"])


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (["--data.validation", "[]"], "The data must be AuxiliaryData with validation, the names of the sources to"),
        (["--data.validation", "[tset]"], "validation names tset, but there are only train, test."),
        (["--model.start_from", "mvtc"], "Prompts 'mvtc' are neither mvtec, visa, embedded nor a file."),
        (["--model.start_from", "mvtec"], "Prompts 'mvtec' (9_12_4_multiscale_visa/epoch_15.pth, git blob "),
        (["--model.betas", "[0.5]"], "betas=[0.5] must be two numbers"),
    ],
)
def test_mistakes_are_told_in_a_sentence(overrides, mistake, sentence, monkeypatch, capsys):
    monkeypatch.setenv("ANOMALIB_APRILGAN_OFFLINE", "1")
    assert main([*overrides, *mistake]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {sentence}")
    assert "Namespace(" not in said


class TestConfigs:
    """The YAML files fit the signatures; the paper's CLIP is not here, so a small one takes its place."""

    @pytest.fixture
    def small(self, small_arguments, tmp_path) -> str:
        (tmp_path / "small.yaml").write_text(json.dumps({"model": {"init_args": small_arguments}}), encoding="utf-8")
        return str(tmp_path / "small.yaml")

    @pytest.mark.parametrize(("name", "categories"), [("mvtec", 15), ("visa", 12)])
    def test_training(self, name, categories, small):
        config = CONFIGS / f"anomaly_clip_{name}.yaml"
        cli = AnomalibCLI(["train", "--config", str(config), "--config", small], run=False)
        assert (type(cli.model), type(cli.datamodule)) == (AnomalyCLIPPrompts, AuxiliaryData)
        assert (cli.model.learning_rate, cli.model.betas, cli.model.pixel_weight) == (1e-3, (0.5, 0.999), 16)
        assert (len(cli.datamodule.training_categories), cli.datamodule.train_batch_size) == (categories, 8)
        assert cli.config["train"]["trainer"]["max_epochs"] == 15
        paper = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]["init_args"]
        assert (paper["backbone"], paper["image_size"], paper["layers"]) == ("ViT-L-14-336", 518, [24])
        assert (paper["prompt_length"], paper["deep_prompt_length"], paper["deep_prompt_depth"]) == (12, 4, 9)

    def test_zero_shot(self, small):
        config = str(CONFIGS / "anomaly_clip_zero_shot.yaml")
        cli = AnomalibCLI(["train", "--config", config, "--config", small], run=False)
        assert type(cli.model) is AnomalyCLIP
        assert cli.datamodule.category == "bottle"

    def test_benchmark(self):
        plan = yaml.safe_load((CONFIGS / "anomaly_clip_benchmark.yaml").read_text(encoding="utf-8"))
        runs = list_runs(read_plan(Method, plan["methods"]), read_plan(Dataset, plan["datasets"]), plan["shots"], [0])
        assert len(runs) == 6 * (15 + 12)
        assert [len(plan["methods"][name]) for name in ("CLIP", "CLIP-AC")] == [1, 1]  # two lines, with the name
        published = {run.method.published_as for run in runs} - {None}
        assert published == {"AnomalyCLIP", "APRIL-GAN", "WinCLIP"}
