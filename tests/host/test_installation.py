# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What the wheel puts where, and what it leaves behind."""

import zipfile
from pathlib import Path

import pytest
from host_environment import REPOSITORY, Environment

pytestmark = pytest.mark.host

HOOK_FILES = {"_anomalib_aprilgan_hook.py", "_anomalib_aprilgan_hook.pth"}


@pytest.fixture
def plain(wheel: Path, tmp_path: Path) -> Environment:
    """An environment with nothing but the wheel: no anomalib, no torch."""
    environment = Environment.create(tmp_path / "plain")
    environment.pip("install", "--no-deps", wheel)
    return environment


def test_the_wheel_adds_two_files_to_the_root_of_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        roots = {name.split("/")[0] for name in names}
        hook = archive.read("_anomalib_aprilgan_hook.py")
        weights = sum(file.compress_size for file in archive.infolist() if "/embedded/" in file.filename)
        (declared,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/entry_points.txt"))
    assert {root for root in roots if not root.endswith(".dist-info")} == {"anomalib_aprilgan", *HOOK_FILES}
    assert sum(name.endswith(".pth") for name in names) == 1
    assert 1_000_000 < weights < 12_000_000
    assert hook == (REPOSITORY / "anomalib_aprilgan" / "host" / "hook.py").read_bytes()
    models = declared.split("[anomalib.models]\n")[1].split("\n\n")[0].splitlines()
    assert "aprilgan = anomalib_aprilgan:AprilGAN" in models


def test_the_editable_installation_adds_them_too(editable: Environment) -> None:
    assert {file.name for file in editable.site_packages.iterdir()} >= HOOK_FILES
    assert not (editable.site_packages / "anomalib_aprilgan").exists()


def test_without_anomalib_python_starts_in_peace(plain: Environment) -> None:
    code = "import sys; print(sum(hasattr(finder, 'plugin_group') for finder in sys.meta_path))"
    done = plain.run("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    assert plain.run("-S", "-c", code).stdout == "0\n"
    assert plain.run("-I", "-c", code).stdout == "1\n"
    assert plain.run("-c", code, ANOMALIB_MODEL_PLUGINS="0").stdout == "0\n"


def test_uninstallation_leaves_nothing(plain: Environment) -> None:
    untouched = Environment.create(plain.folder.parent / "untouched")
    assert {file.name for file in plain.files() - untouched.files()} >= HOOK_FILES
    plain.pip("uninstall", "--yes", "anomalib-aprilgan")
    assert plain.files() == untouched.files()
    done = plain.run("-c", "import sys; print('_anomalib_aprilgan_hook' in sys.modules)")
    assert (done.stdout, done.stderr) == ("False\n", "")
