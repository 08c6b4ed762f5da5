# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Precisions by name, and the one that a machine is made for."""

import pytest
import torch

from anomalib_aprilgan.components import precision
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower
from anomalib_aprilgan.components.precision import dtype_of, native_precision

# Matrices of a ViT's blocks; all else stays in float32.
MATRICES = {"in_proj_weight", "in_proj_bias", "out_proj", "c_fc", "c_proj"}


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


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_only_the_matrices_of_a_vit_are_narrow(tiny_backbone, name):
    tower = CLIPTower(CLIPSource.resolve(tiny_backbone, None), 56, [2, 4], name)
    narrow = {key for key, parameter in tower.named_parameters() if parameter.dtype == dtype_of(name)}
    assert narrow == {key for key, _ in tower.named_parameters() if MATRICES & set(key.split("."))}
    assert len(narrow) == 4 * 8  # weights and biases of four matrices in four blocks


def test_a_resnet_is_narrow_as_a_whole(golden_dir):
    tower = CLIPTower(CLIPSource.resolve(str(golden_dir / "tiny_rn.json"), None), 64, [2, 4], "bf16")
    assert {parameter.dtype for parameter in tower.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("trainers", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("models", ["fp32", "bf16"])
def test_a_trainers_precision_is_refused(tiny_backbone, models, trainers):
    tower = CLIPTower(CLIPSource.resolve(tiny_backbone, None), 56, [2, 4], models).to(trainers)
    with pytest.raises(RuntimeError, match=r"turned from .*float32 into .* Leave the trainer's precision at 32"):
        tower(torch.zeros(1, 3, 56, 56))
