# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-aprilgan predict``: anomalib's numbers, each photo once, whatever is killed, broken or shared."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.engine import Engine
from anomalib.pre_processing import PreProcessor
from commands import SOON, Command, none_left_behind
from PIL import Image
from torch.utils.data import DataLoader

from anomalib_aprilgan import AnomalyCLIP, AprilGAN
from anomalib_aprilgan.benchmark.peak_memory import held_host_memory
from anomalib_aprilgan.cli import main
from anomalib_aprilgan.components.interrupts import Stop
from anomalib_aprilgan.prediction import bulk, photos
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
    return predict_folder(lambda: model, folder, output, maps, 2, 0, trainer)


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
    assert list(table.columns) == ["path", "score", "label", "map", "error", "modified"]
    assert table.path.tolist() == sorted([*NAMES, *BROKEN]) == [row.path for row in rows]
    assert table.score.dropna().tolist() == [row.score for row in rows if not row.error]
    broken = table[table.path.isin(BROKEN)]
    assert broken.score.isna().all()
    assert broken.error.str.contains("cannot be read").all()


def test_photos_that_anomalib_passes_over_are_judged_or_told(build, tmp_path):
    Image.new("RGB", (40, 40), "grey").save(tmp_path / "still.GIF")
    (tmp_path / "phone.heic").write_bytes(b"ftypheic")
    (tmp_path / "notes.txt").touch()
    phone, still = predict(build(), tmp_path, tmp_path / "out" / "all.csv")
    assert (still.path, still.error) == ("still.GIF", "")
    assert 0 <= still.score <= 1
    assert phone.path == "phone.heic"
    assert "cannot be read as an image" in phone.error


def count_reads(monkeypatch) -> list[str]:
    read, plain = [], photos.read_squashed

    def reading(path, size):
        read.append(Path(path).name)
        return plain(path, size)

    monkeypatch.setattr(photos, "read_squashed", reading)
    return read


def test_goes_on_after_a_kill_where_it_was(build, folder, tmp_path, monkeypatch):
    whole = predict(build(), folder, tmp_path / "whole.csv")
    plain = Journal.append

    def killed(self, rank, rows):
        plain(self, rank, rows)
        if "b.png" in {row.path for row in rows}:
            part = next(self.path.parent.glob("killed.csv.part-*"))
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


def test_an_error_is_over_when_its_photo_is_removed(build, folder, tmp_path):
    photos_folder = Path(shutil.copytree(folder, tmp_path / "photos"))
    predict(build(), photos_folder, tmp_path / "all.csv")
    for name in (BROKEN[0], NAMES[0]):
        (photos_folder / name).unlink()
    rows = predict(build(), photos_folder, tmp_path / "all.csv")
    assert [row.path for row in rows] == sorted([*NAMES, BROKEN[1]])  # verdicts stay
    assert pd.read_csv(tmp_path / "all.csv").path.tolist() == [row.path for row in rows]


def test_references_are_known_by_their_files_not_by_the_last_bits_of_features(build, folder, tmp_path):
    good = tmp_path / "good"
    good.mkdir()
    shutil.copy(folder / "a.png", good)
    few = {"k_shot": 1, "few_shot_source": good}
    rows = predict(build(**few), folder, tmp_path / "all.csv")
    moved = build(**few)
    moved.setup("predict")
    for features in moved.model.memory_banks.buffers():
        features.add_(1e-6)
    assert predict(moved, folder, tmp_path / "all.csv") == rows
    shutil.copy(folder / "b.png", good / "a.png")
    with pytest.raises(ValueError, match=r"all\.csv was begun with other settings \(references\)\. Name another"):
        predict(build(**few), folder, tmp_path / "all.csv")


def test_a_folder_that_is_closed_is_told(build, folder, tmp_path, monkeypatch):
    look = os.scandir

    def closed(path):
        if Path(path).name == "deep":
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    with monkeypatch.context() as patch:  # root may look everywhere
        patch.setattr(os, "scandir", closed)
        paths = photos.list_photos(folder)
        with pytest.raises(PermissionError, match=r"deep' cannot be looked into: Permission denied\. Give a folder"):
            photos.list_photos(folder / "deep")
    names = {photos.name_of(path, folder) for path in paths}
    assert names == {"a.jpg", "a.png", "b.png", *BROKEN, "deep", "sixteen.png"}
    monkeypatch.setattr(bulk, "list_photos", lambda _: paths)
    rows = {row.path: row for row in predict(build(), folder, tmp_path / "all.csv")}
    assert "deep cannot be read as an image: [Errno 21] Is a directory" in rows["deep"].error
    assert rows["b.png"].score > 0


def test_started_again_reads_only_what_could_not_be_read(build, folder, tmp_path, monkeypatch):
    rows = predict(build(), folder, tmp_path / "all.csv")
    read = count_reads(monkeypatch)
    assert predict(build(), folder, tmp_path / "all.csv") == rows
    assert sorted(read) == BROKEN


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"class_name": "nut"}, "class_name"),
        ({"layers": [2, 4]}, "few_shot_layers, layers"),
        ({"tiles": 2}, "tiles"),
        ({"post_processor": False}, "thresholds"),
        ({"precision": "bf16"}, "precision"),
    ],
)
def test_rows_of_two_models_are_not_mixed(build, tiny_arguments, folder, tmp_path, change, named):
    predict(build(), folder, tmp_path / "all.csv")
    other = AprilGAN(**{"class_name": "bottle", **tiny_arguments, **change})
    with pytest.raises(ValueError, match=rf"all\.csv was begun with other settings \({named}\)\. Name another"):
        predict(other, folder, tmp_path / "all.csv")


def test_maps_cannot_be_asked_for_halfway(build, folder, tmp_path):
    predict(build(), folder, tmp_path / "all.csv")
    with pytest.raises(ValueError, match=r"all\.csv was begun with other settings \(maps\)\. Name another"):
        predict(build(), folder, tmp_path / "all.csv", tmp_path / "maps")


def test_maps_stay_in_one_folder(build, folder, tmp_path):
    predict(build(), folder, tmp_path / "all.csv", tmp_path / "maps")
    with pytest.raises(ValueError, match=r"all\.csv was begun with other settings \(maps\)\. Name another"):
        predict(build(), folder, tmp_path / "all.csv", tmp_path / "elsewhere")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_pipes_are_no_photos(folder, tmp_path):
    shutil.copy(folder / "b.png", tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    assert photos.list_photos(tmp_path) == [tmp_path / "b.png", tmp_path / "gone.png"]


def test_what_the_trainer_refuses_is_one_line(tiny_arguments, folder, tmp_path, capsys):
    assert main([*words(tiny_arguments, folder, tmp_path / "all.csv"), "--devices=0"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_photos_of_another_folder_have_no_verdict_yet(build, folder, tmp_path):
    predict(build(), folder, tmp_path / "all.csv")
    monday = tmp_path / "monday"
    shutil.copytree(folder, monday)
    with pytest.raises(ValueError, match=r"all\.csv was begun with other settings \(data\)\. Name another"):
        predict(build(), monday, tmp_path / "all.csv")


def test_photos_that_no_process_took_are_told_and_judged_by_the_next_start(build, folder, tmp_path, monkeypatch):
    def load_less(paths, *arguments):
        return photos.load_photos(paths[1:], *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(bulk, "load_photos", load_less)
        first, *others = predict(build(), folder, tmp_path / "all.csv")
    told = "Not judged: another process did not see it. Start the same command again."
    assert first == Row("a.jpg", None, None, error=told, modified=int((folder / "a.jpg").stat().st_mtime))
    assert predict(build(), folder, tmp_path / "all.csv")[1:] == others
    assert pd.read_csv(tmp_path / "all.csv").score[0] > 0


def test_without_a_post_processor_there_are_no_labels(build, folder, tmp_path):
    rows = predict(build(post_processor=False), folder, tmp_path / "all.csv")
    assert {row.label for row in rows} == {None}
    assert all(row.error or row.score > 0 for row in rows)


def test_nothing_is_built_for_a_wrong_folder_or_output(folder, tmp_path):
    for data, output in ((tmp_path / "gone", tmp_path / "all.csv"), (folder, tmp_path / "all.txt")):
        with pytest.raises((FileNotFoundError, ValueError), match=r"is no folder|must end in"):
            predict_folder(lambda: pytest.fail("built"), data, output, None, 2, 0, {})


def test_shares_are_all_photos_and_none_twice(monkeypatch):
    monkeypatch.setattr(photos.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(photos.distributed, "get_world_size", lambda: 3)
    for number in (1, 7):
        shares = []
        for rank in range(3):
            monkeypatch.setattr(photos.distributed, "get_rank", lambda rank=rank: rank)
            shares.append(list(photos.Share(number)))
            assert len(photos.Share(number)) == len(shares[-1])
        assert sorted(index for share in shares for index in share) == list(range(number))


def test_tables_of_others_are_left_alone(build, folder, tmp_path):
    (tmp_path / "all.csv").write_text("name,price\nnut,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"all\.csv exists, and all\.csv\.model\.json does not say what made it"):
        predict(build(), folder, tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text(encoding="utf-8") == "name,price\nnut,1\n"


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems want UTF-8")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_names_of_any_bytes(build, folder, tmp_path, suffix):
    photos_folder = tmp_path / "photos"
    photos_folder.mkdir()
    for name in (b"\xff\n.png", "Prüfling, 1.png".encode()):
        Path(os.fsdecode(bytes(photos_folder) + b"/" + name)).symlink_to(folder / "b.png")
    (photos_folder / os.fsdecode(b"\xfe.png")).touch()
    output = tmp_path / f"all{suffix}"
    rows = predict(build(), photos_folder, output)
    assert [(row.path, bool(row.error)) for row in rows] == [
        ("Prüfling, 1.png", False),
        ("\\xfe.png", True),
        ("\\xff\\n.png", False),
    ]
    assert predict(build(), photos_folder, output) == rows


@pytest.mark.parametrize("problem", [IndexError("index out of range"), MemoryError(), struct.error("unpack")])
def test_decoders_may_fail_in_any_way(build, folder, tmp_path, monkeypatch, problem):
    plain = photos.read_squashed

    def failing(path, size):
        if path.name == "b.png":
            raise problem
        return plain(path, size)

    monkeypatch.setattr(photos, "read_squashed", failing)
    rows = {row.path: row for row in predict(build(), folder, tmp_path / "all.csv")}
    assert rows["b.png"].error.startswith(f"{type(problem).__name__}:")
    assert not rows["a.png"].error


class TestArguments:
    def test_unknown_format(self, build, folder, tmp_path):
        with pytest.raises(ValueError, match=r"output='.*all\.xlsx' must end in \.csv or \.parquet"):
            predict(build(), folder, tmp_path / "all.xlsx")

    def test_no_folder(self, build, folder, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"is no folder\. Give a folder of photos"):
            predict(build(), folder / "a.png", tmp_path / "all.csv")

    def test_the_command_says_it_in_a_sentence(self, folder, tmp_path, capsys):
        model = ["--model.backbone=aprilgan-tiny"]
        assert main(["predict", f"--data={folder / 'nowhere'}", f"--output={tmp_path / 'all.csv'}", *model]) == 2
        assert "nowhere' is no folder. Give a folder of photos" in capsys.readouterr().err

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
    assert all(f"No verdict: {name}: " in printed for name in BROKEN)


def test_a_checkpoint_that_is_not_there_is_told(folder, tmp_path, capsys):
    words = ["predict", f"--data={folder}", f"--output={tmp_path / 'all.csv'}", f"--ckpt_path={tmp_path / 'gone.ckpt'}"]
    assert main(words) == 2
    assert "gone.ckpt' is no file. Give a run's " in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"\x89PNG", b"GIF89a", b"hello world\n", b"trainer:\n  devices: 1\n", b""])
@pytest.mark.parametrize("model", [[], ["--model=AprilGAN"]], ids=["", "named"])
def test_a_file_that_is_no_checkpoint_is_told(content, model, folder, tmp_path, capsys):
    (tmp_path / "file").write_bytes(content)
    arguments = [f"--data={folder}", f"--output={tmp_path / 'all.csv'}", f"--ckpt_path={tmp_path / 'file'}", *model]
    assert main(["predict", *arguments]) == 2
    assert re.search(r"error: ckpt_path='.*file' is no checkpoint of ours \(\w+\)\. Give", capsys.readouterr().err)


@pytest.mark.parametrize("option", ["output", "maps"])
def test_folders_that_cannot_be_made_are_told_before_any_work(option, tiny_arguments, folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    output = tmp_path / ("file" if option == "output" else ".") / "all.csv"
    arguments = [*words(tiny_arguments, folder, output), *([f"--maps={tmp_path / 'file'}"] if option == "maps" else [])]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert re.search(rf"error: {option} cannot be written: there is no folder '.*file' and none can be made \(", told)


def stop_after_a_batch(build, photos_folder: Path, output: Path, monkeypatch) -> None:
    plain = Journal.append

    def killed(self, rank, rows):
        plain(self, rank, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            predict(build(), photos_folder, output)


@pytest.mark.parametrize("seconds", [-100, 100], ids=["by an older one", "by one from the future"])
def test_photos_that_were_replaced_are_judged_anew_and_once(build, folder, tmp_path, monkeypatch, seconds):
    photos_folder = Path(shutil.copytree(folder, tmp_path / "photos"))
    before = {row.path: row.score for row in predict(build(), photos_folder, tmp_path / "all.csv")}
    shutil.copyfile(folder / "a.png", photos_folder / "b.png")
    os.utime(photos_folder / "b.png", (time.time() + seconds, time.time() + seconds))
    read = count_reads(monkeypatch)
    after = {row.path: row.score for row in predict(build(), photos_folder, tmp_path / "all.csv")}
    assert sorted(read) == ["b.png", *BROKEN]
    assert after == {**before, "b.png": pytest.approx(before["a.png"], abs=1e-6)}
    assert before["a.png"] != before["b.png"]
    read.clear()
    predict(build(), photos_folder, tmp_path / "all.csv")
    assert sorted(read) == sorted(BROKEN)


def test_a_photo_that_is_replaced_after_a_kill_has_its_own_verdict(build, folder, tmp_path, monkeypatch):
    photos_folder = Path(shutil.copytree(folder, tmp_path / "photos"))
    expected = {row.path: row.score for row in predict(build(), photos_folder, tmp_path / "whole.csv")}
    stop_after_a_batch(build, photos_folder, tmp_path / "all.csv", monkeypatch)
    part = (tmp_path / "all.csv.part-0").read_text(encoding="utf-8")
    assert part.startswith("a.jpg,")
    shutil.copyfile(folder / "b.png", photos_folder / "a.jpg")
    os.utime(photos_folder / "a.jpg", (time.time() + 5, time.time() + 5))
    scores = {row.path: row.score for row in predict(build(), photos_folder, tmp_path / "all.csv")}
    assert (scores["a.jpg"], scores["b.png"]) == (pytest.approx(expected["b.png"], abs=1e-6),) * 2
    assert expected["a.jpg"] != pytest.approx(expected["b.png"], abs=1e-6)


def test_a_changed_photo_that_cannot_be_read_loses_its_verdict(build, folder, tmp_path):
    photos_folder = Path(shutil.copytree(folder, tmp_path / "photos"))
    predict(build(), photos_folder, tmp_path / "all.csv")
    (photos_folder / "b.png").write_bytes(b"no image")
    os.utime(photos_folder / "b.png", (time.time() + 5, time.time() + 5))
    [row] = [row for row in predict(build(), photos_folder, tmp_path / "all.csv") if row.path == "b.png"]
    assert row.score is None
    assert "cannot be read" in row.error


def test_changed_photos_that_were_judged_before_a_kill_are_not_judged_again(build, folder, tmp_path, monkeypatch):
    photos_folder = Path(shutil.copytree(folder, tmp_path / "photos"))
    predict(build(), photos_folder, tmp_path / "all.csv")
    for name in NAMES:
        os.utime(photos_folder / name, (time.time() + 5, time.time() + 5))
    stop_after_a_batch(build, photos_folder, tmp_path / "all.csv", monkeypatch)
    read = count_reads(monkeypatch)
    predict(build(), photos_folder, tmp_path / "all.csv")
    assert len(read) == len(NAMES) + len(BROKEN) - 2  # a batch of two was done


@pytest.mark.skipif(sys.platform == "win32", reason="names may be as long as paths there")
def test_a_map_whose_name_would_be_too_long_is_told_and_not_fatal(build, folder, tmp_path):
    long = tmp_path / "photos" / f"{'long' * 62}.png"  # 252 bytes, of at most 255
    long.parent.mkdir()
    shutil.copyfile(folder / "b.png", long)
    shutil.copyfile(folder / "b.png", long.with_name("short.png"))
    first, second = predict(build(), long.parent, tmp_path / "all.csv", tmp_path / "maps")
    assert (first.score, first.map) == (None, "")
    assert "its map needs a longer name than the photo" in first.error
    assert second.map == "short.png.npy"


def test_a_score_that_is_no_number_is_no_verdict(build, folder, tmp_path, monkeypatch):
    judge = AprilGAN.predict_step

    def overflow(self, batch, *rest):
        judged = judge(self, batch, *rest)
        judged.pred_score[:] = float("nan")
        return judged

    monkeypatch.setattr(AprilGAN, "predict_step", overflow)
    rows = [row for row in predict(build(), folder, tmp_path / "all.csv") if "cannot be" not in row.error]
    assert {(row.score, row.label) for row in rows} == {(None, None)}
    assert all("its score is nan. Half precision may overflow (try precision=fp32)" in row.error for row in rows)


def test_an_error_that_nobody_foresaw_is_not_taken_for_photos_that_cannot_be_read(
    tiny_arguments, folder, tmp_path, monkeypatch, caplog
):
    def fail(*_: object) -> None:
        msg = "token"
        raise KeyError(msg)

    monkeypatch.setattr(AprilGAN, "predict_step", fail)
    assert main(words(tiny_arguments, folder, tmp_path / "all.csv")) == 2
    assert "KeyError: 'token'" in caplog.text


def test_memory_that_runs_out_is_not_taken_for_photos_that_cannot_be_read(
    tiny_arguments, folder, tmp_path, monkeypatch, caplog
):
    def run_out(*_: object) -> None:
        msg = "Tried to allocate 20 GiB"
        raise torch.OutOfMemoryError(msg)

    monkeypatch.setattr(AprilGAN, "predict_step", run_out)
    assert main(words(tiny_arguments, folder, tmp_path / "all.csv")) == 2
    assert "It cannot go on; rows stay. If memory ran out, add --batch_size 1." in caplog.text
    assert "Tried to allocate 20 GiB" in caplog.text


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


def test_a_stop_says_that_the_command_goes_on(tiny_arguments, folder, tmp_path, capsys, monkeypatch):
    def stop(self, rank, rows):
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append", stop)
    assert main(words(tiny_arguments, folder, tmp_path / "all.csv")) == 130
    assert "Stopped. The same command goes on from there." in capsys.readouterr().err


def test_references_among_the_photos_are_told(tiny_arguments, folder, tmp_path, caplog):
    arguments = {**tiny_arguments, "k_shot": 1, "few_shot_source": str(folder / "b.png")}
    main(words(arguments, folder, tmp_path / "all.csv"))
    assert f"1 of 1 references are images under test, {folder / 'b.png'}" in caplog.text


def test_a_full_disk_is_told_and_not_taken_for_photos_that_cannot_be_read(
    tiny_arguments, folder, tmp_path, monkeypatch, capsys
):
    def full(self, rank, rows):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    assert main(words(tiny_arguments, folder, tmp_path / "all.csv")) == 2
    assert capsys.readouterr().err.endswith("error: [Errno 28] No space left on device\n")


@pytest.mark.skipif(sys.platform != "linux", reason="readers are forked, and so patched, there")
def test_a_reader_that_is_killed_is_told(tiny_arguments, folder, tmp_path, monkeypatch, capsys):
    plain = photos.read_squashed

    def killed(path, size):
        if Path(path).name == "b.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(path, size)

    arguments = [
        word.replace("num_workers=0", "num_workers=1") for word in words(tiny_arguments, folder, tmp_path / "all.csv")
    ]
    with monkeypatch.context() as patch:
        patch.setattr(photos, "read_squashed", killed)
        assert main([*arguments, "--batch_size=1"]) == 2
    error = capsys.readouterr().err
    assert re.search(
        r"A process that reads photos was killed \(.*\), perhaps because memory ran out\. Rows stay", error
    )
    assert "Traceback" not in error
    assert main(arguments) == 1  # files that cannot be read are there
    assert pd.read_csv(tmp_path / "all.csv").score.notna().sum() == len(NAMES)


def test_a_killed_reader_of_which_torch_tells_late_is_told(tiny_arguments, folder, tmp_path, monkeypatch, capsys):
    def reset(self, rank, rows):
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    def strike(seconds):
        assert seconds >= 1
        msg = "DataLoader worker (pid 1) is killed by signal: Killed."
        raise RuntimeError(msg)

    monkeypatch.setattr(Journal, "append", reset)
    monkeypatch.setattr(bulk.time, "sleep", strike)
    assert main(words(tiny_arguments, folder, tmp_path / "all.csv")) == 2
    assert "was killed (DataLoader worker (pid 1) is killed by signal: Killed.)" in capsys.readouterr().err


def test_a_signal_that_got_lost_stops_it_after_the_batch(build, folder, tmp_path, monkeypatch):
    stop, plain = Stop(), Journal.append

    def lose(self, rank, rows):
        plain(self, rank, rows)
        with suppress(KeyboardInterrupt):  # as a finalizer does that a signal strikes
            stop()

    monkeypatch.setattr(bulk, "stopped_by_signals", lambda: nullcontext(stop))
    monkeypatch.setattr(Journal, "append", lose)
    with pytest.raises(KeyboardInterrupt):
        predict(build(), folder, tmp_path / "all.csv")
    assert (tmp_path / "all.csv.part-0").read_bytes().count(b"\n") == 2
    assert not (tmp_path / "all.csv").exists()


class TestModels:
    """AprilGAN unless another is named, or lies in the checkpoint."""

    @pytest.fixture
    def prompt_arguments(self, tiny_backbone) -> dict[str, Any]:
        sizes = {"image_size": 56, "layers": [4], "dpam_layers": 2, "prompt_length": 4, "deep_prompt_depth": 1}
        return {"backbone": tiny_backbone, "pretrained": None, "prompt_weights": None, **sizes}

    def test_anomaly_clip_by_its_name(self, prompt_arguments, folder, tmp_path):
        options = [f"--model.{name}={'null' if value is None else value}" for name, value in prompt_arguments.items()]
        output = tmp_path / "all.csv"
        common = [f"--data={folder}", f"--output={output}", "--accelerator=cpu", "--num_workers=0"]
        assert main(["predict", *common, "--model", "AnomalyCLIP", *options]) == 1
        assert pd.read_csv(output).score.notna().sum() == len(NAMES)
        description = json.loads((tmp_path / "all.csv.model.json").read_text(encoding="utf-8"))
        assert (description["model"], description["precision"]) == ("AnomalyCLIP", "float32")

    def test_anomaly_clip_from_its_checkpoint(self, prompt_arguments, folder, tmp_path):
        model = AnomalyCLIP(**prompt_arguments, visualizer=False)
        engine = Engine(default_root_dir=tmp_path, accelerator="cpu")
        [expected] = engine.predict(model, data_path=folder / "b.png")
        engine.trainer.save_checkpoint(tmp_path / "model.ckpt")
        (tmp_path / "clean").mkdir()
        shutil.copy(folder / "b.png", tmp_path / "clean")
        output = tmp_path / "all.csv"
        common = [f"--data={tmp_path / 'clean'}", f"--output={output}", "--accelerator=cpu", "--num_workers=0"]
        assert main(["predict", *common, f"--ckpt_path={tmp_path / 'model.ckpt'}"]) == 0
        assert pd.read_csv(output).score.tolist() == [pytest.approx(expected.pred_score.item(), abs=1e-6)]

    def test_words_of_the_prompts(self, tiny_arguments, folder, tmp_path):
        arguments = {**tiny_arguments, "prompts.normal_states": '["whole {}"]'}
        main(words(arguments, folder, tmp_path / "all.csv"))
        description = json.loads((tmp_path / "all.csv.model.json").read_text(encoding="utf-8"))
        assert description["prompts"]["normal_states"] == ["whole {}"]

    @pytest.mark.parametrize("option", ["--model.clas_name=nut", "--model.k_shot=many", "--model=Padim"])
    def test_what_no_model_takes(self, option, tiny_arguments, folder, tmp_path, capsys):
        with pytest.raises(SystemExit) as done:
            main([*words(tiny_arguments, folder, tmp_path / "all.csv"), option])
        assert done.value.code == 2
        assert "error: " in capsys.readouterr().err


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Command]]:
    """Starts the command in a process of its own, and leaves none of it behind."""
    with none_left_behind() as started:

        def start(arguments: list[str], **environment: str) -> Command:
            started.append(Command(arguments, tmp_path, environment))
            return started[-1]

        yield start


@pytest.fixture
def many(folder, tmp_path) -> Path:
    """A hundred photos."""
    return link_photos(folder, tmp_path / "many", 100)


def link_photos(folder: Path, many: Path, number: int) -> Path:
    many.mkdir()
    for index in range(number):
        (many / f"{index:03}.png").symlink_to(folder / NAMES[index % 2])
    return many


def kill_at_work(start: Callable[..., Command], arguments: list[str], output: Path) -> bytes:
    """Start it on a hundred photos, and kill it after some: the rows that it has written."""
    part = output.with_name(f"{output.name}.part-0")
    process = start(arguments)
    process.wait_for_lines(part, 6)
    process.send(signal.SIGKILL)
    assert process.wait(SOON) == -signal.SIGKILL
    written = part.read_bytes()
    assert written.count(b"\n") < 100
    return written


@pytest.mark.slow
def test_a_killed_process_loses_nothing(start, build, tiny_arguments, many, tmp_path, monkeypatch):
    output = tmp_path / "killed.csv"
    written = kill_at_work(start, [*words(tiny_arguments, many, output), "--batch_size=1"], output).count(b"\n")
    read = count_reads(monkeypatch)
    rows = predict(build(), many, output)
    assert read == [f"{index:03}.png" for index in range(written, 100)]
    assert [row.path for row in rows] == [f"{index:03}.png" for index in range(100)]
    assert [row.score for row in rows] == pytest.approx([rows[0].score, rows[1].score] * 50, abs=1e-6)
    assert rows[0].score != pytest.approx(rows[1].score, abs=1e-4)


def freeze_children(process: Command) -> None:
    """Let them neither work nor answer any more."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split():
        os.kill(int(child), signal.SIGSTOP)


def assert_none_is_left(process: Command) -> None:
    """Of the process, which has ended, and those that it started; the killed ones may take a moment."""
    deadline = time.monotonic() + SOON
    while alive := [group for group, state in groups_and_states() if group == process.pid and state not in "ZX"]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def groups_and_states() -> Iterator[tuple[int, str]]:
    """Of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            yield int(group), state


def assert_goes_on_to_the_same_table(build, many: Path, output: Path) -> None:
    predict(build(), many, output)
    predict(build(), many, output.with_name("undisturbed.csv"))
    resumed, expected = (pd.read_csv(path) for path in (output, output.with_name("undisturbed.csv")))
    assert resumed.score.tolist() == pytest.approx(expected.score.tolist(), abs=1e-6)
    pd.testing.assert_frame_equal(resumed.drop(columns="score"), expected.drop(columns="score"))


@pytest.mark.slow
def test_sigterm_stops_it_at_once_and_loses_nothing(start, build, tiny_arguments, many, tmp_path):
    output, part = tmp_path / "stopped.csv", tmp_path / "stopped.csv.part-0"
    process = start([*words(tiny_arguments, many, output), "--batch_size=1"])
    process.wait_for_lines(part, 5)
    process.send(signal.SIGTERM)
    assert process.wait(SOON) == 130, process.told()
    assert "Stopped. The same command goes on from there." in process.told()
    assert re.search(r"/100 \[\d\d:\d\d<\d\d:\d\d", process.told())  # the time left, into a pipe, too
    assert 5 <= part.read_bytes().count(b"\n") < 100
    assert not output.exists()
    assert_goes_on_to_the_same_table(build, many, output)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds its second process in /proc")
@pytest.mark.parametrize(("rows", "seconds"), [(5, 0), (200, 1)], ids=["at work", "waiting for the other"])
def test_sigterm_leaves_no_second_process(start, build, tiny_arguments, folder, tmp_path, rows, seconds):
    many, output = link_photos(folder, tmp_path / "many", 400), tmp_path / "stopped.csv"
    shared = ["--batch_size=1", "--devices=2", "--strategy=ddp"]
    process = start([*words(tiny_arguments, many, output), *shared])
    process.wait_for_lines(tmp_path / "stopped.csv.part-1", 1)
    freeze_children(process)
    process.wait_for_lines(tmp_path / "stopped.csv.part-0", rows)
    time.sleep(seconds)
    process.send(signal.SIGTERM)
    assert process.wait(SOON) == 130, process.told()
    assert_none_is_left(process)
    assert_goes_on_to_the_same_table(build, many, output)


def meeting_place() -> dict[str, str]:
    """Variables by which two machines, both played by this one, find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


@pytest.mark.slow
def test_sigterm_ends_a_machine_that_waits_for_another(start, tiny_arguments, folder, tmp_path):
    arguments = [*words(tiny_arguments, folder, tmp_path / "all.csv"), "--num_nodes=2", "--devices=1", "--strategy=ddp"]
    process = start(arguments, NODE_RANK="0", **meeting_place())
    process.wait_for_words("Initializing distributed")
    time.sleep(1)  # in a library by now, which waits
    process.send(signal.SIGTERM)
    assert process.wait(SOON) == 130, process.told()


LATE = """
import sys, time
from torch import distributed
distributed.init_process_group("gloo", sys.argv[1], world_size=2, rank=1)
others = distributed.new_group(backend="gloo")
time.sleep(1)
distributed.barrier(others)
"""


@pytest.mark.slow
def test_who_is_done_waits_for_days_but_not_for_the_dead(tmp_path):
    address = (tmp_path / "meeting").as_uri()
    late = subprocess.Popen([sys.executable, "-c", LATE, address])
    torch.distributed.init_process_group("gloo", address, world_size=2, rank=0)
    try:
        others = bulk._call_others()
        assert others._get_backend(torch.device("cpu")).options._timeout >= timedelta(days=1)
        bulk._wait_for(others, Stop())
        assert late.wait(SOON) == 0
        with pytest.raises(ConnectionError, match=r"A process that shares the photos is gone \(.*Rows stay"):
            bulk._wait_for(others, Stop())
    finally:
        torch.distributed.destroy_process_group()


def start_two(start: Callable[..., Command], arguments: list[str], split: str) -> list[Command]:
    """Two processes, of which Lightning starts the second; or two machines with one each, both played by this one."""
    shared = [*arguments, split, "--strategy=ddp"]
    if split == "--devices=2":
        return [start(shared)]
    meeting = meeting_place()
    return [start([*shared, "--devices=1"], NODE_RANK=rank, **meeting) for rank in "01"]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["--devices=2", "--num_nodes=2"])
def test_two_processes_share_the_photos(start, build, tiny_arguments, folder, tmp_path, split):
    alone = predict(build(), folder, tmp_path / "alone.csv")
    processes = start_two(start, words(tiny_arguments, folder, tmp_path / "shared.csv"), split)
    first, *others = [process.wait() for process in processes]
    told = "".join(process.told() for process in processes)
    assert first == 1, told  # two photos cannot be read
    assert others == [0] * len(others), told
    assert "MEMBER: 2/2" in told
    shared = pd.read_csv(tmp_path / "shared.csv")
    assert shared.path.tolist() == [row.path for row in alone]
    assert shared.score.dropna().tolist() == [pytest.approx(row.score, abs=1e-6) for row in alone if not row.error]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["--devices=2", "--num_nodes=2"])
def test_more_processes_than_photos(start, tiny_arguments, folder, tmp_path, split):
    (tmp_path / "one").mkdir()
    shutil.copy(folder / "b.png", tmp_path / "one")
    arguments = words(tiny_arguments, tmp_path / "one", tmp_path / "all.csv")
    for process in start_two(start, arguments, split):
        assert process.wait() == 0, process.told()
    assert pd.read_csv(tmp_path / "all.csv").path.tolist() == ["b.png"]


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_killed(start, build, tiny_arguments, many, tmp_path):
    output = tmp_path / "killed.csv"
    arguments = [*words(tiny_arguments, many, output), "--batch_size=1"]
    written = kill_at_work(start, arguments, output)
    processes = start_two(start, arguments, "--num_nodes=2")
    second = processes[1].wait_for_lines(tmp_path / "killed.csv.part-1", 1)
    first = processes[0].wait_for_lines(tmp_path / "killed.csv.part-0", len(written.splitlines()) + 1)
    # Not what was done before the kill, nor what the other does: its next photo would else be the same.
    paths, others = ({line.split(b",")[0] for line in lines.splitlines()} for lines in (second, first))
    assert not paths & others
    assert [process.wait() for process in processes] == [0, 0], processes[0].told()
    assert_goes_on_to_the_same_table(build, many, output)


@pytest.mark.slow
def test_memory_stays_flat_over_five_thousand_photos(tiny_arguments, folder, tmp_path, monkeypatch):
    many = tmp_path / "many"
    many.mkdir()
    for index in range(5000):
        (many / f"{index:04}.png").symlink_to(folder / "b.png")
    held, plain = {}, Journal.append

    def watch(self, rank, rows):
        plain(self, rank, rows)
        held[int(Path(rows[-1].path).stem) + 1] = held_host_memory()

    monkeypatch.setattr(Journal, "append", watch)
    model = AprilGAN("bottle", **{**tiny_arguments, "image_size": 28})
    rows = predict_folder(lambda: model, many, tmp_path / "all.csv", None, 10, 0, {"accelerator": "cpu"})
    assert len(rows) == 5000
    growth = (held[5000] - held[1000]) / 4000
    assert growth < 300  # bytes a photo; its row alone, were it kept, would take more
