# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The stock anomalib, in processes of its own, knows the model of the installed package."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from host_environment import REPOSITORY, WATCHED, Environment
from PIL import Image

pytestmark = [pytest.mark.host, pytest.mark.slow]

EVERY_NAME = """
import json, sys
from anomalib.models import AprilGAN, AnomalibModule, get_model, list_models
import anomalib.models, anomalib_aprilgan

small, config = json.loads(sys.argv[1]), sys.argv[2]
specifications = [
    "april_gan",
    "AprilGAN",
    {"class_path": "AprilGAN"},
    {"class_path": "anomalib_aprilgan.AprilGAN"},
    {"class_path": "anomalib.models.AprilGAN"},
]
built = [get_model(specification, **small) for specification in specifications]
built.append(get_model({"class_path": "AprilGAN", "init_args": small}))
built.append(AnomalibModule.from_config(config))
stars = {}
exec("from anomalib.models import *", stars)
print(json.dumps({
    "built": [type(model) is AprilGAN for model in built],
    "listed": "april_g_a_n" in list_models() and "AprilGAN" in list_models(case="pascal"),
    "same class": AprilGAN is anomalib_aprilgan.AprilGAN is stars["AprilGAN"],
    "times in __all__": anomalib.models.__all__.count("AprilGAN"),
    "from": anomalib_aprilgan.__file__,
}))
"""

PACKAGE_FIRST = """
import json, sys
sys.path += json.loads(sys.argv[1])
import anomalib_aprilgan
from anomalib.models import AprilGAN, list_models
import anomalib.models
print(json.dumps({
    "hook": any(hasattr(finder, "plugin_group") for finder in sys.meta_path),
    "known": AprilGAN is anomalib_aprilgan.AprilGAN and "AprilGAN" in list_models("pascal"),
    "times in __all__": anomalib.models.__all__.count("AprilGAN"),
    "allowed": "anomalib_aprilgan" in anomalib.models.ALLOWED_MODULES,
}))
"""

# A worker that is spawned starts an interpreter of its own, and gets there before its parent.
SPAWN = """
import json, sys
from multiprocessing import get_context
if __name__ == "__main__":
    with get_context("spawn").Pool(1) as pool:
        name = pool.apply(eval, ["__import__('anomalib.models').models.AprilGAN.__name__"])
    print(json.dumps([name, "anomalib.models" in sys.modules]))
"""

SWITCHED_OFF = """
import json, sys
from anomalib import models
before = [hasattr(models, "AprilGAN"), "anomalib_aprilgan" in sys.modules, "AprilGAN" in models.list_models("pascal")]
import anomalib_aprilgan
print(json.dumps([before, hasattr(models, "AprilGAN")]))
"""


@pytest.fixture
def config(tiny_arguments: dict[str, Any], tmp_path: Path) -> str:
    """A model configuration; JSON is YAML."""
    file = tmp_path / "model.yaml"
    file.write_text(json.dumps({"model": {"class_path": "AprilGAN", "init_args": tiny_arguments}}), encoding="utf-8")
    return str(file)


@pytest.fixture
def train(tiny_arguments: dict[str, Any], photographs: Path) -> list[str]:
    """Arguments of a short training, without ``--model``."""
    model = [
        f"--model.{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in tiny_arguments.items()
    ]
    data = {"name": "demo", "root": photographs, "normal_dir": "good", "abnormal_dir": "bad", "num_workers": 0}
    return [
        *model,
        "--data=anomalib.data.Folder",
        *(f"--data.{name}={value}" for name, value in data.items()),
        "--trainer.accelerator=cpu",
        "--default_root_dir=results",
    ]


def test_python_knows_every_name(installed: Environment, tiny_arguments: dict[str, Any], config: str) -> None:
    found = installed.evaluate(EVERY_NAME, json.dumps(tiny_arguments), config)
    source = Path(found.pop("from"))
    assert source.is_relative_to(REPOSITORY if "editable" in installed.folder.name else installed.folder)
    assert found == {"built": [True] * 7, "listed": True, "same class": True, "times in __all__": 1}


def test_the_command_trains_it_by_every_name(installed: Environment, train: list[str]) -> None:
    names = ["AprilGAN", "anomalib_aprilgan.AprilGAN", "anomalib.models.AprilGAN"]
    done = installed.anomalib(*(["train", f"--model={name}", *train] for name in names))
    assert done.returncode == 0, done.stderr
    assert "image_AUROC" in done.stdout
    runs = installed.folder / "results" / "AprilGAN" / "demo"
    assert {run.name for run in runs.iterdir()} >= {"v0", "v1", "v2"}


def test_the_command_explains_it_and_names_a_broken_plugin(from_wheel: Environment, tmp_path: Path) -> None:
    entry_points = tmp_path / "ruin-1.0.dist-info" / "entry_points.txt"
    entry_points.parent.mkdir()
    entry_points.write_text("[anomalib.models]\nruin = no_such_module:Ruin\n", encoding="utf-8")
    done = from_wheel.anomalib(
        ["train", "--model.help", "AprilGAN"], PYTHONPATH=os.pathsep.join((WATCHED, str(tmp_path)))
    )
    assert done.returncode == 0, done.stderr
    assert "--model.few_shot_source" in done.stdout
    assert done.stderr.count("The model plugin 'ruin' of anomalib (no_such_module:Ruin) is not available") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("options", "hook"), [((), True), (("-S",), False)], ids=["hook", "no hook"])
def test_the_package_may_come_before_anomalib(from_wheel: Environment, options: tuple[str, ...], *, hook: bool) -> None:
    # Where Python runs no .pth file, the folders of the environment come by argument.
    folders = from_wheel.evaluate("import json, sys; print(json.dumps(sys.path[1:]))")
    found = from_wheel.evaluate(PACKAGE_FIRST, json.dumps([] if hook else folders), options=options)
    assert found == {"hook": hook, "known": True, "times in __all__": 1, "allowed": True}


def test_a_spawned_worker_knows_it(from_wheel: Environment) -> None:
    assert from_wheel.evaluate(SPAWN) == ["AprilGAN", False]


def test_the_variable_leaves_anomalib_as_it_is(from_wheel: Environment) -> None:
    assert from_wheel.evaluate(SWITCHED_OFF, ANOMALIB_MODEL_PLUGINS="0") == [[False, False, False], True]


def test_its_benchmark_keeps_one_table_of_all_models(
    from_wheel: Environment, tiny_backbone: str, photographs: Path, tmp_path: Path
) -> None:
    """The shipped config with other data, small models and less of each."""
    config = yaml.safe_load((REPOSITORY / "configs" / "benchmark.yaml").read_text(encoding="utf-8"))
    tiny = [f"backbone={tiny_backbone}", "pretrained=null", "image_size=56"]
    patchcore = ["backbone=resnet18", "pre_trained=false", "layers=[layer3]", "coreset_sampling_ratio=0.02"]
    options = {"AprilGAN": [*tiny, "layers=[2]"], "WinClip": tiny, "Patchcore": patchcore}
    arguments = config["benchmark"]["model"]["init_args"]
    wanted = [("AprilGAN", 0), ("AprilGAN", 1), ("WinClip", 0), ("WinClip", 1), ("Patchcore", 0)]
    jobs = [job for job in arguments["grid"] if (job["method"], job["k_shot"]) in wanted]
    arguments["grid"] = [{**job, "options": options[job["method"]]} for job in jobs]
    folders = {"normal_dir": "good", "abnormal_dir": "bad", "mask_dir": str(write_masks(photographs, tmp_path))}
    names = {"name": {"grid": ["demo"]}, "root": str(photographs), "num_workers": 0}
    config["benchmark"]["data"] = {"class_path": "Folder", "init_args": {**names, **folders}}
    config["accelerator"] = "cpu"
    file = tmp_path / "benchmark.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    done = from_wheel.anomalib(["benchmark", "--config", str(file)])
    (table,) = from_wheel.folder.glob("runs/benchmark/*/results.csv")
    with table.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = [(row["model.init_args.method"], int(row["model.init_args.k_shot"])) for row in rows]
    assert found == wanted, done.stderr
    metrics = ["image_AUROC", "image_F1Max", "image_AveragePrecision", "pixel_AUROC", "pixel_F1Max", "pixel_AUPRO"]
    assert all(0 <= float(row[metric]) <= 1 for row in rows for metric in metrics)


def write_masks(photographs: Path, folder: Path) -> Path:
    """Masks of a spot for the bad photographs."""
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[20:40, 20:40] = 255
    for photograph in (photographs / "bad").iterdir():
        Image.fromarray(mask).save(folder / photograph.name)
    return folder
