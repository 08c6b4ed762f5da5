# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Every number of inference agrees with AnomalyCLIP's authors' own code (see tests/golden_anomaly_clip)."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from torchvision.tv_tensors import Mask

from anomalib_aprilgan.anomaly_clip import AnomalyCLIPModel
from anomalib_aprilgan.anomaly_clip.prompt_encoder import WORDS, PromptEncoder
from anomalib_aprilgan.components.clip_tower import CLIPTower
from anomalib_aprilgan.components.text_encoder import TextEncoder
from anomalib_aprilgan.data.image_files import read_squashed
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor

TOLERANCE = 1e-5
MODELS = ("tiny_vit", "tiny_vit_resized")


def assert_equal(ours: torch.Tensor, theirs: Any, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours.detach().double(), torch.as_tensor(theirs).double(), rtol=0, atol=tolerance)


class Golden(NamedTuple):
    """A golden case: the authors' arrays, our model and its text tower."""

    arrays: dict[str, np.ndarray]
    model: AnomalyCLIPModel
    encoder: PromptEncoder
    images: torch.Tensor


@pytest.fixture(scope="module", params=MODELS)
def golden(request, clip_arrays, clip_arguments) -> Golden:
    arrays = clip_arrays(request.param)
    model = AnomalyCLIPModel(**clip_arguments(request.param))
    encoder = PromptEncoder(model.source, model.prompts.length)
    return Golden(arrays, model, encoder, torch.from_numpy(arrays["images"]))


def test_settings_are_those_of_the_arrays(golden):
    assert golden.model.layers == tuple(golden.arrays["features_list"])
    assert golden.model.dpam_layers == golden.arrays["dpam_layer"] - 1
    assert golden.model.image_size == golden.arrays["image_size"]
    assert golden.model.source.quick_gelu


class TestText:
    """Prompts, tokens, blocks and features of the text tower."""

    def test_prompts_of_an_authors_file(self, golden):
        contexts = [golden.arrays[f"learner.{name}"].reshape(6, -1) for name in ("ctx_pos", "ctx_neg")]
        assert_equal(golden.model.prompts.context, np.stack(contexts), 0)
        deep = [golden.arrays[f"learner.compound_prompts_text.{index}"] for index in (0, 1)]
        assert_equal(golden.model.prompts.deep, np.stack(deep), 0)

    def test_tokens(self, golden):
        longest = golden.encoder.tokens.shape[1]
        assert_equal(golden.encoder.tokens, golden.arrays["tokens"][:, :longest], 0)
        assert not golden.arrays["tokens"][:, longest:].any()

    def test_embedded_prompts(self, golden):
        assert_equal(golden.encoder.embed(golden.model.prompts), golden.arrays["prompt_embeddings"])

    def test_blocks(self, golden):
        streams = list(golden.encoder.streams(golden.model.prompts))
        assert len(streams) == 4
        for block, stream in enumerate(streams, start=1):
            assert_equal(stream, golden.arrays[f"text_tokens_block{block}"])

    def test_features(self, golden):
        assert_equal(golden.model.text_features, golden.arrays["text_features"])
        assert_equal(
            functional.normalize(torch.from_numpy(golden.arrays["text_features_raw"])), golden.model.text_features
        )

    def test_exact_gradients_change_no_value(self, golden):
        exact = golden.encoder(golden.model.prompts, half_gradients=False)
        assert_equal(exact, golden.arrays["text_features"])

    def test_tokens_of_the_published_prompts(self, golden_clip_dir, golden):
        layout = json.loads((golden_clip_dir / "published_checkpoint_layout.json").read_text(encoding="utf-8"))
        tokens = TextEncoder(golden.model.source).tokenize([" ".join([*["X"] * 12, words]) for words in WORDS])
        assert tokens[:, :20].tolist() == [layout["tokens_normal"], layout["tokens_anomalous"]]


class TestImage:
    """Both streams of the image tower and what becomes of them."""

    def test_positional_embedding(self, golden):
        assert_equal(golden.model.clip.visual.positional_embedding, golden.arrays["visual_positional_embedding_used"])

    def test_both_streams_of_the_first_image(self, golden):
        model, arrays = golden.model, golden.arrays
        first = 6 - model.dpam_layers
        for blocks, name in ((0, "stream_layer"), (model.dpam_layers, "vv_stream_layer")):
            tower = CLIPTower(model.source, 70, range(1, 7), value_blocks=blocks, interpolation="bilinear")
            for layer, stage in enumerate(tower(golden.images[:1]).stages, start=1):
                if blocks == 0 or layer > first:
                    assert_equal(stage[0], arrays[f"{name}{layer}"])

    def test_pooled_feature(self, golden):
        assert_equal(golden.model.clip(golden.images).pooled, golden.arrays["pooled"])

    def test_patch_features(self, golden):
        clip = golden.model.clip
        for layer, stage in zip(clip.layers, clip(golden.images).stages, strict=True):
            assert_equal(clip.project(stage), golden.arrays[f"patch_layer{layer}"])

    def test_features_without_the_second_stream(self, golden):
        arrays = golden.arrays
        tower = CLIPTower(golden.model.source, 70, golden.model.layers, norm_pooled=False, interpolation="bilinear")
        features = tower(golden.images)
        assert_equal(features.pooled, arrays["pooled_plain"])
        for layer, stage in zip(tower.layers, features.stages, strict=True):
            assert_equal(tower.project(stage), arrays[f"patch_plain_layer{layer}"])


class TestVerdict:
    """Logits, probabilities, maps and scores."""

    @pytest.fixture
    def logits(self, golden):
        return golden.model.logits(*golden.model.encode(golden.images), golden.model.text_features)

    def test_logits_of_images(self, golden, logits):
        normal, anomalous = golden.arrays["image_logits"].astype(np.float64).T
        assert_equal(logits.image, anomalous - normal)

    def test_logits_and_probabilities_of_patches(self, golden, logits):
        for position, layer in enumerate(golden.model.layers):
            ours = logits.patches[:, position].flatten(1)  # (N, P)
            theirs = golden.arrays[f"logits_layer{layer}"][:, 1:].astype(np.float64)  # without the class token
            assert_equal(ours, theirs[..., 1] - theirs[..., 0])
            assert_equal(torch.sigmoid(ours), golden.arrays[f"similarity_layer{layer}"][:, 1:, 1])

    def test_maps_of_stages_before_smoothing(self, golden, logits):
        up = golden.model.upsampling
        for position, layer in enumerate(golden.model.layers):
            for channel, sign in ((0, -1), (1, 1)):
                ours = up @ torch.sigmoid(sign * logits.patches[:, position]) @ up.T
                assert_equal(ours, golden.arrays[f"similarity_map_layer{layer}"][:, channel])
            assert_equal(ours, golden.arrays[f"anomaly_map_layer{layer}"])

    def test_map_times_the_number_of_stages_is_the_authors_sum(self, golden, clip_arguments):
        name = "tiny_vit" if len(golden.model.layers) == 4 else "tiny_vit_resized"
        assert_equal(golden.model(golden.images).anomaly_map * len(golden.model.layers), golden.arrays["map_final"])
        rough = AnomalyCLIPModel(**clip_arguments(name, sigma=0.0))
        assert_equal(rough(golden.images).anomaly_map * len(golden.model.layers), golden.arrays["map_sum"])

    def test_scores(self, golden):
        assert_equal(golden.model(golden.images).pred_score, golden.arrays["prob_anomalous"])

    def test_one_by_one_and_after_other_sizes(self, golden, clip_arguments):
        whole = golden.model(golden.images)
        AnomalyCLIPModel(**clip_arguments("tiny_vit", image_size=112))(torch.rand(1, 3, 112, 112))
        for index, image in enumerate(golden.images):
            verdict = golden.model(image[None])
            assert_equal(verdict.anomaly_map[0], whole.anomaly_map[index])
            assert_equal(verdict.pred_score[0], whole.pred_score[index])


def test_whole_test_run_of_the_authors(clip_arrays, clip_arguments, tmp_path):
    arrays = clip_arrays("endtoend")
    model = AnomalyCLIPModel(**clip_arguments("tiny_vit"))
    images = torch.stack([preprocess(arrays[f"image{index}"], 70, tmp_path) for index in range(12)])
    verdict = model(images)
    assert_equal(verdict.anomaly_map * 4, arrays["maps"])
    assert_equal(verdict.pred_score, arrays["prob_anomalous"])
    for index in range(12):
        mask = resized_mask(arrays[f"mask{index}"], 70)
        assert_equal(mask, arrays["gt_binary"][index], 0)


@pytest.mark.parametrize("index", range(3))
def test_preprocessed_images(clip_arrays, tmp_path, index):
    arrays = clip_arrays("preprocess")
    assert_equal(preprocess(arrays[f"image{index}"], 70, tmp_path), arrays[f"input{index}"], 0)


@pytest.mark.parametrize("index", range(3))
def test_masks(clip_arrays, index):
    arrays = clip_arrays("preprocess")
    assert_equal(resized_mask(arrays[f"mask{index}"], 70), arrays[f"mask_binary{index}"][0], 0)


def preprocess(image: np.ndarray, size: int, folder: Path) -> torch.Tensor:
    """One of the stored images, through a file and our pre-processor."""
    Image.fromarray(image).save(folder / "image.png")
    return CLIPPreProcessor(size).transform(read_squashed(folder / "image.png", (size, size)))


def resized_mask(mask: np.ndarray, size: int) -> torch.Tensor:
    """A stored mask as the pre-processor resizes it."""
    _, resized = CLIPPreProcessor(size).transform(torch.zeros(3, *mask.shape), Mask(torch.from_numpy(mask > 0)))
    return resized.as_subclass(torch.Tensor)
