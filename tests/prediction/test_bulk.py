# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-aprilgan predict``: anomalib's numbers, each photo once, whatever is killed, broken or shared."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_aprilgan import AprilGAN
from anomalib_aprilgan.cli import main
from anomalib_aprilgan.prediction import photos
from anomalib_aprilgan.prediction.bulk import predict_folder
from anomalib_aprilgan.prediction.journal import Journal, Row

pytestmark = pytest.mark.filterwarnings("ignore")

NAMES = ["a.jpg", "a.png", "b.png", "deep/d.png", "deep/er/c.png", "sixteen.png"]
BROKEN = ["broken.png", "empty.jpg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six photos of different sizes, one of them with 16 bits, and two files that cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for index, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        size = (40 + 10 * index, 60)
        if name.startswith("sixteen"):
            Image.fromarray(rng.integers(0, 1 << 16, size).astype(np.uint16)).save(folder / name)
        else:
            Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "sixteen.png").read_bytes()[:200])
    (folder / "empty.jpg").touch()
    return folder


@pytest.fixture
def build(tiny_arguments) -> Callable[..., AprilGAN]:
    return lambda **changes: AprilGAN("bottle", **{**tiny_arguments, **changes})


def predict(model: AprilGAN, folder: Path, output: Path, maps: Path | None = None, **trainer: Any) -> list[Row]:
    trainer = {"accelerator": "cpu", "enable_progress_bar": False, **trainer}
    return predict_folder(model, folder, output, maps, 2, 0, trainer)


def words(arguments: dict[str, Any], folder: Path, output: Path) -> list[str]:
    options = {"class_name": "bottle", **arguments}
    model = [f"--model.{name}={'null' if value is None else value}" for name, value in options.items()]
    return ["predict", f"--data={folder}", f"--output={output}", *model, "--accelerator=cpu", "--num_workers=0"]


def test_numbers_are_anomalibs(build, folder, tmp_path):
    model = build(visualizer=False)
    readable = PredictDataset(folder)
    readable.image_filenames = [folder / name for name in NAMES]
    loader = DataLoader(readable, collate_fn=readable.collate_fn)
    theirs = Engine(default_root_dir=tmp_path, accelerator="cpu").predict(model, dataloaders=[loader])
    expected = {Path(batch.image_path[0]): batch for batch in theirs}
    rows = {row.path: row for row in predict(model, folder, tmp_path / "all.csv", tmp_path / "maps") if not row.error}
    assert sorted(rows) == NAMES
    for name, row in rows.items():
        batch = expected[folder / name]
        assert row.score == pytest.approx(batch.pred_score.item(), abs=1e-6)
        assert row.label == int(batch.pred_label.item())
        anomaly_map = torch.from_numpy(np.load(tmp_path / "maps" / row.map))
        torch.testing.assert_close(anomaly_map, batch.anomaly_map[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_table_has_a_row_a_photo(build, folder, tmp_path, suffix):
    output = tmp_path / "new" / f"all{suffix}"
    rows = predict(build(), folder, output)
    table = pd.read_csv(output) if suffix == ".csv" else pd.read_parquet(output)
    assert list(table.columns) == ["path", "score", "label", "map", "error"]
    assert table.path.tolist() == sorted([*NAMES, *BROKEN]) == [row.path for row in rows]
    assert table.score.dropna().tolist() == [row.score for row in rows if not row.error]
    broken = table[table.path.isin(BROKEN)]
    assert broken.score.isna().all()
    assert broken.error.str.contains("cannot be read").all()


def count_reads(monkeypatch) -> list[str]:
    read, plain = [], photos.read_image

    def reading(path):
        read.append(Path(path).name)
        return plain(path)

    monkeypatch.setattr(photos, "read_image", reading)
    return read


def test_goes_on_after_a_kill_where_it_was(build, folder, tmp_path, monkeypatch):
    whole = predict(build(), folder, tmp_path / "whole.csv")
    plain = Journal.append

    def killed(self, rank, rows):
        plain(self, rank, rows)
        if "b.png" in {row.path for row in rows}:
            part = next(self.path.parent.glob("killed.part-*"))
            part.write_bytes(part.read_bytes()[:-9])  # in the middle of its last row
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            predict(build(), folder, tmp_path / "killed.csv")
    assert not (tmp_path / "killed.csv").exists()
    read = count_reads(monkeypatch)
    resumed = predict(build(), folder, tmp_path / "killed.csv")
    assert [row.path for row in resumed] == [row.path for row in whole]
    for row, expected in zip(resumed, whole, strict=True):
        assert (row.score, row.error) == (pytest.approx(expected.score, abs=1e-6), expected.error)
    assert "a.jpg" not in read
    assert "sixteen.png" in read
    assert not list(tmp_path.glob("*.part-*"))


def test_started_again_reads_only_what_could_not_be_read(build, folder, tmp_path, monkeypatch):
    rows = predict(build(), folder, tmp_path / "all.csv")
    read = count_reads(monkeypatch)
    assert predict(build(), folder, tmp_path / "all.csv") == rows
    assert sorted(read) == BROKEN


@pytest.mark.parametrize("change", [{"class_name": "nut"}, {"layers": [2, 4]}])
def test_rows_of_two_models_are_not_mixed(build, tiny_arguments, folder, tmp_path, change):
    predict(build(), folder, tmp_path / "all.csv")
    other = AprilGAN(**{"class_name": "bottle", **tiny_arguments, **change})
    with pytest.raises(ValueError, match=r"all\.csv was begun with another model \(.*\)\. Choose another output"):
        predict(other, folder, tmp_path / "all.csv")


class TestArguments:
    def test_unknown_format(self, build, folder, tmp_path):
        with pytest.raises(ValueError, match=r"output='.*all\.xlsx' must end in \.csv or \.parquet"):
            predict(build(), folder, tmp_path / "all.xlsx")

    def test_no_folder(self, build, folder, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"is no folder\. Give a folder of photos"):
            predict(build(), folder / "a.png", tmp_path / "all.csv")

    def test_no_images(self, build, tmp_path):
        with pytest.raises(ValueError, match="holds no images"):
            predict(build(), tmp_path, tmp_path / "all.csv")

    def test_another_pre_processor(self, build, folder, tmp_path):
        with pytest.raises(ValueError, match="needs the model's own pre-processor, not PreProcessor"):
            predict(build(pre_processor=PreProcessor()), folder, tmp_path / "all.csv")

    def test_parquet_without_pyarrow(self, monkeypatch, tmp_path):
        monkeypatch.setattr("anomalib_aprilgan.prediction.journal.find_spec", lambda name: None)
        with pytest.raises(ModuleNotFoundError, match=r"pip install pyarrow, or let the output end in \.csv"):
            Journal(tmp_path / "all.parquet")


def test_command(tiny_arguments, folder, tmp_path, capsys):
    assert main(words(tiny_arguments, folder, tmp_path / "all.csv")) == 1
    printed = capsys.readouterr().out
    assert f"all.csv: {len(NAMES)} verdicts." in printed
    assert all(f"Cannot be read: {name}: " in printed for name in BROKEN)


def test_command_with_a_checkpoint(build, folder, tmp_path):
    model, engine = build(), Engine(default_root_dir=tmp_path, accelerator="cpu")
    engine.predict(model, data_path=folder / "b.png")
    engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
    clean = tmp_path / "clean"
    clean.mkdir()
    (clean / "b.png").symlink_to(folder / "b.png")
    output = tmp_path / "all.csv"
    assert main(["predict", f"--data={clean}", f"--output={output}", f"--ckpt_path={tmp_path / 'model.ckpt'}"]) == 0
    [expected] = [row for row in predict(build(), folder, tmp_path / "again.csv") if row.path == "b.png"]
    assert pd.read_csv(output).score.tolist() == [pytest.approx(expected.score, abs=1e-6)]


@pytest.mark.slow
def test_two_processes_share_the_photos(build, tiny_arguments, folder, tmp_path):
    alone = predict(build(), folder, tmp_path / "alone.csv")
    arguments = words(tiny_arguments, folder, tmp_path / "shared.csv")
    command = [sys.executable, "-m", "anomalib_aprilgan.cli", *arguments, "--devices=2", "--strategy=ddp"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # two photos cannot be read
    assert "world_size=2" in done.stderr or "MEMBER: 2/2" in done.stderr
    shared = pd.read_csv(tmp_path / "shared.csv")
    assert shared.path.tolist() == [row.path for row in alone]
    assert shared.score.dropna().tolist() == [pytest.approx(row.score, abs=1e-6) for row in alone if not row.error]
