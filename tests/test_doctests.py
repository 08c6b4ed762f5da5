# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The examples in docstrings do what they say, in the package as it is installed."""

import doctest
import importlib
import pkgutil

import pytest

import anomalib_aprilgan

MODULES = sorted(module.name for module in pkgutil.walk_packages(anomalib_aprilgan.__path__, "anomalib_aprilgan."))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_examples_are_found():
    assert "anomalib_aprilgan.april_gan.memory_bank" in MODULES
    attempted = doctest.testmod(importlib.import_module("anomalib_aprilgan.april_gan.memory_bank")).attempted
    assert attempted > 0
