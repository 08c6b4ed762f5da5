# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Files of trained parts say what they belong to."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anomalib_aprilgan.components.trained_file import TrainedWith, read_trained, write_trained


def test_file_comes_back_as_it_was_written(tmp_path):
    said = TrainedWith("ViT-B-16", None, quick_gelu=False, layers=(3, 6), image_size=240, trained_on="Visa/candle")
    write_trained(tmp_path / "new" / "part.safetensors", {"part": torch.arange(3.0)}, said)
    tensors, trained_with = read_trained(tmp_path / "new" / "part.safetensors")
    assert trained_with == said
    assert tensors.keys() == {"part"}
    assert tensors["part"].tolist() == [0, 1, 2]


def test_remarks_of_other_tools_do_not_matter(tmp_path):
    save_file({"part": torch.zeros(1)}, tmp_path / "part.safetensors", metadata={"format": "pt"})
    assert read_trained(tmp_path / "part.safetensors")[1] == TrainedWith()


def test_other_backbone_is_refused():
    with pytest.raises(ValueError, match=r"part was trained with backbone 'ViT-B-16', the model uses 'RN50'\."):
        TrainedWith("ViT-B-16").check_backbone("RN50", Path("part"))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(None, "RN50"), ("ViT-L/14", "ViT-L-14"), ("a.json", "b.json"), ("ViT-B-16", "b.json")],
)
def test_backbones_that_may_be_the_same_are_not_refused(theirs, ours):
    TrainedWith(theirs).check_backbone(ours, Path("part"))
    assert TrainedWith(theirs).backbone == theirs
