# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Precisions by name, and the one that a machine is made for."""

import pytest
import torch

from anomalib_aprilgan.components import precision
from anomalib_aprilgan.components.precision import dtype_of, native_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 avx512_bf16 sse", torch.bfloat16),
        ("amx_bf16", torch.bfloat16),
        ("avx2 avx512f", torch.float32),
    ],
)
def test_auto_is_what_the_processor_does(monkeypatch, tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"model name : any\nflags : {flags}\n", encoding="utf-8")
    monkeypatch.setattr(precision, "PROCESSOR", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert dtype_of("auto") == expected


def test_auto_is_full_precision_where_nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "PROCESSOR", tmp_path / "none")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert native_precision() == "fp32"


def test_auto_is_fp16_with_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert native_precision() == "fp16"


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision='int8' is unknown, expected one of fp32, bf16, fp16 or auto"):
        dtype_of("int8")
