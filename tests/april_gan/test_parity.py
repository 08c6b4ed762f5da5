# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Every number of inference agrees with the authors' own code, run on the same small models (see tests/golden)."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch.nn import functional
from torchvision.tv_tensors import Mask

from anomalib_aprilgan import AprilGANModel
from anomalib_aprilgan.april_gan.torch_model import Evidence
from anomalib_aprilgan.components.anomaly_maps import logit_difference, upsample
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import patch_tokens
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.text_encoder import TextEncoder, encode_states
from anomalib_aprilgan.data.image_files import read_squashed
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor

TOLERANCE = 1e-5
MODELS = ("tiny_vit", "tiny_vit_quickgelu", "tiny_rn")
PROBES = ["a bad photo of a flawless metal nut.", "there is the pcb1 with flaw in the scene."]


def assert_equal(ours: torch.Tensor, theirs: Any, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours.detach().double(), torch.as_tensor(theirs).double(), rtol=0, atol=tolerance)


class Judged(NamedTuple):
    """A golden case: the authors' arrays, our model, and what it says of each image, asked one by one."""

    arrays: dict[str, np.ndarray]
    model: AprilGANModel
    images: torch.Tensor
    text_features: torch.Tensor
    zero_shot: list[Evidence]
    zero_shot_maps: torch.Tensor
    few_shot: list[Evidence]
    few_shot_maps: torch.Tensor


@pytest.fixture(scope="module", params=MODELS)
def judged(request, golden_arrays, golden_arguments) -> Judged:
    """All images of a golden file, each with its class, first without and then with references."""
    arrays = golden_arrays(request.param)
    images = torch.from_numpy(arrays["images"])
    zero_shot_model = AprilGANModel(**golden_arguments(request.param))
    few_shot_model = AprilGANModel(**golden_arguments(request.param))
    few_shot_model.setup(reference_images=torch.from_numpy(arrays["ref_images"]))
    text_features, evidence, maps = [], {0: [], 1: []}, {0: [], 1: []}
    for image, class_name in zip(images, arrays["class_names"], strict=True):
        for kind, model in enumerate((zero_shot_model, few_shot_model)):
            model.setup(str(class_name))
            evidence[kind].append(model.evidence(image[None]))
            maps[kind].append(model(image[None]).anomaly_map)
        text_features.append(few_shot_model.text_features)
    return Judged(
        arrays,
        few_shot_model,
        images,
        torch.stack(text_features),
        evidence[0],
        torch.cat(maps[0]),
        evidence[1],
        torch.cat(maps[1]),
    )


def test_layers_are_those_of_the_arrays(judged):
    assert judged.model.layers == tuple(judged.arrays["features_list"])
    assert judged.model.few_shot_layers == tuple(judged.arrays["few_shot_features"])
    assert judged.model.image_size == judged.arrays["image_size"]


def test_text_features_agree(judged):
    assert_equal(judged.text_features, judged.arrays["text_features"].swapaxes(1, 2))


def test_tokens_of_the_probes_agree(judged):
    encoder = TextEncoder(judged.model.source)
    assert_equal(encoder.tokenize(PROBES), judged.arrays["probe_tokens"], 0)


def test_unnormalised_text_of_the_probes_agrees(judged):
    encoder = TextEncoder(judged.model.source)
    assert_equal(encoder(PROBES), judged.arrays["probe_text"])


def test_positional_embedding_at_the_run_size_agrees(judged):
    visual = judged.model.clip.visual
    embedding = visual.positional_embedding if judged.model.clip.is_vit else visual.attnpool.positional_embedding
    assert_equal(embedding, judged.arrays["visual_positional_embedding_loaded"])


def test_pooled_features_agree(judged):
    assert_equal(judged.model.clip(judged.images).pooled, judged.arrays["pooled"])


def test_stages_agree(judged):
    clip = judged.model.clip
    for layer, stage in zip(clip.layers, clip(judged.images).stages, strict=True):
        assert_equal(stage, judged.arrays[f"tokens_layer{layer}"])


def test_adapted_patches_agree(judged):
    stages = judged.model.clip(judged.images).stages
    adapted = [judged.model.adapters(patch_tokens(stage), place) for place, stage in enumerate(stages)]
    for layer, patches in zip(judged.model.layers, adapted, strict=True):
        assert_equal(patches, judged.arrays[f"adapted_layer{layer}"])


@pytest.mark.parametrize("index", range(3))
def test_differences_of_logits_agree_before_and_after_upsampling(judged, index):
    size, text = judged.model.image_size, judged.text_features[index]
    stages = judged.model.clip(judged.images[index : index + 1]).stages
    adapted = [judged.model.adapters(patch_tokens(stage), place) for place, stage in enumerate(stages)]
    for layer, patches in zip(judged.model.layers, adapted, strict=True):
        ours = logit_difference(patches, text)  # (1, P)
        normal, anomalous = judged.arrays[f"lowres_logits_layer{layer}"][index].astype(np.float64)
        # A float32 logit of some tens has a step of 4e-6.
        assert_equal(ours[0], (anomalous - normal).ravel(), 3e-5)
        normal, anomalous = judged.arrays[f"logits_layer{layer}"][index].astype(np.float64)
        assert_equal(upsample(ours, size)[0], anomalous - normal, 3e-5)


def test_stage_maps_agree(judged):
    for position, layer in enumerate(judged.model.layers):
        ours = torch.cat([evidence.zero_shot_maps[:, position] for evidence in judged.zero_shot])
        assert_equal(ours, judged.arrays[f"softmax_layer{layer}"])


def test_zero_shot_map_times_the_number_of_stages_is_the_authors_sum(judged):
    sums = judged.zero_shot_maps * len(judged.model.layers)
    assert_equal(sums, judged.arrays["map_zero"])
    assert_equal(sums.amax(dim=(1, 2)), judged.arrays["max_zero"])


def test_text_scores_agree_with_and_without_references(judged):
    for evidence in (judged.zero_shot, judged.few_shot):
        assert_equal(torch.cat([one.text_score for one in evidence]), judged.arrays["prob_anomalous"])


def test_memory_holds_the_authors_tokens_at_unit_length(judged):
    references = judged.model.clip(torch.from_numpy(judged.arrays["ref_images"]))
    raw = dict(zip(judged.model.clip.layers, references.stages, strict=True))
    for layer, bank in zip(judged.model.few_shot_layers, judged.model.memory_banks, strict=True):
        theirs = torch.from_numpy(judged.arrays[f"memory_layer{layer}"])
        assert_equal(patch_tokens(raw[layer]).flatten(0, 1), theirs)
        assert_equal(bank.tokens, functional.normalize(theirs, dim=-1))


def test_distances_to_the_memory_agree_a_patch(judged):
    stages = judged.model.clip(judged.images).stages
    tokens = {layer: patch_tokens(stage) for layer, stage in zip(judged.model.clip.layers, stages, strict=True)}
    for layer, bank in zip(judged.model.few_shot_layers, judged.model.memory_banks, strict=True):
        assert_equal(bank.distance(tokens[layer]), judged.arrays[f"few_lowres_layer{layer}"].reshape(3, -1))


def test_few_shot_maps_agree(judged):
    for position, layer in enumerate(judged.model.few_shot_layers):
        ours = torch.cat([evidence.few_shot_maps[:, position] for evidence in judged.few_shot])
        assert_equal(ours, judged.arrays[f"few_layer{layer}"])
    sums = torch.cat([evidence.few_shot_maps.sum(dim=1) for evidence in judged.few_shot])
    assert_equal(sums, judged.arrays["map_few"])


def test_few_shot_map_times_the_number_of_all_stage_maps_is_the_authors_sum(judged):
    sums = judged.few_shot_maps * (len(judged.model.layers) + len(judged.model.few_shot_layers))
    assert_equal(sums, judged.arrays["map_comb"])
    assert_equal(sums.amax(dim=(1, 2)), judged.arrays["max_comb"])


def test_authors_few_shot_score_follows_from_our_evidence(judged):
    largest = [torch.cat([one.zero_shot_maps, one.few_shot_maps], dim=1).sum(dim=1).max() for one in judged.few_shot]
    texts = torch.cat([one.text_score for one in judged.few_shot])
    assert_equal((texts + minmax(torch.stack(largest))) / 2, judged.arrays["image_score_few_shot"])


def test_resnet_judges_with_running_statistics_and_not_those_of_one_image(golden_arrays, golden_arguments):
    arrays = golden_arrays("tiny_rn")
    model = AprilGANModel(**golden_arguments("tiny_rn")).train()
    pooled = model.clip(torch.from_numpy(arrays["images"][:1])).pooled
    assert_equal(pooled, arrays["pooled"][:1])
    assert np.abs(pooled.numpy() - arrays["bn_train.pooled"][:1]).max() > 0.01


def test_adapters_in_the_authors_format_give_the_same_maps(golden_arrays, golden_arguments, golden_adapters):
    arrays = golden_arrays("tiny_vit")
    model = AprilGANModel(**{**golden_arguments("tiny_vit"), "adapters": golden_adapters("tiny_vit", ".pth")})
    model.setup(str(arrays["class_names"][0]))
    assert_equal(model(torch.from_numpy(arrays["images"][:1])).anomaly_map * 4, arrays["map_zero"][:1])


@pytest.mark.parametrize("mode", ["zero_shot", "few_shot"])
@pytest.mark.parametrize("class_index", [0, 1])
def test_whole_test_run_of_the_authors_agrees(golden_arrays, golden_arguments, mode, class_index):
    arrays = golden_arrays("endtoend")
    class_name = str(arrays["classes"][class_index])
    chosen = arrays["cls_names"] == class_name
    model = AprilGANModel(**golden_arguments("tiny_vit"))
    references = torch.from_numpy(arrays["ref_images"][class_index]) if mode == "few_shot" else None
    model.setup(class_name, references)
    images = torch.from_numpy(arrays["images"][chosen])

    verdict, evidence = model(images), model.evidence(images)
    sums = verdict.anomaly_map * (6 if mode == "few_shot" else 4)
    assert_equal(sums, arrays[f"{mode}.maps"][chosen])
    few_shot_score = (evidence.text_score + minmax(sums.amax(dim=(1, 2)))) / 2
    scores = {"zero_shot": verdict.pred_score, "few_shot": few_shot_score}
    assert_equal(scores[mode], arrays[f"{mode}.image_score"][chosen])


@pytest.mark.parametrize("index", range(4))
def test_preprocessed_images_are_those_of_the_authors(golden_arrays, tmp_path, index):
    arrays = golden_arrays("preprocess")
    difference = in_grey_levels(preprocess(arrays, index, tmp_path) - torch.from_numpy(arrays[f"input{index}"])).abs()
    assert difference.max() < 1e-3


def test_normalisation_is_that_of_the_authors(golden_arrays):
    arrays = golden_arrays("preprocess")
    assert tuple(arrays["mean"]) == OPENAI_DATASET_MEAN
    assert tuple(arrays["std"]) == OPENAI_DATASET_STD


@pytest.mark.parametrize("index", range(4))
def test_masks_are_those_of_the_authors(golden_arrays, index):
    arrays = golden_arrays("preprocess")
    mask = Mask(torch.from_numpy(arrays[f"mask{index}"] > 0))
    _, ours = CLIPPreProcessor(int(arrays["image_size"])).transform(torch.zeros(3, *mask.shape), mask)
    theirs = torch.from_numpy(arrays[f"mask_binary{index}"])[0] > 0
    assert ours.dtype == torch.bool
    assert torch.equal(ours.as_subclass(torch.Tensor), theirs)


def test_encoding_states_needs_no_model_but_a_text_tower(golden_arrays, golden_weights, golden_dir):
    arrays = golden_arrays("tiny_rn")
    source = CLIPSource.resolve(str(golden_dir / "tiny_rn.json"), str(golden_weights("tiny_rn")))
    ours = encode_states(TextEncoder(source), PromptEnsemble(), str(arrays["class_names"][2]))
    assert_equal(ours, arrays["text_features"][2].T)


def minmax(values: torch.Tensor) -> torch.Tensor:
    """The authors' min-max over all images of a class, which a verdict on one image cannot use."""
    return (values - values.min()) / (values.max() - values.min())


def preprocess(arrays: dict[str, np.ndarray], index: int, folder: Path) -> torch.Tensor:
    """One of the stored images, through a file and our pre-processor."""
    Image.fromarray(arrays[f"image{index}"]).save(folder / "image.png")
    size = int(arrays["image_size"])
    return CLIPPreProcessor(size).transform(read_squashed(folder / "image.png", (size, size)))


def in_grey_levels(normalised: torch.Tensor) -> torch.Tensor:
    """Differences of normalised images, counted in steps of 8-bit images."""
    return normalised * torch.tensor(OPENAI_DATASET_STD)[:, None, None] * 255
