# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Adapter files: ours and the authors', and why any other is refused."""

import hashlib
import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anomalib_aprilgan.april_gan import adapters
from anomalib_aprilgan.april_gan.adapters import (
    PUBLISHED,
    AdapterFile,
    AdapterMetadata,
    ProjectionAdapters,
    StageAdapters,
    read_adapters,
)
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower

METADATA = AdapterMetadata("ViT-B-16", "openai", quick_gelu=True, layers=(3, 6), image_size=336, trained_on="visa")
# A pickle of a function: more than tensors, so that torch refuses it.
PICKLE = b"\x80\x02cbuiltins\nprint\n."


def weights_of(*shapes: tuple[int, int]) -> dict[str, torch.Tensor]:
    layers = nn.ModuleList(nn.Linear(width, embed_dim) for embed_dim, width in shapes)
    return {f"fc.{name}": tensor for name, tensor in layers.state_dict().items()}


class TestLinearMaps:
    def test_each_stage_has_its_own_map(self):
        stages = StageAdapters(widths=[2, 3], embed_dim=1)
        stages.load_state_dict({
            "fc.0.weight": torch.tensor([[1.0, 10.0]]),
            "fc.0.bias": torch.tensor([0.5]),
            "fc.1.weight": torch.tensor([[1.0, 1.0, 1.0]]),
            "fc.1.bias": torch.tensor([0.0]),
        })
        assert stages(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), 0).tolist() == [[[21.5], [43.5]]]
        assert stages(torch.ones(1, 1, 3), 1).tolist() == [[[3.0]]]

    def test_adapters_that_wait_for_a_checkpoint_are_known_and_become_usable_with_it(self):
        waiting = StageAdapters.awaiting_weights([2, 3], 4)
        assert not waiting.training
        assert not waiting.is_loaded
        waiting.load_state_dict(StageAdapters([2, 3], 4).state_dict())
        assert waiting.is_loaded

    def test_one_missing_map_is_enough_not_to_be_loaded(self):
        stages = StageAdapters([2, 3], 4)
        stages.fc[1].bias.data[2] = torch.nan
        assert not stages.is_loaded


class TestProjection:
    def test_stand_in_is_clips_own_norm_and_projection(self, tiny_backbone):
        tower = CLIPTower(CLIPSource.resolve(tiny_backbone, None), 56, [2, 4])
        stand_in = ProjectionAdapters(tower)
        for place, stage in enumerate(tower(torch.randn(2, 3, 56, 56)).stages):
            torch.testing.assert_close(stand_in(stage, place), tower.visual.ln_post(stage) @ tower.visual.proj)

    def test_stand_in_holds_no_weights_of_its_own(self, tiny_backbone):
        tower = CLIPTower(CLIPSource.resolve(tiny_backbone, None), 56, [2])
        assert ProjectionAdapters(tower).state_dict() == {}

    def test_resnet_has_no_stand_in(self, golden_dir):
        tower = CLIPTower(CLIPSource.resolve(str(golden_dir / "tiny_rn.json"), None), 64, [2])
        with pytest.raises(ValueError, match="A ResNet backbone cannot localise without trained adapters"):
            ProjectionAdapters(tower)


class TestFiles:
    @pytest.mark.parametrize(
        "metadata",
        [METADATA, AdapterMetadata(), AdapterMetadata(quick_gelu=False), AdapterMetadata(trained_on="Nüsse „neu“")],
        ids=["all", "none", "false", "other letters"],
    )
    def test_what_is_saved_is_read_again(self, tmp_path, metadata):
        saved = StageAdapters([4, 5], 3)
        saved.save(tmp_path / "folder" / "adapters.safetensors", metadata)
        file = read_adapters(tmp_path / "folder" / "adapters.safetensors")
        assert file.metadata == metadata
        built = file.build(METADATA.layers, [4, 5], 3)
        assert not built.training
        for name, tensor in saved.state_dict().items():
            assert torch.equal(built.state_dict()[name], tensor)

    def test_save_replaces_a_file_and_leaves_no_other(self, tmp_path):
        for width in (2, 3):
            StageAdapters([width], 1).save(str(tmp_path / "a.safetensors"), METADATA)
        assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
        assert read_adapters(tmp_path / "a.safetensors").weights["fc.0.weight"].shape == (1, 3)

    def test_file_of_the_authors_holds_the_same_weights_and_says_nothing_else(self, golden_adapters):
        ours, theirs = (read_adapters(golden_adapters("tiny_vit", suffix)) for suffix in (".safetensors", ".pth"))
        assert ours.metadata == AdapterMetadata(backbone="tiny_vit", layers=(1, 2, 3, 4), image_size=70)
        assert theirs.metadata == AdapterMetadata()
        assert ours.weights.keys() == theirs.weights.keys()
        assert all(torch.equal(ours.weights[name], theirs.weights[name]) for name in ours.weights)

    def test_weights_in_half_precision_are_read_in_float32(self, tmp_path):
        save_file({name: tensor.half() for name, tensor in weights_of((3, 4)).items()}, tmp_path / "a.safetensors")
        file = read_adapters(str(tmp_path / "a.safetensors"))
        assert {tensor.dtype for tensor in file.weights.values()} == {torch.float32}

    def test_published_file_is_known_by_its_git_hash(self, tmp_path, monkeypatch):
        path = tmp_path / "renamed.pth"
        torch.save({"trainable_linearlayer": weights_of((3, 4))}, path)
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob " + str(len(content)).encode() + b"\x00" + content).hexdigest()
        monkeypatch.setitem(adapters.PUBLISHED, blob, METADATA)
        assert read_adapters(path).metadata == METADATA

    def test_published_files_are_those_of_the_paper(self):
        assert sorted(metadata.trained_on for metadata in PUBLISHED.values()) == ["mvtec", "visa"]
        for blob, metadata in PUBLISHED.items():
            assert re.fullmatch(r"[0-9a-f]{40}", blob)
            assert metadata.backbone == "ViT-L-14-336"
            assert metadata.quick_gelu is False
            assert metadata.layers == (6, 12, 18, 24)
            assert metadata.image_size == 518

    @pytest.mark.parametrize("name", ["nowhere.safetensors", "nowhere.pth", ".", "mvtc"])
    def test_missing_file_is_refused(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(
            FileNotFoundError,
            match=rf"adapters='{re.escape(name)}' are neither mvtec, visa, embedded nor a file\. .* takes auto\.",
        ):
            read_adapters(name)

    @pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")  # torch, of a list of tensors
    def test_remarks_of_other_tools_do_no_harm(self, tmp_path):
        save_file(weights_of((3, 4)), tmp_path / "a.safetensors", metadata={"format": "pt", "image_size": "56"})
        assert read_adapters(tmp_path / "a.safetensors").metadata == AdapterMetadata(image_size=56)

    @pytest.mark.parametrize(
        ("suffix", "write"),
        [
            (".pth", lambda path: path.write_bytes(b"")),
            (".pth", lambda path: path.write_bytes(b"import os")),
            (".pth", lambda path: path.write_bytes(PICKLE)),
            (".pth", lambda path: torch.save(torch.ones(3), path)),
            (".pth", lambda path: torch.save([torch.ones(3)], path)),
            (".pth", lambda path: torch.save(weights_of((3, 4)), path)),
            (".pth", lambda path: torch.save({"trainable_linearlayer": None}, path)),
            (".pth", lambda path: torch.save({"trainable_linearlayer": {"fc.0.weight": 1}}, path)),
            (".pth", lambda path: torch.save({"trainable_linearlayer": nn.Linear(2, 2)}, path)),
            (".safetensors", lambda path: path.write_bytes(b"")),
            (".safetensors", lambda path: path.write_bytes(b"import os")),
            (".safetensors", lambda path: save_file(weights_of((3, 4)), path, metadata={"layers": "no JSON"})),
        ],
    )
    def test_file_with_other_content_is_refused(self, tmp_path, suffix, write):
        path = tmp_path / f"other{suffix}"
        write(path)
        with pytest.raises(ValueError, match=r"(?s)other.* holds no adapters \(.*\). Expected fc.0.weight"):
            read_adapters(path)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_file_of_a_training_that_diverged_is_refused(self, tmp_path, value):
        save_file({**weights_of((3, 4)), "fc.0.bias": torch.full((4,), value)}, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=r"holds no adapters \(fc\.0\.bias has NaN or infinite values\)"):
            read_adapters(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_truncated_file_is_refused(self, tmp_path, golden_adapters, suffix):
        content = golden_adapters("tiny_vit", suffix).read_bytes()
        path = tmp_path / f"half{suffix}"
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=rf"(?s)half{suffix} holds no adapters"):
            read_adapters(path)


class TestFit:
    def test_other_layers_are_refused_with_both_sides(self, tmp_path):
        file = AdapterFile(tmp_path / "a.pth", weights_of((3, 4), (3, 4)), METADATA)
        with pytest.raises(ValueError, match=r"a.pth was trained on layers \[3, 6\], the model uses \[3, 9\]"):
            file.build([3, 9], [4, 4], 3)

    def test_file_that_names_no_layers_fits_any(self, tmp_path):
        file = AdapterFile(tmp_path / "a.pth", weights_of((3, 4), (3, 4)), AdapterMetadata())
        assert len(file.build([1, 9], [4, 4], 3).fc) == 2

    @pytest.mark.parametrize(
        "weights",
        [
            weights_of((3, 4)),
            weights_of((3, 4), (3, 4), (3, 4)),
            weights_of((3, 4), (3, 5)),
            weights_of((2, 4), (2, 4)),
            {"linear": torch.ones(3, 4)},
            {},
        ],
        ids=["too few", "too many", "other width", "other dimension", "other name", "none"],
    )
    def test_other_shapes_are_refused_with_both_sides(self, tmp_path, weights):
        file = AdapterFile(tmp_path / "a.pth", weights, METADATA)
        found = str({name: tuple(tensor.shape) for name, tensor in weights.items()})
        needed = "the model with layers [3, 6] needs {'fc.0.weight': (3, 4), 'fc.0.bias': (3,), 'fc.1.weight': (3, 4)"
        with pytest.raises(ValueError, match=f"a.pth holds {re.escape(found)}, {re.escape(needed)}"):
            file.build([3, 6], [4, 4], 3)

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            (None, "ViT-B-16"),
            ("ViT-B-16", "ViT-B-16"),
            ("tiny_vit", "/some/where/tiny_vit.json"),
            ("/other/place/tiny_vit.json", "tiny_vit.json"),
        ],
    )
    def test_same_backbone_is_taken_wherever_its_config_lies(self, tmp_path, theirs, ours):
        AdapterFile(tmp_path / "a.pth", {}, AdapterMetadata(backbone=theirs)).check_backbone(ours)

    @pytest.mark.parametrize(("theirs", "ours"), [("ViT-B-16", "ViT-B-32"), ("ViT-L-14-336", "ViT-L-14")])
    def test_other_backbone_is_refused_with_both_names(self, tmp_path, theirs, ours):
        file = AdapterFile(tmp_path / "a.pth", {}, AdapterMetadata(backbone=theirs))
        with pytest.raises(ValueError, match=f"a.pth was trained with backbone '{theirs}', the model uses '{ours}'"):
            file.check_backbone(ours)

    def test_metadata_are_readable_text_in_the_file(self, tmp_path):
        StageAdapters([2], 1).save(tmp_path / "a.safetensors", METADATA)
        content = (tmp_path / "a.safetensors").read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert header["__metadata__"]["backbone"] == '"ViT-B-16"'
        assert header["__metadata__"]["layers"] == "[3, 6]"
