# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The text tower gives what open_clip's gives, and its features are computed once a class, weights and words."""

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch.nn import functional

import anomalib_aprilgan
from anomalib_aprilgan import PromptEnsemble
from anomalib_aprilgan.components import text_encoder
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower
from anomalib_aprilgan.components.text_encoder import TextEncoder, encode_states, text_features

PACKAGE = str(Path(anomalib_aprilgan.__file__).parent)
WORDS = PromptEnsemble(["{}", "flawless {}"], ["damaged {}", "{} with a flaw"], ["a photo of a {}.", "{}"])
SENTENCES = [
    "a photo of a metal nut.",
    "nut",
    "this is a low resolution photo of one very small metal nut without any damage in the scene.",
    "a photo of a metal nut.",
    "two words",
]

# Encodes a class over and over in an interpreter without anomalib, then prints what random weights say of it.
OTHER_PROCESS = """
import sys, types
package = types.ModuleType("anomalib_aprilgan")
package.__path__ = [sys.argv[1]]
sys.modules.update(anomalib_aprilgan=package, anomalib=None, lightning=None)
import torch
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import CLIPTower
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.text_encoder import text_features
torch.set_num_threads(1)
prompts = PromptEnsemble(["{}"], ["broken {}"], ["{}"])
golden, random = CLIPSource.resolve(*sys.argv[2:]), CLIPSource.resolve(sys.argv[2], None)
assert all(torch.equal(text_features(golden, prompts, "nut"), text_features(golden, prompts, "nut")) for _ in range(9))
pooled = CLIPTower(random, 56, [4])(torch.ones(1, 3, 56, 56)).pooled
print([text_features(random, prompts, "nut").tolist(), pooled.tolist()])
"""


@pytest.fixture(scope="module")
def source(golden_dir, golden_weights) -> CLIPSource:
    """The golden ViT, not yet built."""
    return CLIPSource.resolve(str(golden_dir / "tiny_vit.json"), str(golden_weights("tiny_vit")))


@pytest.fixture(scope="module")
def encoder(source) -> TextEncoder:
    """Its text tower."""
    return TextEncoder(source)


@pytest.fixture
def entries(cache_folder):
    """Lists the entries of the text cache."""
    return lambda: sorted((cache_folder / "text").glob("*"))


@pytest.fixture
def no_text_tower(monkeypatch):
    """Returns a function after which no text tower can be built."""

    def refuse(source: CLIPSource) -> None:
        pytest.fail("a text tower was loaded")

    return lambda: monkeypatch.setattr(text_encoder, "TextEncoder", refuse)


class TestEncoding:
    @torch.no_grad()
    @pytest.mark.parametrize("quick_gelu", [False, True])
    def test_features_are_those_of_encode_text(self, source, quick_gelu):
        ours = TextEncoder(CLIPSource.resolve(source.backbone, source.pretrained, quick_gelu))
        theirs = CLIP(**dict(source.config, quick_gelu=quick_gelu)).eval()
        theirs.load_state_dict(load_file(source.path))
        torch.testing.assert_close(ours(SENTENCES), theirs.encode_text(ours.tokenize(SENTENCES)), rtol=0, atol=1e-6)

    def test_cutting_the_padding_off_changes_nothing(self, encoder):
        tokens = encoder.tokenize(SENTENCES)
        assert tokens.shape == (5, 77)
        longest = int(tokens.argmax(dim=1).max()) + 1
        assert longest < 77
        full, cut = encoder.encode_tokens(tokens), encoder.encode_tokens(tokens[:, :longest])
        torch.testing.assert_close(cut, full, rtol=0, atol=1e-6)
        torch.testing.assert_close(encoder(SENTENCES), full, rtol=0, atol=1e-6)

    def test_features_come_in_the_order_of_the_sentences(self, encoder):
        alone = torch.cat([encoder([sentence]) for sentence in SENTENCES])
        torch.testing.assert_close(encoder(SENTENCES), alone, rtol=0, atol=1e-6)
        torch.testing.assert_close(encoder(SENTENCES[::-1]), alone.flip(0), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("size", [1, 2, 4, 5])
    def test_size_of_batches_does_not_matter(self, encoder, monkeypatch, size):
        together = encoder(SENTENCES)
        monkeypatch.setattr(text_encoder, "BATCH_SIZE", size)
        torch.testing.assert_close(encoder(SENTENCES), together, rtol=0, atol=1e-6)

    def test_sentences_of_like_length_go_together_and_no_longer_than_need_be(self, encoder, monkeypatch):
        lengths = []
        encode_tokens = encoder.encode_tokens
        monkeypatch.setattr(
            encoder, "encode_tokens", lambda tokens: lengths.append(tokens.shape[1]) or encode_tokens(tokens)
        )
        monkeypatch.setattr(text_encoder, "BATCH_SIZE", 2)
        encoder(["a", "a b c d e f", "a b", "a b c d"])  # one token a letter, start and end
        assert lengths == [4, 8]

    def test_nothing_wants_gradients(self, encoder):
        assert not encoder(SENTENCES).requires_grad
        assert not encoder.encode_tokens(encoder.tokenize(SENTENCES)).requires_grad

    def test_longest_sentence_that_fits_is_taken(self, encoder):
        assert encoder.tokenize(["nut " * 75])[0, -1] == 49407  # the end token, at the last place

    def test_sentence_that_does_not_fit_is_refused_with_its_length(self, encoder):
        with pytest.raises(
            ValueError, match=r"'nut nut .* has 78 tokens, CLIP reads 77\. Shorten class name or prompt"
        ):
            encoder(["nut", "nut " * 76])

    def test_states_are_unit_means_of_unit_features(self, encoder):
        states = encode_states(encoder, WORDS, "nut")
        sentences = WORDS.sentences("nut")
        for ours, of_state in zip(states, sentences, strict=True):
            mean = sum(encoder([sentence])[0] / encoder([sentence])[0].norm() for sentence in of_state) / len(of_state)
            torch.testing.assert_close(ours, mean / mean.norm(), rtol=0, atol=1e-6)
        torch.testing.assert_close(states.norm(dim=-1), torch.ones(2))

    def test_normal_state_comes_first(self, encoder):
        prompts = PromptEnsemble(["{}"], ["broken {}"], ["a {}."])
        alone = functional.normalize(encoder(["a nut.", "a broken nut."]), dim=-1)
        torch.testing.assert_close(encode_states(encoder, prompts, "nut"), alone, rtol=0, atol=1e-6)


class TestCache:
    def test_second_call_loads_no_text_tower(self, source, entries, no_text_tower):
        first = text_features(source, WORDS, "nut")
        (entry,) = entries()
        assert entry.suffix == ".safetensors"
        no_text_tower()
        assert torch.equal(text_features(source, WORDS, "nut"), first)

    def test_cached_features_are_those_of_the_encoder(self, source, encoder):
        for _ in range(2):
            assert torch.equal(text_features(source, WORDS, "nut"), encode_states(encoder, WORDS, "nut"))

    def test_copies_of_the_weights_and_equal_words_share_an_entry(self, source, entries, no_text_tower, tmp_path):
        first = text_features(source, WORDS, "nut")
        no_text_tower()
        (tmp_path / "copy.safetensors").write_bytes(source.path.read_bytes())
        copy = CLIPSource.resolve(source.backbone, str(tmp_path / "copy.safetensors"))
        words = PromptEnsemble(list(WORDS.normal_states), list(WORDS.anomalous_states), list(WORDS.templates))
        assert torch.equal(text_features(copy, words, "nut"), first)
        assert len(entries()) == 1

    @pytest.mark.parametrize(
        "ingredient",
        ["weights", "activation", "normal states", "anomalous states", "templates", "order", "class name", "tokenizer"],
    )
    def test_every_ingredient_has_an_entry_of_its_own(self, source, entries, tmp_path, monkeypatch, ingredient):
        first = text_features(source, WORDS, "nut")
        normal, anomalous, templates = WORDS.normal_states, WORDS.anomalous_states, WORDS.templates
        other_source, other_words, other_class = source, WORDS, "nut"
        match ingredient:
            case "weights":
                weights = {name: tensor * 1.5 for name, tensor in load_file(source.path).items()}
                save_file(weights, tmp_path / "other.safetensors")
                other_source = CLIPSource.resolve(source.backbone, str(tmp_path / "other.safetensors"))
            case "activation":
                other_source = CLIPSource.resolve(source.backbone, source.pretrained, quick_gelu=True)
            case "normal states":
                other_words = PromptEnsemble([*normal, "good {}"], anomalous, templates)
            case "anomalous states":
                other_words = PromptEnsemble(normal, [*anomalous, "bad {}"], templates)
            case "templates":
                other_words = PromptEnsemble(normal, anomalous, templates[:1])
            case "order":
                other_words = PromptEnsemble(anomalous, normal, templates)
            case "class name":
                other_class = "Nut"
            case "tokenizer":
                monkeypatch.setattr(text_encoder.open_clip_version, "__version__", "0.0.0")
        second = text_features(other_source, other_words, other_class)
        assert len(entries()) == 2
        # CLIP reads lower case only: another entry, the same features.
        assert torch.equal(first, second) == (ingredient in {"class name", "tokenizer"})

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda entry: entry.write_bytes(b"no safetensors"), "is unreadable"),
            (lambda entry: entry.write_bytes(b""), "is unreadable"),
            (lambda entry: entry.write_bytes(entry.read_bytes()[:-1]), "is unreadable"),
            (lambda entry: save_file({"other": torch.zeros(2, 32)}, entry), "is unreadable"),
            (lambda entry: save_file({"text_features": torch.zeros(2, 31)}, entry), "is damaged"),
            (lambda entry: save_file({"text_features": torch.zeros(32)}, entry), "is damaged"),
            (lambda entry: save_file({"text_features": torch.full((2, 32), torch.nan)}, entry), "is damaged"),
        ],
        ids=["garbage", "empty", "truncated", "other name", "other size", "other rank", "nan"],
    )
    def test_damaged_entry_is_encoded_anew_with_a_warning(self, source, entries, caplog, damage, reason):
        first = text_features(source, WORDS, "nut")
        (entry,) = entries()
        intact = entry.read_bytes()
        damage(entry)
        assert torch.equal(text_features(source, WORDS, "nut"), first)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert re.search(rf"{entry}.*{reason}.*encoding anew", record.message)
        assert entry.read_bytes() == intact

    def test_random_weights_are_told(self, source, tiny_backbone, caplog):
        text_features(source, WORDS, "nut")
        assert caplog.messages == []
        text_features(CLIPSource.resolve(tiny_backbone, None), WORDS, "nut")
        assert caplog.messages == ["CLIP has random weights, since pretrained is null: verdicts on 'nut' mean nothing."]

    def test_cache_that_cannot_be_written_is_a_warning(self, source, encoder, tmp_path, monkeypatch, caplog):
        (tmp_path / "file").touch()
        monkeypatch.setenv("ANOMALIB_APRILGAN_CACHE", str(tmp_path / "file"))
        assert torch.equal(text_features(source, WORDS, "nut"), encode_states(encoder, WORDS, "nut"))
        assert "going on without this cache entry" in caplog.text

    def test_random_weights_are_not_cached(self, tiny_backbone, entries):
        source = CLIPSource.resolve(tiny_backbone, None)
        assert torch.equal(text_features(source, WORDS, "nut"), text_features(source, WORDS, "nut"))
        assert entries() == []

    def test_bad_class_name_is_refused_before_anything_is_loaded(self, source, no_text_tower):
        no_text_tower()
        with pytest.raises(ValueError, match="class_name must be a non-empty string"):
            text_features(source, WORDS, " ")

    def test_too_long_class_name_is_refused_and_leaves_no_entry(self, source, entries):
        with pytest.raises(ValueError, match=r"CLIP reads 77\. Shorten class name or prompt"):
            text_features(source, WORDS, "nut " * 80)
        assert entries() == []

    def test_threads_that_encode_the_same_class_do_not_disturb_each_other(self, source, encoder, entries):
        results, start = [], threading.Barrier(4)

        def encode() -> None:
            start.wait()
            results.append(text_features(source, WORDS, "nut"))

        threads = [threading.Thread(target=encode) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expected = encode_states(encoder, WORDS, "nut")
        assert [torch.equal(result, expected) for result in results] == [True] * 4
        assert len(entries()) == 1

    def test_other_process_shares_the_cache_and_has_the_same_random_weights(self, source, entries):
        prompts = PromptEnsemble(["{}"], ["broken {}"], ["{}"])
        first = text_features(source, prompts, "nut")
        command = [sys.executable, "-c", OTHER_PROCESS, PACKAGE, source.backbone, source.pretrained]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as other:
            while other.poll() is None:
                for entry in entries():
                    if not entry.name.startswith("."):  # such files are still being written
                        entry.unlink(missing_ok=True)
                assert torch.equal(text_features(source, prompts, "nut"), first)
                time.sleep(0.02)
            output, errors = other.communicate()
        assert other.returncode == 0, errors
        assert "Text cache entry" not in errors
        random = CLIPSource.resolve(source.backbone, None)
        pooled = CLIPTower(random, 56, [4])(torch.ones(1, 3, 56, 56)).pooled
        assert json.loads(output) == [text_features(random, prompts, "nut").tolist(), pooled.tolist()]
