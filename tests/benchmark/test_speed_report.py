# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-aprilgan speed`` tells each part at once, so that no later one can take it away."""

import json
import re

import pytest

from anomalib_aprilgan import cli
from anomalib_aprilgan.benchmark import speed
from anomalib_aprilgan.benchmark.speed_report import SpeedReport
from anomalib_aprilgan.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")

SETTINGS = {"settings": {"threads": 1}}
FIRST = {"tower_seconds": 2.0, "ratio_zero_shot": 1.25, "spread": {"zero_shot": [1.0, 1.5]}}
SECOND = {"ratio_predict": 2.0, "spread": {"predict": [1.5, 2.5]}, "tower_peak_bytes": 7}


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


class TestReport:
    def test_parts_add_up_in_the_file_and_are_told_once(self, tmp_path):
        path = tmp_path / "new" / "speed.json"
        report = SpeedReport(path)
        report.add(SETTINGS)
        assert [line.split() for line in report.add(FIRST).splitlines()] == [
            ["tower_seconds", "2.000"],
            ["ratio_zero_shot", "1.250", "(1.000", "to", "1.500)"],
        ]
        assert read(path) == {**SETTINGS, **FIRST}
        assert [line.split()[:2] for line in report.add(SECOND).splitlines()] == [
            ["ratio_predict", "2.000"],
            ["tower_peak_bytes", "7"],
        ]
        both = {"spread": {**FIRST["spread"], **SECOND["spread"]}}
        assert read(path) == {**SETTINGS, **FIRST, **SECOND, **both}
        assert list(path.parent.iterdir()) == [path]  # nothing is left of the writing

    def test_earlier_results_stay_until_something_is_measured(self, tmp_path):
        path = tmp_path / "speed.json"
        path.write_text("earlier")
        assert not SpeedReport(path).add(SETTINGS)
        assert path.read_text() == "earlier"

    def test_no_file_is_asked_for(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert SpeedReport(None).add(FIRST)
        assert not list(tmp_path.iterdir())

    def test_a_file_that_cannot_be_written_is_told_at_once(self, tmp_path):
        (tmp_path / "file").touch()
        for path, reason in (
            (tmp_path, "it is a folder"),
            (tmp_path / "file" / "speed.json", f".*{re.escape(str(tmp_path / 'file'))}"),
        ):
            told = f"json={re.escape(repr(str(path)))} cannot be written: {reason}.* Give a file such as"
            with pytest.raises(ValueError, match=told):
                SpeedReport(path)

    def test_the_command_tells_it_before_any_work(self, tiny_backbone, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(speed, "measure_speed", None)
        assert main(["speed", f"--backbone={tiny_backbone}", f"--json={tmp_path}"]) == 2
        assert capsys.readouterr().err.startswith(f"error: json='{tmp_path}' cannot be written: it is a folder.")


class TestStops:
    """The text part, which comes after the verdicts, never ends well."""

    @pytest.fixture
    def run(self, tiny_backbone, tmp_path, monkeypatch):
        path = tmp_path / "speed.json"

        def with_text(measure):
            monkeypatch.setattr(speed, "measure_text", measure)
            options = ["--image_size=28", "--layers=[2,4]", "--repeats=1", "--threads=1", f"--json={path}"]
            return main(["speed", f"--backbone={tiny_backbone}", "--parts=[text,shots]", *options])

        return path, with_text

    def test_earlier_parts_are_there_when_a_later_one_begins(self, run, capsys):
        path, with_text = run
        seen = []

        def measure(source, repeats):
            seen.append((read(path), capsys.readouterr().out))
            return {"text_warm_seconds": 0.5}

        assert with_text(measure) == 0
        [(written, printed)] = seen
        for name in ("tower_seconds", "ratio_zero_shot", "ratio_few_shot_16", "arithmetic_few_shot"):
            assert name in written
            assert printed.count(f"{name} ") == 1
        assert written["spread"].keys() == {"zero_shot", "few_shot", "few_shot_1", "few_shot_16"}
        assert read(path) == {**written, "text_warm_seconds": 0.5}

    def test_ctrl_c_leaves_what_was_measured(self, run, capsys):
        path, with_text = run

        def stop(source, repeats):
            raise KeyboardInterrupt

        assert with_text(stop) == 130
        assert read(path)["ratio_zero_shot"] > 0
        out, err = capsys.readouterr()
        assert "ratio_zero_shot" in out
        assert err == "Stopped. What was measured before stays.\n"

    @pytest.mark.parametrize("error", [RuntimeError("no memory"), SystemExit(3)])
    def test_crashes_too_and_are_not_hidden(self, run, error):
        path, with_text = run

        def crash(source, repeats):
            raise error

        with pytest.raises(type(error), match=str(error)):
            with_text(crash)
        assert read(path)["ratio_zero_shot"] > 0


def test_every_part_is_flushed_also_into_a_pipe(monkeypatch, tiny_backbone):
    calls = []

    class Pipe:
        def write(self, text):
            calls.append(text)

        def flush(self):
            calls.append("flush")

    monkeypatch.setattr(speed, "measure_speed", lambda *_: iter([FIRST, SECOND]))
    monkeypatch.setattr(cli.sys, "stdout", Pipe())
    assert cli.speed(tiny_backbone, 28, [2, 4]) == 0
    assert [call == "flush" for call in calls] == [False, True, False, True]
