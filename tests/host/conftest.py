# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Environments in which this package is installed, and what the tests need to use it there."""

import sys
from pathlib import Path

import numpy as np
import pytest
from host_environment import REPOSITORY, Environment, call
from PIL import Image


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    done = call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def from_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel."""
    environment = Environment.create(tmp_path_factory.mktemp("from_wheel"))
    environment.pip("install", "--no-deps", wheel)
    environment.show_outer_libraries()
    return environment


@pytest.fixture(scope="session")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with an editable installation of this checkout."""
    environment = Environment.create(tmp_path_factory.mktemp("editable"))
    environment.show_outer_libraries()
    # An installation in the outer environment must not count as this one.
    environment.pip("install", "--no-deps", "--no-build-isolation", "--ignore-installed", "--editable", REPOSITORY)
    return environment


@pytest.fixture(params=["from_wheel", "editable"])
def installed(request: pytest.FixtureRequest) -> Environment:
    """Either installation."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few good and bad images."""
    folder = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(0)
    for kind, count in (("good", 6), ("bad", 2)):
        (folder / kind).mkdir()
        for index in range(count):
            pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{index}.png")
    return folder
