# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Learned prompts, their files, and the text tower that reads them."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from anomalib_aprilgan.anomaly_clip import learned_prompts, published_prompts
from anomalib_aprilgan.anomaly_clip.learned_prompts import LearnedPrompts, read_prompts
from anomalib_aprilgan.anomaly_clip.prompt_encoder import PromptEncoder
from anomalib_aprilgan.anomaly_clip.published_prompts import are_published_for, choose_for, find_prompts
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.download import git_blob_hash
from anomalib_aprilgan.components.trained_file import TrainedWith


def build_prompts(**changes) -> LearnedPrompts:
    return LearnedPrompts(**{"width": 64, "length": 4, "deep_length": 2, "depth": 3, **changes})


class TestPrompts:
    """Shapes, start values and what is refused."""

    def test_start_near_zero(self):
        prompts = LearnedPrompts(512)
        for parameter in prompts.parameters():
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05)
            assert parameter.requires_grad

    def test_depth_one_has_no_deep_prompts(self):
        prompts = build_prompts(depth=1)
        assert prompts.deep.shape == (0, 1, 64)
        assert not prompts.deep.requires_grad

    @pytest.mark.parametrize("name", ["length", "deep_length", "depth"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, True])
    def test_numbers_that_cannot_be(self, name, value):
        with pytest.raises(ValueError, match=f"={value!r} must be a positive integer"):
            build_prompts(**{name: value})

    def test_words_are_not_overwritten(self):
        with pytest.raises(ValueError, match=r"deep_prompt_length=5 must not exceed prompt_length=4"):
            build_prompts(deep_length=5)


class TestFiles:
    """Ours, the authors', and files that are neither."""

    def test_ours_comes_back(self, tmp_path):
        prompts, said = build_prompts(), TrainedWith("ViT-B-16", layers=(12,), trained_on="Folder/bolt")
        prompts.save(tmp_path / "prompts.safetensors", said)
        file = read_prompts(tmp_path / "prompts.safetensors")
        assert file.trained_with == said
        other = build_prompts()
        file.load_into(other)
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in prompts.state_dict().items())

    def test_size_of_the_published_ones(self, tmp_path):
        LearnedPrompts(768).save(tmp_path / "prompts.safetensors", TrainedWith())
        assert (tmp_path / "prompts.safetensors").stat().st_size < 200_000

    def test_published_layout(self, golden_clip_dir, tmp_path):
        layout = json.loads((golden_clip_dir / "published_checkpoint_layout.json").read_text(encoding="utf-8"))
        content = {
            name: torch.full(shape, 2, dtype=getattr(torch, dtype))
            for name, (shape, dtype) in layout["prompt_learner"].items()
        }
        torch.save({"prompt_learner": content}, tmp_path / "epoch_15.pth")
        prompts = LearnedPrompts(768)
        read_prompts(tmp_path / "epoch_15.pth").load_into(prompts)
        assert (prompts.context == 2).all()
        assert (prompts.deep == 2).all()

    def test_authors_file_without_deep_prompts(self, learner, tmp_path):
        contexts = {name: tensor for name, tensor in learner.items() if name.startswith("ctx")}
        torch.save({"prompt_learner": contexts}, tmp_path / "epoch.pth")
        for deep_length in (1, 4):  # of no deep prompts
            prompts = build_prompts(width=128, length=6, deep_length=deep_length, depth=1)
            read_prompts(tmp_path / "epoch.pth").load_into(prompts)
            assert torch.equal(prompts.context[1], contexts["ctx_neg"][0, 0])

    def test_other_lengths_are_refused_with_the_right_ones(self, authors_prompts):
        with pytest.raises(ValueError, match=r"Set prompt_length=6, deep_prompt_length=4, deep_prompt_depth=3"):
            read_prompts(authors_prompts).load_into(build_prompts(width=128))

    @pytest.mark.parametrize("name", ["none.pth", "mvtc"])
    def test_missing_file(self, name):
        with pytest.raises(
            FileNotFoundError, match=rf"'{name}' are neither mvtec, visa, embedded nor a file\. .* takes auto\."
        ):
            find_prompts(name)

    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_no_prompts_but_text(self, suffix, tmp_path):
        path = tmp_path / f"prompts{suffix}"
        path.write_text("<html>", encoding="utf-8")
        with pytest.raises(ValueError, match="holds no prompts"):
            read_prompts(path)

    @pytest.mark.parametrize(
        "tensors",
        [
            {"fc.0.weight": torch.zeros(2, 2)},
            {"context": torch.zeros(2, 3, 4)},
            {"context": torch.zeros(3, 3, 4), "deep": torch.zeros(1, 2, 4)},
            {"context": torch.full((2, 3, 4), float("nan")), "deep": torch.zeros(1, 2, 4)},
        ],
    )
    def test_other_tensors(self, tensors, tmp_path):
        save_file(tensors, tmp_path / "other.safetensors")
        with pytest.raises(ValueError, match=r"other.safetensors holds no prompts \(.*\)\. Expected context and deep"):
            read_prompts(tmp_path / "other.safetensors")

    def test_authors_checkpoint_of_another_model(self, tmp_path):
        torch.save({"trainable_linearlayer": {}}, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="holds no prompts"):
            read_prompts(tmp_path / "other.pth")

    @pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
    def test_authors_names_without_their_wrapping(self, suffix, learner, authors_prompts, tmp_path):
        path = tmp_path / f"prompts{suffix}"
        save_file(learner, path) if suffix == ".safetensors" else torch.save(learner, path)
        expected = read_prompts(authors_prompts).weights
        assert all(torch.equal(tensor, expected[name]) for name, tensor in read_prompts(path).weights.items())

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_prompts_that_diverged_are_not_written(self, value, tmp_path):
        prompts = build_prompts()
        torch.nn.init.constant_(prompts.context[1, 2], value)
        with pytest.raises(ValueError, match=r"context holds NaN or infinity and is not written.*Lower learning_rate"):
            prompts.save(tmp_path / "prompts.safetensors", TrainedWith())
        assert not list(tmp_path.iterdir())


class TestPublished:
    """The authors' files, whose place a file of ours takes."""

    def test_by_name_from_a_mirror(self, authors_prompts, tmp_path, monkeypatch):
        (tmp_path / "9_12_4_multiscale_visa").mkdir()
        (tmp_path / "9_12_4_multiscale_visa" / "epoch_15.pth").write_bytes(authors_prompts.read_bytes())
        blob = git_blob_hash(authors_prompts)
        said = learned_prompts.PUBLISHED["72adc786e031b49ea288ba5f815f0d38cf158708"]
        monkeypatch.setitem(learned_prompts.PUBLISHED, blob, said)
        published = replace(published_prompts.PUBLISHED_FILES["mvtec"], blob=blob)
        monkeypatch.setattr(published_prompts, "PUBLISHED_FILES", {"mvtec": published})
        monkeypatch.setenv("ANOMALIB_APRILGAN_PROMPTS_URL", tmp_path.as_uri())
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        file = find_prompts("mvtec")
        assert file.trained_with.trained_on == "mvtec"
        assert file.trained_with.quick_gelu
        assert (file.trained_with.layers, file.trained_with.dpam_layers, file.trained_with.image_size) == (
            (24,),
            19,
            518,
        )

    def test_addresses(self):
        addresses = {name: f"{file.folder}/{file.path}" for name, file in published_prompts.PUBLISHED_FILES.items()}
        base = "https://github.com/zqhang/AnomalyCLIP/raw/45ed4dd/checkpoints"
        assert addresses == {
            "mvtec": f"{base}/9_12_4_multiscale_visa/epoch_15.pth",
            "visa": f"{base}/9_12_4_multiscale/epoch_15.pth",
        }
        blobs = {name: file.blob[:7] for name, file in published_prompts.PUBLISHED_FILES.items()}
        assert blobs == {"mvtec": "72adc78", "visa": "c90f1d9"}

    @pytest.mark.parametrize(
        ("datasets", "expected"),
        [(["MVTecAD/bottle"], "visa"), (["Visa"], "mvtec"), (["Folder/bolt"], "mvtec"), ([], "mvtec")],
    )
    def test_those_that_have_not_seen_the_data(self, datasets, expected):
        assert choose_for(*datasets) == expected

    @pytest.mark.parametrize(
        ("backbone", "pretrained", "lengths", "expected"),
        [
            ("ViT-L-14-336", "openai", (12, 4, 9), True),
            ("ViT-L/14-336", "openai", (12, 4, 9), True),
            ("ViT-L-14-336-quickgelu", "openai", (12, 4, 9), True),
            ("ViT-L-14-336", "hf-hub:timm/vit_large_patch14_clip_336.openai", (12, 4, 9), True),
            ("ViT-L-14-336", "/of/somebody/else.pt", (12, 4, 9), False),
            ("ViT-L-14-336", "openai", (8, 4, 9), False),
            ("ViT-L-14-336", None, (12, 4, 9), False),
            ("ViT-B-16", "openai", (12, 4, 9), False),
        ],
    )
    def test_belong_to_one_clip_and_one_length(self, backbone, pretrained, lengths, expected):
        assert are_published_for(backbone, pretrained, lengths) is expected

    @pytest.mark.parametrize("is_own_file", [True, False])
    def test_file_of_openai_is_known_by_its_digest(self, is_own_file, weights_file):
        assert are_published_for("ViT-L-14-336", str(weights_file(is_own_file)), (12, 4, 9)) is is_own_file


class TestEncoder:
    """What the text tower makes of prompts, beyond the golden numbers."""

    @pytest.fixture
    def source(self, tiny_backbone) -> CLIPSource:
        return CLIPSource.resolve(tiny_backbone, None)

    def test_unit_vectors_whatever_the_lengths(self, source):
        for length, deep_length, depth in ((1, 1, 1), (4, 2, 3), (20, 20, 30)):
            encoder = PromptEncoder(source, length)
            features = encoder(LearnedPrompts(encoder.width, length, deep_length, depth))
            assert features.shape == (2, 32)
            torch.testing.assert_close(features.norm(dim=-1), torch.ones(2))

    def test_room_for_the_words_is_kept(self, source):
        PromptEncoder(source, 72)
        with pytest.raises(
            ValueError, match="prompt_length=73 does not fit into the text tower, which has room for 72"
        ):
            PromptEncoder(source, 73)

    def test_only_prompts_get_gradients(self, source):
        encoder = PromptEncoder(source, 4)
        prompts = build_prompts(width=encoder.width)
        encoder(prompts)[1, 0].backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in prompts.parameters())
        assert all(parameter.grad is None for parameter in encoder.parameters())

    def test_small_gradients_vanish_in_half_precision_unless_they_are_kept(self, source):
        encoder = PromptEncoder(source, 4)
        found = {}
        for half_gradients in (True, False):
            prompts = build_prompts(width=encoder.width)
            (1e-9 * encoder(prompts, half_gradients=half_gradients)[1, 0]).backward()
            found[half_gradients] = prompts.deep.grad.abs().max()
        assert found[True] == 0 < found[False]
