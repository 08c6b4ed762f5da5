# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Published files come from a mirror, are verified, and are not asked for twice; else the error says what to do."""

import hashlib
from pathlib import Path

import pytest

from anomalib_aprilgan.components.published_files import PublishedFile, PublishedFileNotFoundError

CONTENT = b"prompts"
BLOB = hashlib.sha1(b"blob %d\0%s" % (len(CONTENT), CONTENT), usedforsecurity=False).hexdigest()


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file as it should be, in a folder that a mirror's address leads to."""
    path = tmp_path / "mirror" / "run" / "file.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    monkeypatch.setenv("MIRROR", f"{(tmp_path / 'mirror').as_uri()}/")
    for variable in ("ANOMALIB_APRILGAN_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    return path


@pytest.fixture
def file() -> PublishedFile:
    return PublishedFile(
        title="Prompts 'visa'",
        argument="prompt_weights=PATH",
        folder="http://authors.invalid",
        path="run/file.pth",
        cached_as="prompts/run_file.pth",
        blob=BLOB,
        mirror_variable="MIRROR",
    )


def test_fetched_once_and_kept_in_the_cache(file, mirror, cache_folder):
    assert file.find() is None
    assert file.fetch() == cache_folder / "prompts" / "run_file.pth"
    mirror.unlink()
    assert file.fetch().read_bytes() == CONTENT
    assert file.find() == file.fetch()


def test_another_file_is_refused(file, mirror):
    mirror.write_bytes(b"others")
    with pytest.raises(PublishedFileNotFoundError, match=f"expected git blob {BLOB}"):
        file.fetch()
    assert file.find() is None


@pytest.mark.parametrize("variable", ["ANOMALIB_APRILGAN_OFFLINE", "HF_HUB_OFFLINE"])
def test_forbidden_network_is_not_used(file, mirror, cache_folder, variable, monkeypatch):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(PublishedFileNotFoundError) as caught:
        file.fetch()
    for remedy in (
        f"{variable} forbids the network",
        "http://authors.invalid/run/file.pth",
        str(cache_folder / "prompts" / "run_file.pth"),
        "prompt_weights=PATH",
        "mirror in MIRROR",
    ):
        assert remedy in str(caught.value)


def test_damaged_file_in_the_cache_is_fetched_anew(file, mirror):
    file.fetch().write_bytes(b"cut")
    assert file.find() is None
    assert file.fetch().read_bytes() == CONTENT
