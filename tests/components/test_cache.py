# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The cache folder is where it is said to be, its files are whole or absent, and nothing depends on it."""

import threading
from pathlib import Path

import pytest

from anomalib_aprilgan.components.cache import cache_dir, write_atomically, write_cache_entry


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [
        ("/data/own", "/data/xdg", "/data/own"),
        ("~/own", None, "/home/somebody/own"),
        ("", "/data/xdg", "/data/xdg/anomalib-aprilgan"),
        (None, "/data/xdg", "/data/xdg/anomalib-aprilgan"),
        (None, "", "/home/somebody/.cache/anomalib-aprilgan"),
        (None, None, "/home/somebody/.cache/anomalib-aprilgan"),
    ],
)
def test_cache_lies_where_the_environment_says(monkeypatch, own, xdg, expected):
    monkeypatch.setenv("HOME", "/home/somebody")
    for variable, value in (("ANOMALIB_APRILGAN_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, value)
    assert cache_dir() == Path(expected)


def test_asking_for_the_cache_creates_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("ANOMALIB_APRILGAN_CACHE", str(tmp_path / "cache"))
    assert not cache_dir().exists()


def test_file_is_written_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for content in (b"first", b"second"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def interrupt(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_readers_never_see_a_half_written_file(tmp_path):
    path = tmp_path / "file"
    contents = {bytes([letter]) * 100_000 for letter in b"abcd"}
    write_atomically(path, min(contents))

    def write(content: bytes) -> None:
        for _ in range(20):
            write_atomically(path, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in contents
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_write_error_is_an_error_for_files_that_are_wanted(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_atomically(tmp_path / "file" / "entry", b"content")


def test_write_error_is_a_warning_for_entries_of_the_cache(tmp_path, caplog):
    (tmp_path / "file").touch()
    write_cache_entry(tmp_path / "file" / "entry", b"content")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "going on without this cache entry" in record.message
