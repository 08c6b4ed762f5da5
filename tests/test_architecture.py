# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Arrows between the parts of the package go one way, and its files keep their form."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "anomalib_aprilgan"  # the checkout: an installation lays the hook elsewhere
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
HEADER = ["# Copyright (C) 2026 The anomalib-aprilgan developers", "# SPDX-License-Identifier: Apache-2.0"]
LONGEST_FILE = 340

# Parts of our own package, besides itself, that a part may import.
ALLOWED_PARTS = {
    "host": set(),
    "components": set(),
    "data": {"components"},
    "detection": {"components", "data"},
    "april_gan": {"components", "data", "detection"},
    "demo": {"components", "data", "april_gan", "anomaly_clip"},
    "anomaly_clip": {"components", "data", "detection"},
    "prediction": {"components", "data", "detection", "april_gan", "anomaly_clip"},
    "findings": {"components"},
    "trained_parts": {"components", "april_gan", "anomaly_clip", "findings"},
    "doctor": {"components", "host", "findings", "trained_parts", "AprilGAN", "AprilGANModel"},  # as a user sees them
    "benchmark": {"components", "data", "detection", "april_gan", "anomaly_clip", "demo", "host", "doctor"},
}
# Other packages, besides the standard library, that a part may import; parts that are not named may import any.
ALLOWED_PACKAGES = {
    "host": {"_anomalib_aprilgan_hook"},  # the hook under the name that it is installed by
    "components": {"torch", "torchvision", "open_clip", "huggingface_hub", "filelock", "safetensors"},
}


def part_of(module: str) -> str:
    """Folder of a file in the package; the file's own name at the top."""
    return module.split("/", maxsplit=1)[0].removesuffix(".py")


def imports(source: str, module: str) -> Iterator[str]:
    """Names of all modules that a file imports anywhere, ours written in full."""
    package = ["anomalib_aprilgan", *Path(module).parent.parts]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def own_parts(source: str, module: str) -> set[str]:
    """Parts of our package that a file imports."""
    names = [name.split(".") for name in imports(source, module)]
    return {name[1] for name in names if name[0] == "anomalib_aprilgan" and len(name) > 1}


def other_packages(source: str, module: str) -> set[str]:
    """Packages that a file imports, without ours and the standard library."""
    names = {name.split(".")[0] for name in imports(source, module)}
    return names - {"anomalib_aprilgan"} - sys.stdlib_module_names


def read(module: str) -> str:
    return (PACKAGE / module).read_text(encoding="utf-8")


def test_imports_are_found_in_every_form():
    source = """
import os, torch.nn as nn
from . import sibling
from .sibling import name
from ..data.image_files import name
from anomalib_aprilgan.components import name
def function():
    import anomalib_aprilgan.host.hook
    from PIL import Image
"""
    assert own_parts(source, "april_gan/module.py") == {"april_gan", "data", "components", "host"}
    assert own_parts("from .april_gan import AprilGAN", "__init__.py") == {"april_gan"}
    assert other_packages(source, "april_gan/module.py") == {"torch", "PIL"}


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in ALLOWED_PARTS])
def test_parts_import_only_those_below_them(module):
    part = part_of(module)
    assert own_parts(read(module), module) <= ALLOWED_PARTS[part] | {part}


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in ALLOWED_PACKAGES])
def test_parts_import_only_the_packages_that_are_theirs(module):
    assert other_packages(read(module), module) <= ALLOWED_PACKAGES[part_of(module)]


def test_start_up_hook_imports_nothing_but_the_standard_library():
    source = read("host/hook.py")
    assert other_packages(source, "host/hook.py") == own_parts(source, "host/hook.py") == set()


def test_rules_name_parts_that_exist():
    assert ALLOWED_PARTS.keys() | ALLOWED_PACKAGES.keys() <= {part_of(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_no_module_prints(module):
    calls = [node.func for node in ast.walk(ast.parse(read(module))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"]


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_long_or_lies_deep_or_is_a_box_for_anything(module):
    assert len(read(module).splitlines()) <= LONGEST_FILE
    assert module.count("/") <= 1
    assert Path(module).stem not in {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", sorted([*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py")]), ids=lambda path: path.name)
def test_every_file_begins_with_copyright_and_licence(path):
    assert path.read_text(encoding="utf-8").splitlines()[:2] == HEADER
