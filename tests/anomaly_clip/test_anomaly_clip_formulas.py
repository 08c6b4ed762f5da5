# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Whole verdicts under settings that no golden array has, against the formulas written out in NumPy and float64."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.ndimage import gaussian_filter
from scipy.special import expit, softmax

from anomalib_aprilgan.anomaly_clip import AnomalyCLIPModel

Array = np.ndarray
TEMPERATURE = 0.07
PATCH = 14
HEAD_WIDTH = 64


class Reference:
    """AnomalyCLIP by the words of tests/golden_anomaly_clip/README.md.

    Args:
        weights: The CLIP's, by their names.
        prompts: By the authors' names.
    """

    def __init__(self, weights: dict[str, Array], prompts: dict[str, Array]) -> None:
        self.weights = {name: values.astype(np.float64) for name, values in weights.items()}
        self.prompts = prompts

    def norm(self, tokens: Array, name: str) -> Array:
        centred = tokens - tokens.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, tokens: Array, name: str, ending: str = ".") -> Array:
        return tokens @ self.weights[f"{name}{ending}weight"].T + self.weights[f"{name}{ending}bias"]

    def attend(self, tokens: Array, block: str, by_values: bool, mask: Array | float = 0.0) -> Array:
        """What attention adds to tokens (N, T, W), head by head."""
        query, key, value = np.split(
            self.linear(self.norm(tokens, f"{block}.ln_1"), f"{block}.attn", ".in_proj_"), 3, -1
        )
        if by_values:
            query = key = value
        heads = [slice(start, start + HEAD_WIDTH) for start in range(0, tokens.shape[-1], HEAD_WIDTH)]
        scores = [query[..., head] @ key[..., head].swapaxes(1, 2) / math.sqrt(HEAD_WIDTH) + mask for head in heads]
        mixed = [softmax(score, axis=-1) @ value[..., head] for score, head in zip(scores, heads, strict=True)]
        return self.linear(np.concatenate(mixed, axis=-1), f"{block}.attn.out_proj")

    def usual(self, tokens: Array, block: str, mask: Array | float = 0.0) -> Array:
        tokens = tokens + self.attend(tokens, block, by_values=False, mask=mask)
        hidden = self.linear(self.norm(tokens, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        return tokens + self.linear(hidden * expit(1.702 * hidden), f"{block}.mlp.c_proj")

    def text(self, tokens: Array) -> Array:
        """Two unit vectors, (2, E)."""
        context = np.stack([self.prompts[name][0, 0] for name in ("ctx_pos", "ctx_neg")]).astype(np.float64)
        stream = self.weights["token_embedding.weight"][tokens]  # (2, L, W)
        stream[:, 1 : 1 + context.shape[1]] = context
        stream += self.weights["positional_embedding"][: tokens.shape[1]]
        mask = np.triu(np.full((tokens.shape[1],) * 2, -np.inf), 1)
        for index in range(4):
            deep = self.prompts.get(f"compound_prompts_text.{index - 1}")
            if deep is not None:
                stream[:, 1 : 1 + len(deep)] = deep.astype(np.float16)
            stream = self.usual(stream, f"transformer.resblocks.{index}", mask)
        ends = self.norm(stream, "ln_final")[[0, 1], tokens.argmax(axis=1)]
        return unit(ends @ self.weights["text_projection"])

    def streams(self, images: Array, value_blocks: int) -> list[tuple[Array, Array]]:
        """The usual stream and the one that a stage is taken from, after each of six blocks."""
        count, side = len(images), images.shape[-1] // PATCH
        squares = images.reshape(count, 3, side, PATCH, side, PATCH).transpose(0, 2, 4, 1, 3, 5)  # (N, g, g, 3, p, p)
        embedded = squares.reshape(count, side**2, -1) @ self.weights["visual.conv1.weight"].reshape(-1, 3 * PATCH**2).T
        positions = self.weights["visual.positional_embedding"]  # (1 + 5*5, W)
        up = bilinear(5, side)
        grid = np.einsum("ia,jb,abw->ijw", up, up, positions[1:].reshape(5, 5, -1)).reshape(side**2, -1)  # (g*g, W)
        first = np.broadcast_to(self.weights["visual.class_embedding"] + positions[0], (count, 1, embedded.shape[-1]))
        usual = self.norm(np.concatenate([first, embedded + grid], axis=1), "visual.ln_pre")
        values, found = None, []
        for index in range(6):
            block = f"visual.transformer.resblocks.{index}"
            if index >= 6 - value_blocks:
                values = (usual if values is None else values) + self.attend(usual, block, by_values=True)
            usual = self.usual(usual, block)
            found.append((usual, usual if values is None else values))
        return found

    def verdict(self, images: Array, tokens: Array, settings: dict[str, Any]) -> tuple[Array, Array]:
        """Maps (N, S, S), a mean over stages, and scores (N,)."""
        text, streams = self.text(tokens), self.streams(images, settings["dpam_layers"])
        up = bilinear(images.shape[-1] // PATCH, images.shape[-1])
        maps = []
        for layer in settings["layers"]:
            features = self.norm(streams[layer - 1][1], "visual.ln_post") @ self.weights["visual.proj"]
            anomalous = softmax(unit(features) @ text.T / TEMPERATURE, axis=-1)[:, 1:, 1]
            grids = anomalous.reshape(len(images), up.shape[1], up.shape[1])  # (N, g, g)
            maps.append([gaussian_filter(up @ grid @ up.T, settings["sigma"]) for grid in grids])
        pooled = unit(streams[-1][0][:, 0] @ self.weights["visual.proj"])
        return np.mean(maps, axis=0), softmax(pooled @ text.T / TEMPERATURE, axis=-1)[:, 1]


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def bilinear(old: int, new: int) -> Array:
    """Weights of each of the old points of a row for each new one; corners not aligned."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.clip(1 - np.abs(places[:, None] - np.arange(old)), 0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"dpam_layers": 0, "layers": [1, 3, 6]},
        {"dpam_layers": 6, "layers": [1, 6]},
        {"dpam_layers": 2, "layers": [2, 4]},  # before the second stream begins
        {"image_size": 98, "layers": [6]},
        {"image_size": 42, "sigma": 2.5},
        {"image_size": 14, "sigma": 0.0},
        {"sigma": 30.0},
        {"deep_prompt_depth": 9},  # more than there are blocks
        {"deep_prompt_depth": 1},
        {"prompt_length": 12, "deep_prompt_length": 12, "deep_prompt_depth": 4},
        {"prompt_length": 1, "deep_prompt_length": 1},
    ],
    ids=str,
)
def test_verdicts_are_those_of_the_formulas(clip_arguments, golden_clip_dir, changes, tmp_path):
    settings = {**clip_arguments("tiny_vit", layers=[2, 5], dpam_layers=3), **changes}
    prompts = random_prompts(settings)
    settings["prompt_weights"] = str(tmp_path / "epoch_15.pth")
    saved = {name: torch.from_numpy(values) for name, values in prompts.items()}
    torch.save({"prompt_learner": saved}, settings["prompt_weights"])
    size = settings["image_size"]
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    tokens = published_tokens(golden_clip_dir, settings["prompt_length"])
    reference = Reference(load_file(settings["pretrained"]), prompts)
    maps, scores = reference.verdict(images.astype(np.float64), tokens, settings)
    ours = AnomalyCLIPModel(**settings)(torch.from_numpy(images))
    np.testing.assert_allclose(ours.anomaly_map, maps, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.pred_score, scores, rtol=0, atol=1e-5)


def random_prompts(settings: dict[str, Any]) -> dict[str, Array]:
    """Prompts of the lengths that are set, by the authors' names."""
    generator, width = np.random.default_rng(1), 128
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("ctx_pos", "ctx_neg"), (1, 1, settings["prompt_length"], width))
    for index in range(settings["deep_prompt_depth"] - 1):
        shapes[f"compound_prompts_text.{index}"] = (settings["deep_prompt_length"], width)
    return {name: 0.3 * generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def published_tokens(folder: Path, length: int) -> Array:
    """The published prompts' tokens with so many places for vectors in front of the words, (2, 20)."""
    layout = json.loads((folder / "published_checkpoint_layout.json").read_text(encoding="utf-8"))
    rows = [layout[name] for name in ("tokens_normal", "tokens_anomalous")]  # start, 12 places, words, end, padding
    return np.array([[row[0], *[row[1]] * length, *row[13:20]] for row in rows])
