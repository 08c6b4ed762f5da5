# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Architecture, weights and activation are settled once, the same everywhere, or refused with a reason."""

import contextlib
import json
import re
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg, list_pretrained

from anomalib_aprilgan.components import clip_source
from anomalib_aprilgan.components.clip_config import load_config
from anomalib_aprilgan.components.clip_source import CLIPSource, known_tag
from anomalib_aprilgan.components.pretrained_tags import QUICK_GELU_TAGS
from anomalib_aprilgan.components.weights import tag_key


@pytest.fixture
def write_config(golden_dir, tmp_path):
    """Writes a tiny config with some keys changed, such as ``vision_cfg__width=32``; None deletes a key."""

    def write(name: str = "tiny_vit", **changes) -> str:
        config = json.loads((golden_dir / f"{name}.json").read_text(encoding="utf-8"))
        for key, value in changes.items():
            *parents, leaf = key.split("__")
            section = config[parents[0]] if parents else config
            section.pop(leaf, None)
            if value is not None:
                section[leaf] = value
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def no_download(monkeypatch, tmp_path):
    """Tags lead to an empty file on this machine."""
    path = tmp_path / "downloaded.safetensors"
    path.touch()
    monkeypatch.setattr(clip_source, "fetch", lambda location: path)
    return path


class TestActivation:
    @pytest.mark.parametrize(
        ("backbone", "pretrained", "argument", "adapters", "expected"),
        [
            # Nothing said: the registry's word.
            ("ViT-L-14-336", "openai", None, None, True),
            ("ViT-B-16", "openai", None, None, True),
            ("RN50", "openai", None, None, True),
            ("RN50x16", "openai", None, None, True),
            ("ViT-B-32", "laion400m_e32", None, None, True),
            ("ViT-B-32", "laion400m-e32", None, None, True),
            ("ViT-B-16", "dfn2b", None, None, True),
            ("ViT-B-16", "laion400m_e32", None, None, False),
            ("ViT-B-16", "laion2b_s34b_b88k", None, None, False),
            ("ViT-L-14", "datacomp_xl_s13b_b90k", None, None, False),
            # Nothing said: the config's word.
            ("ViT-B-32-quickgelu", "laion400m_e32", None, None, True),
            ("ViT-B-32-quickgelu", "openai", None, None, True),
            # The adapters know better than the registry, the argument better than all.
            ("ViT-L-14-336", "openai", None, False, False),
            ("ViT-B-16", "laion2b_s34b_b88k", None, True, True),
            ("ViT-L-14-336", "openai", False, None, False),
            ("ViT-B-32-quickgelu", "openai", False, None, False),
            ("ViT-B-16", "laion2b_s34b_b88k", True, None, True),
            # Both agree.
            ("ViT-L-14-336", "openai", False, False, False),
            ("ViT-L-14-336", "openai", True, True, True),
        ],
    )
    def test_first_word_of_argument_adapters_config_and_registry_counts(
        self, no_download, backbone, pretrained, argument, adapters, expected
    ):
        source = CLIPSource.resolve(backbone, pretrained, argument, adapters)
        assert source.quick_gelu is expected
        assert source.path == no_download

    @pytest.mark.parametrize(("name", "expected"), [("tiny_vit", False), ("tiny_vit_quickgelu", True)])
    def test_config_file_says_which_activation(self, golden_dir, name, expected):
        backbone = str(golden_dir / f"{name}.json")
        assert CLIPSource.resolve(backbone, None).quick_gelu is expected
        assert CLIPSource.resolve(backbone, None, adapters_quick_gelu=not expected).quick_gelu is not expected

    @pytest.mark.parametrize("argument", [True, False])
    def test_argument_and_adapters_that_disagree_are_refused(self, tiny_backbone, argument):
        expected = f"quick_gelu={argument}, but the adapters were trained with quick_gelu={not argument}."
        with pytest.raises(ValueError, match=re.escape(expected)):
            CLIPSource.resolve(tiny_backbone, None, argument, not argument)

    @pytest.mark.parametrize("is_own_file", [True, False])
    def test_file_of_openai_is_known_by_its_digest(self, weights_file, is_own_file):
        path = weights_file(is_own_file)
        assert CLIPSource.resolve("ViT-L-14-336", str(path)).quick_gelu is is_own_file
        assert CLIPSource.resolve("ViT-L-14-336", str(path), quick_gelu=False).quick_gelu is False
        assert known_tag("ViT-L/14-336", str(path)) == ("openai" if is_own_file else str(path))

    @pytest.mark.parametrize(
        ("backbone", "pretrained", "expected"),
        [
            ("ViT-L-14-336-quickgelu", "OpenAI", "openai"),
            ("ViT-L/14-336", "hf-hub:timm/vit_large_patch14_clip_336.openai", "openai"),
            ("ViT-L-14-336", "/hub/models--timm--vit_large_patch14_clip_336.openai/snapshots/1/model.pt", "openai"),
            (
                "ViT-L-14",
                "hf-hub:timm/vit_large_patch14_clip_336.openai",
                "hf-hub:timm/vit_large_patch14_clip_336.openai",
            ),
            ("ViT-B-16", "laion400m_e31", "laion400m_e31"),
            ("ViT-B-16", "/none.pt", "/none.pt"),
            ("ViT-B-16", None, None),
        ],
    )
    def test_openai_has_one_name(self, backbone, pretrained, expected):
        assert known_tag(backbone, pretrained) == expected

    def test_table_agrees_with_the_registry_where_that_says_something(self):
        recorded = {
            tag_key(backbone, tag): entry["quick_gelu"]
            for backbone, tag in list_pretrained()
            if "quick_gelu" in (entry := get_pretrained_cfg(backbone, tag))
        }
        if not recorded:
            pytest.skip("this version of open_clip does not record the activation")
        assert {key for key, quick_gelu in recorded.items() if quick_gelu} == QUICK_GELU_TAGS

    def test_both_towers_take_the_activation(self, tiny_backbone):
        images, stream = torch.randn(1, 3, 56, 56), torch.randn(1, 77, 32)
        exact, quick = (CLIPSource.resolve(tiny_backbone, None, quick_gelu) for quick_gelu in (False, True))
        assert (exact.build_visual(56)(images) - quick.build_visual(56)(images)).abs().max() > 1e-3
        blocks = [source.build_text().transformer.resblocks[0] for source in (exact, quick)]
        assert (blocks[0](stream) - blocks[1](stream)).abs().max() > 1e-3


class TestConfig:
    @pytest.mark.parametrize(
        ("backbone", "reason"),
        [
            ("convnext_base", "timm_model_name"),
            ("ViT-B-16-SigLIP", "custom_text"),
            ("coca_ViT-B-32", "custom_text, multimodal_cfg|multimodal_cfg"),
            ("roberta-ViT-B-32", "hf_model_name"),
            ("ViT-L-14-CLIPA", "final_ln_after_pool|pool_type|hf_tokenizer_name|custom_text"),
        ],
    )
    def test_other_towers_are_refused_by_the_key_that_asks_for_them(self, backbone, reason):
        with pytest.raises(ValueError, match=rf"backbone='{backbone}' is not supported: its config has ({reason})"):
            load_config(backbone)

    @pytest.mark.parametrize(
        ("changes", "found"),
        [
            ({"custom_text": True}, "custom_text"),
            ({"vision_cfg__timm_model_name": "resnet50"}, "timm_model_name"),
            ({"vision_cfg__attentional_pool": True}, "attentional_pool"),
            ({"vision_cfg__pool_type": "avg"}, "pool_type"),
            ({"text_cfg__hf_model_name": "roberta-base"}, "hf_model_name"),
            ({"text_cfg__pool_type": "last", "text_cfg__no_causal_mask": True}, "no_causal_mask, pool_type"),
        ],
    )
    def test_config_files_with_other_towers_are_refused(self, write_config, changes, found):
        with pytest.raises(ValueError, match=f"is not supported: its config has {found}. Choose a CLIP with a plain"):
            load_config(write_config(**changes))

    @pytest.mark.parametrize(
        "changes",
        [
            {"custom_text": False},
            {"vision_cfg__timm_model_name": ""},
            {"vision_cfg__pool_type": "tok"},
            {"text_cfg__pool_type": "argmax"},
        ],
    )
    def test_keys_that_say_what_is_the_default_are_no_reason_to_refuse(self, write_config, changes):
        assert load_config(write_config(**changes))["embed_dim"] == 32

    def test_every_registered_architecture_is_read_or_refused(self):
        supported = {}
        for backbone in open_clip.list_models():
            with contextlib.suppress(ValueError):
                supported[backbone] = CLIPSource(backbone, None, load_config(backbone), None, quick_gelu=False)
        assert all(source.is_vit == backbone.startswith("ViT") for backbone, source in supported.items())
        assert {"ViT-L-14-336", "ViT-B-16", "ViT-H-14", "ViT-bigG-14", "RN50", "RN50x64"} <= supported.keys()

    @pytest.mark.parametrize("backbone", ["ViT-L-14-336", "ViT-M-16-alt", "ViT-B-32-quickgelu", "RN50x4"])
    def test_registered_architectures_are_built(self, backbone):
        source = CLIPSource(backbone, None, load_config(backbone), None, quick_gelu=True)
        visual = source._skeleton(source.image_size).visual
        assert all(parameter.is_meta for parameter in visual.parameters())

    @pytest.mark.parametrize(
        ("backbone", "hint"),
        [
            ("ViT-L-14-366", "near: ViT-L-14-336"),
            ("resnet", "near: ViT-L-14-336"),
            ("RN5O", "near: RN50"),
            ("aprilgan-tini", "near: aprilgan-tiny"),
        ],
    )
    def test_unknown_backbone_is_refused_with_a_near_one(self, backbone, hint):
        with pytest.raises(ValueError, match=rf"Unknown backbone '{backbone}'.*open_clip_torch \d.*{hint}"):
            load_config(backbone)

    def test_slash_in_a_name_is_as_good_as_a_hyphen(self):
        assert load_config("ViT-B/16") == load_config("ViT-B-16")

    def test_config_may_lie_under_model_cfg_as_on_the_hub(self, tiny_backbone, tmp_path):
        config = json.loads(Path(tiny_backbone).read_text(encoding="utf-8"))
        (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
        assert load_config(str(tmp_path / "open_clip_config.json")) == config

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (None, "cannot be read as an open_clip model config"),
            ("{", "cannot be read as an open_clip model config"),
            ("[]", "is no open_clip model config: it lacks embed_dim, vision_cfg, text_cfg"),
            ("{}", "is no open_clip model config: it lacks embed_dim, vision_cfg, text_cfg"),
            ('{"embed_dim": 8, "vision_cfg": {}}', "is no open_clip model config: it lacks text_cfg"),
        ],
    )
    def test_file_that_is_no_config_is_refused(self, tmp_path, content, reason):
        path = tmp_path / "config.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError, match=rf"backbone='{re.escape(str(path))}' {reason}"):
            load_config(str(path))

    @pytest.mark.parametrize("key", ["layers", "width", "patch_size"])
    def test_config_without_a_size_that_we_need_is_refused(self, write_config, key):
        with pytest.raises(ValueError, match=f"is no open_clip model config: it lacks {key}"):
            load_config(write_config(**{f"vision_cfg__{key}": None}))

    def test_config_that_open_clip_cannot_build_is_refused_with_its_reason(self, write_config):
        source = CLIPSource.resolve(write_config(vision_cfg__nonsense=1), None)
        with pytest.raises(ValueError, match=r"open_clip_torch \d.* cannot build backbone .*nonsense"):
            source.build_visual(56)

    @pytest.mark.parametrize(("name", "is_vit", "size"), [("tiny_vit", True, 56), ("tiny_rn", False, 64)])
    def test_kind_and_size_are_read_from_the_config(self, golden_dir, name, is_vit, size):
        source = CLIPSource.resolve(str(golden_dir / f"{name}.json"), None)
        assert source.is_vit is is_vit
        assert source.image_size == size

    def test_size_of_a_config_without_one_is_clips_224(self, write_config):
        assert CLIPSource.resolve(write_config(vision_cfg__image_size=None), None).image_size == 224


class TestWeights:
    def test_unknown_tag_is_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match="'opnai' is not a tag of backbone 'ViT-B-16'; open_clip knows openai, "):
            CLIPSource.resolve("ViT-B-16", "opnai")

    def test_config_file_has_no_tags(self, tiny_backbone):
        with pytest.raises(ValueError, match=r"'openai' is not a tag of backbone .*; open_clip knows none"):
            CLIPSource.resolve(tiny_backbone, "openai")

    def test_missing_file_is_refused(self, tiny_backbone):
        with pytest.raises(FileNotFoundError, match=r"pretrained='nowhere.pt' is not a file"):
            CLIPSource.resolve(tiny_backbone, "nowhere.pt")

    @pytest.mark.parametrize("tower", ["visual", "text"])
    def test_weights_of_another_kind_are_refused_with_names(self, golden_dir, golden_weights, write_config, tower):
        weights = str(golden_weights("tiny_vit"))
        if tower == "visual":
            source = CLIPSource.resolve(str(golden_dir / "tiny_rn.json"), weights)
            expected = r"missing \['attnpool.*unexpected \['class_embedding'"
        else:
            source = CLIPSource.resolve(write_config(text_cfg__layers=3), weights)
            expected = r"missing \['transformer.resblocks.2.*unexpected \[\]"
        with pytest.raises(ValueError, match=rf"tiny_vit.safetensors do not fit backbone .*{expected}.*Name the arch"):
            source.build_visual(64) if tower == "visual" else source.build_text()

    def test_weights_of_another_width_are_refused_with_shapes(self, golden_weights, write_config):
        source = CLIPSource.resolve(write_config(vision_cfg__width=32), str(golden_weights("tiny_vit")))
        with pytest.raises(ValueError, match=r"missing \[\], unexpected \[\], shapes \['.* instead of "):
            source.build_visual(56)

    @pytest.mark.parametrize("name", ["tiny_vit", "tiny_rn"])
    def test_towers_are_frozen_in_eval_mode_and_float32_on_the_cpu(self, golden_dir, golden_weights, name):
        source = CLIPSource.resolve(str(golden_dir / f"{name}.json"), str(golden_weights(name)))
        text = source.build_text()
        assert not hasattr(text, "visual")
        for tower in (source.build_visual(source.image_size), text):
            assert not any(module.training for module in tower.modules())
            for parameter in tower.parameters():
                assert not parameter.requires_grad
                assert parameter.dtype == torch.float32
                assert parameter.device.type == "cpu"

    def test_building_draws_nothing_and_leaves_the_generator_alone(self, tiny_backbone, golden_source):
        before = torch.get_rng_state()
        for source in (CLIPSource.resolve(tiny_backbone, None), golden_source):
            source.build_visual(70)
            source.build_text()
        assert torch.equal(torch.get_rng_state(), before)

    def test_random_weights_do_not_hang_on_the_generator(self, tiny_backbone):
        states = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            states.append(CLIPSource.resolve(tiny_backbone, None).build_visual(56).state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class TestFingerprint:
    def test_fingerprint_is_plain_data_and_names_the_weights(self, golden_source):
        fingerprint = golden_source.fingerprint()
        assert json.loads(json.dumps(fingerprint)) == fingerprint
        assert re.fullmatch(r"[0-9a-f]{64}", fingerprint["weights"])
        assert fingerprint["quick_gelu"] is False

    def test_random_weights_have_no_digest(self, tiny_backbone):
        assert CLIPSource.resolve(tiny_backbone, None).digest == "random"

    def test_copies_of_config_and_weights_have_the_same_fingerprint(self, golden_source, tmp_path):
        config = json.loads(Path(golden_source.backbone).read_text(encoding="utf-8"))
        (tmp_path / "tiny_vit.json").write_text(json.dumps(dict(reversed(config.items()))))
        shutil.copy(golden_source.path, tmp_path / "copy.safetensors")
        copied = CLIPSource.resolve(str(tmp_path / "tiny_vit.json"), str(tmp_path / "copy.safetensors")).fingerprint()
        original = golden_source.fingerprint()
        assert {**copied, "backbone": None} == {**original, "backbone": None}

    @pytest.mark.parametrize("ingredient", ["weights", "config", "quick_gelu"])
    def test_fingerprint_tells_models_apart(self, golden_source, golden_weights, write_config, ingredient):
        backbone, pretrained = golden_source.backbone, golden_source.pretrained
        other = {
            "weights": lambda: CLIPSource.resolve(backbone, str(golden_weights("tiny_rn"))),
            "config": lambda: CLIPSource.resolve(write_config(vision_cfg__head_width=32), pretrained),
            "quick_gelu": lambda: CLIPSource.resolve(backbone, pretrained, quick_gelu=True),
        }[ingredient]()
        ours, theirs = golden_source.fingerprint(), other.fingerprint()
        assert {key for key in ours if ours[key] != theirs[key]} - {"backbone"} == {ingredient}


class TestWithoutFolders:
    def test_of_files_the_names_stay(self, golden_source):
        bare = golden_source.without_folders()
        assert (bare.backbone, bare.pretrained) == ("tiny_vit.json", "tiny_vit.safetensors")
        assert bare.path == Path("tiny_vit.safetensors")
        assert bare.config == golden_source.config

    def test_the_text_tower_of_another_class_is_left_behind(self, golden_source):
        bare = golden_source.without_folders()
        for need in (lambda: bare.digest, lambda: bare.build_visual(56)):
            with pytest.raises(RuntimeError, match=r"tiny_vit\.safetensors stayed where this model was exported"):
                need()

    @pytest.mark.parametrize(
        ("backbone", "pretrained"), [("ViT-L/14-336", "openai"), ("ViT-B-16", "hf-hub:org/name"), ("ViT-B-16", None)]
    )
    def test_names_of_architectures_and_weights_stay(self, backbone, pretrained, no_download):
        bare = CLIPSource.resolve(backbone, pretrained).without_folders()
        assert (bare.backbone, bare.pretrained) == (backbone, pretrained)
        assert bare.path == (None if pretrained is None else Path("downloaded.safetensors"))
