# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Models and datamodules by name or path, built from plain data, and told apart from mistakes before anything runs."""

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

# What anomalib does not have, or not fit for comparisons.
OUR_NAMES = {
    "CLIP": "anomalib_aprilgan.benchmark.plain_clip.clip",
    "CLIP-AC": "anomalib_aprilgan.benchmark.plain_clip.clip_ac",
    "Padim": "anomalib_aprilgan.benchmark.padim.BenchmarkPadim",
    "Patchcore": "anomalib_aprilgan.benchmark.patchcore.BenchmarkPatchcore",
    "RenderedProducts": "anomalib_aprilgan.demo.RenderedProducts",
    "WinClip": "anomalib_aprilgan.benchmark.winclip.BenchmarkWinClip",
}


class PlanError(ValueError):
    """A benchmark that cannot be run as it was asked for."""


def find_class(class_path: str, home: Any) -> Any:  # ruff: ignore[any-type] - a module, and a class or function in it
    """Find a class or function by its path, or by its name among ours or in anomalib.

    Anomalib's WinClip, Padim and Patchcore are those made fit for comparisons, by whatever path.

    Raises:
        PlanError: If there is none.
    """
    module_name, _, name = OUR_NAMES.get(class_path, class_path).rpartition(".")
    try:
        found = getattr(import_module(module_name) if module_name else home, name)
    except (ImportError, AttributeError, TypeError) as error:  # the last of a path that begins with a dot
        names = [name for name in vars(home) if not name.startswith("_")]
        hint = suggest(class_path, [*names, *OUR_NAMES])
        msg = (
            f"class_path={class_path!r} is not found: {error}.{hint} "
            f"Give a name of {home.__name__}, or package.module.Name of any other class."
        )
        raise PlanError(msg) from error
    if not callable(found):
        msg = f"class_path={class_path!r} is a {type(found).__name__}, expected a class or a function."
        raise PlanError(msg)
    is_stock = str(getattr(found, "__module__", "")).startswith("anomalib.models")
    return find_class(name, home) if is_stock and name in OUR_NAMES else found


def suggest(name: str, known: Iterable[str]) -> str:
    """A question whether a name like this was meant, or nothing.

    Example:
        >>> suggest("bakbone", ["backbone", "layers"])
        ' Did you mean backbone?'
    """
    alike = get_close_matches(name.rpartition(".")[2], list(dict.fromkeys(known)), n=1)
    return f" Did you mean {alike[0]}?" if alike else ""


def check_arguments(owner: str, build: Any, arguments: Mapping[str, Any]) -> None:  # ruff: ignore[any-type] - likewise
    """Refuse arguments that a class or function does not take, or lacks.

    Args:
        owner: What the plan calls it.
        build: The class or function.
        arguments: All that it will get.

    Raises:
        PlanError: If it would refuse them.
    """
    signature = inspect.signature(build)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    known = ", ".join(signature.parameters)
    # First of all: a name that is misspelt is missing, too, and being told so would lead astray.
    if unknown := [name for name in arguments if name not in signature.parameters and not takes_any]:
        hints = "".join(suggest(name, signature.parameters) for name in unknown)
        msg = f"{owner}: {build.__name__} does not take {', '.join(unknown)}.{hints} Its arguments are {known}."
        raise PlanError(msg)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        msg = f"{owner}: {build.__name__}: {error}. Its arguments are {known}."
        raise PlanError(msg) from error


def build_values(values: Any) -> Any:  # ruff: ignore[any-type] - plain data of a YAML file
    """Values of arguments, where each mapping with a ``class_path`` becomes an instance, as in anomalib's own configs.

    Example:
        >>> build_values({"size": [1, {"class_path": "fractions.Fraction", "init_args": {"numerator": 2}}]})
        {'size': [1, Fraction(2, 1)]}
    """
    if isinstance(values, list):
        return [build_values(value) for value in values]
    if not isinstance(values, dict):
        return values
    if "class_path" in values and values.keys() <= {"class_path", "init_args"}:
        module_name, _, name = values["class_path"].rpartition(".")
        return getattr(import_module(module_name), name)(**build_values(values.get("init_args", {})))
    return {name: build_values(value) for name, value in values.items()}
