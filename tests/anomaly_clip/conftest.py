# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Small CLIPs and prompts by the rule of the golden arrays of AnomalyCLIP (see tests/golden_anomaly_clip)."""

import functools
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.weight_rule import golden_tensor
from PIL import Image
from safetensors.torch import save_file

GOLDEN_ANOMALY_CLIP = Path(__file__).parents[1] / "golden_anomaly_clip"
TEXT_WIDTH = 128
SIDE = 64


def golden_prompts(length: int = 6, deep_length: int = 4, depth: int = 3) -> dict[str, torch.Tensor]:
    """What the authors' prompt learner held, by their names."""
    shapes = dict.fromkeys(("ctx_pos", "ctx_neg"), (1, 1, length, TEXT_WIDTH))
    shapes |= {f"compound_prompts_text.{index}": (deep_length, TEXT_WIDTH) for index in range(depth - 1)}
    noise = {
        name: np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape) for name, shape in shapes.items()
    }
    return {name: torch.from_numpy(np.float32(0.1) * values.astype(np.float32)) for name, values in noise.items()}


@pytest.fixture(scope="session")
def clip_arrays() -> Callable[[str], dict[str, np.ndarray]]:
    """Arrays of a golden file of AnomalyCLIP by name."""

    @functools.cache
    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN_ANOMALY_CLIP / f"{name}.npz") as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def clip_backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Factory of ``backbone`` and ``pretrained`` of ``tiny_vit`` and ``tiny_vit_resized``."""
    folder = tmp_path_factory.mktemp("golden_anomaly_clip")

    @functools.cache
    def write(name: str) -> dict[str, str]:
        from open_clip.model import CLIP  # some seconds, which tests without a model need not wait

        config = json.loads((GOLDEN_ANOMALY_CLIP / f"{name}.json").read_text(encoding="utf-8"))["model"]
        with torch.device("meta"):
            expected = CLIP(**config).state_dict()
        tensors = {
            key: torch.from_numpy(np.asarray(golden_tensor(key, tensor.shape)))
            for key, tensor in expected.items()
            if tensor.is_floating_point()
        }
        (folder / f"{name}.json").write_text(json.dumps(config), encoding="utf-8")
        save_file(tensors, folder / f"{name}.safetensors")
        return {"backbone": str(folder / f"{name}.json"), "pretrained": str(folder / f"{name}.safetensors")}

    return write


@pytest.fixture(scope="session")
def authors_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as the authors write them, with their dead weight."""
    path = tmp_path_factory.mktemp("authors_prompts") / "epoch_15.pth"
    extra = {
        "token_prefix_pos": torch.zeros(1, 1, 1, TEXT_WIDTH),
        "tokenized_prompts_pos": torch.zeros(1, 1, 77, dtype=torch.int32),
        "compound_prompt_projections.0.weight": torch.zeros(896, TEXT_WIDTH),
    }
    torch.save({"prompt_learner": {**golden_prompts(), **extra}}, path)
    return path


@pytest.fixture(scope="session")
def clip_arguments(
    clip_backbone: Callable[[str], dict[str, str]], authors_prompts: Path
) -> Callable[..., dict[str, Any]]:
    """Factory of a model's arguments under which it must agree with the golden arrays of that name."""

    def build(name: str, **changes: Any) -> dict[str, Any]:
        settings = json.loads((GOLDEN_ANOMALY_CLIP / f"{name}.json").read_text(encoding="utf-8"))
        arguments = {
            **clip_backbone(name),
            "image_size": settings["image_size"],
            "layers": settings["features_list"],
            "dpam_layers": settings["dpam_layer"] - 1,
            "prompt_length": settings["n_ctx"],
            "deep_prompt_length": settings["t_n_ctx"],
            "deep_prompt_depth": settings["depth"],
            "prompt_weights": str(authors_prompts),
            "sigma": float(settings["sigma"]),
        }
        return {**arguments, **changes}

    return build


@pytest.fixture(scope="session")
def learner() -> dict[str, torch.Tensor]:
    """The prompts of the golden arrays, by the authors' names."""
    return golden_prompts()


@pytest.fixture(scope="session")
def golden_clip_dir() -> Path:
    """Folder of the golden arrays of AnomalyCLIP."""
    return GOLDEN_ANOMALY_CLIP


@pytest.fixture
def small_arguments(tiny_backbone: str) -> dict[str, Any]:
    """Arguments of a model with random weights: 4 x 4 patches, no file but its config."""
    return {
        "backbone": tiny_backbone,
        "pretrained": None,
        "image_size": 56,
        "layers": [2, 4],
        "dpam_layers": 3,
        "prompt_length": 4,
        "deep_prompt_length": 2,
        "deep_prompt_depth": 3,
    }


@pytest.fixture(scope="session")
def mvtec_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three categories as MVTec AD has them, each with two good test images of noise and two with a white square."""
    root = tmp_path_factory.mktemp("mvtec")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 16:48] = 255
    for category in ("bottle", "cable", "carpet"):
        for seed, kind in enumerate(("train/good", "test/good", "test/good", "test/bad", "test/bad")):
            pixels = np.random.default_rng([seed, *category.encode()]).integers(90, 160, (SIDE, SIDE, 3))
            if kind == "test/bad":
                pixels[mask > 0] = 255
                save_image(root / category / "ground_truth" / "bad" / f"{seed}_mask.png", mask)
            save_image(root / category / kind / f"{seed}.png", pixels.astype(np.uint8))
    return root


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
