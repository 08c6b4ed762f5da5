# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Files of trained parts say what they belong to."""

import os
from pathlib import Path
from stat import S_IMODE

import pytest
import torch
from safetensors.torch import save_file

from anomalib_aprilgan.anomaly_clip.learned_prompts import LearnedPrompts
from anomalib_aprilgan.april_gan.adapters import StageAdapters
from anomalib_aprilgan.components.trained_file import TrainedWith, read_trained, write_trained


def test_file_comes_back_as_it_was_written(tmp_path):
    said = TrainedWith("ViT-B-16", None, quick_gelu=False, layers=(3, 6), image_size=240, trained_on="Visa/candle")
    write_trained(tmp_path / "new" / "part.safetensors", {"part": torch.arange(3.0)}, said)
    tensors, trained_with = read_trained(tmp_path / "new" / "part.safetensors")
    assert trained_with == said
    assert tensors.keys() == {"part"}
    assert tensors["part"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
@pytest.mark.parametrize("part", [LearnedPrompts(8, 2, 1, 2), StageAdapters([4], 2)], ids=["prompts", "adapters"])
def test_who_may_read_it_is_for_the_umask_to_say(part, umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        part.save(tmp_path / "part.safetensors", TrainedWith())
    finally:
        os.umask(before)
    assert S_IMODE((tmp_path / "part.safetensors").stat().st_mode) == mode


def test_remarks_of_other_tools_do_not_matter(tmp_path):
    save_file({"part": torch.zeros(1)}, tmp_path / "part.safetensors", metadata={"format": "pt"})
    assert read_trained(tmp_path / "part.safetensors")[1] == TrainedWith()


def test_other_backbone_is_refused():
    with pytest.raises(ValueError, match=r"part was trained with backbone 'ViT-B-16', the model uses 'RN50'\. Take"):
        TrainedWith("ViT-B-16").check_backbone("RN50", Path("part"))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (None, "RN50"),
        ("ViT-L/14", "ViT-L-14"),
        ("ViT-L-14", "ViT-L-14-quickgelu"),
        ("ViT-L-14-quickgelu", "ViT-L/14"),
        ("a.json", "b.json"),
        ("ViT-B-16", "b.json"),
    ],
)
def test_backbones_that_may_be_the_same_are_not_refused(theirs, ours):
    TrainedWith(theirs).check_backbone(ours, Path("part"))
    assert TrainedWith(theirs).backbone == theirs
