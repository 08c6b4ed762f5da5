# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The learned prompts of AnomalyCLIP, and their files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from anomalib_aprilgan.components.download import git_blob_hash
from anomalib_aprilgan.components.trained_file import TrainedWith, not_finite, read_trained, write_trained

# Standard deviation of new prompts (AnomalyCLIP_PromptLearner in the authors' prompt_ensemble.py).
INITIAL_DEVIATION = 0.02
AUTHORS_KEY = "prompt_learner"
AUTHORS_CONTEXTS = ("ctx_pos", "ctx_neg")  # "positive" is normal
AUTHORS_DEEP = "compound_prompts_text."

# The authors' published files hold no metadata, so they are known by their git blob hashes
# (github.com/zqhang/AnomalyCLIP, commit 45ed4dd, checkpoints). Each was trained on four copies of the last stage.
PUBLISHED = {
    blob: TrainedWith(
        "ViT-L-14-336", "openai", quick_gelu=True, layers=(24,), image_size=518, trained_on=data, dpam_layers=19
    )
    for blob, data in (
        ("72adc786e031b49ea288ba5f815f0d38cf158708", "mvtec"),
        ("c90f1d9d92d158b436a8fc193f984d4cec8b1fc8", "visa"),
    )
}


class LearnedPrompts(nn.Module):
    """One pair of prompts for all objects: vectors in the place of words.

    Source: paper sections 3.2 and 3.3; ``AnomalyCLIP_PromptLearner`` in the authors' ``prompt_ensemble.py``.

    Args:
        width (int): Width W of the text tower.
        length (int): Number of vectors before the words "object." and "damaged object.".
        deep_length (int): Number of vectors that replace the first tokens in between blocks.
        depth (int): Number of the text tower's blocks that get learned vectors, the first ``context``, each further one
            a row of ``deep``; 1 has no deep prompts.

    Attributes:
        context (nn.Parameter): Normal first, (2, length, W).
        deep (nn.Parameter): For both prompts alike, (depth - 1, deep_length, W); (0, 1, W) for depth 1, whatever the
            length.

    Raises:
        ValueError: If a number is out of range.

    Example:
        >>> prompts = LearnedPrompts(width=64, length=12, deep_length=4, depth=9)
        >>> prompts.context.shape, prompts.deep.shape
        (torch.Size([2, 12, 64]), torch.Size([8, 4, 64]))
    """

    def __init__(self, width: int, length: int = 12, deep_length: int = 4, depth: int = 9) -> None:
        super().__init__()
        for name, value in (
            ("prompt_length", length),
            ("deep_prompt_length", deep_length),
            ("deep_prompt_depth", depth),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                msg = f"{name}={value!r} must be a positive integer; deep_prompt_depth=1 has no deep prompts."
                raise ValueError(msg)
        if deep_length > length:
            msg = f"deep_prompt_length={deep_length} must not exceed prompt_length={length}: words would be lost."
            raise ValueError(msg)
        self.context = nn.Parameter(torch.empty(2, length, width))
        self.deep = nn.Parameter(torch.empty(depth - 1, deep_length if depth > 1 else 1, width))
        self.deep.requires_grad_(depth > 1)  # several processes wait for the gradient of what has none
        self.reset()

    def reset(self) -> None:
        """Draw new prompts from torch's default generator."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=INITIAL_DEVIATION)

    @property
    def length(self) -> int:
        """Number of vectors before the words."""
        return self.context.shape[1]

    @property
    def is_loaded(self) -> bool:
        """Whether the prompts are there, and not still to come with a checkpoint."""
        return not any(parameter.isnan().any() for parameter in self.parameters())

    def await_weights(self) -> None:
        """Make sure that nobody uses the prompts before a checkpoint brings them."""
        for parameter in self.parameters():
            nn.init.constant_(parameter, float("nan"))

    def save(self, path: str | Path, trained_with: TrainedWith) -> None:
        """Write the prompts as safetensors, with what they belong to.

        Raises:
            OSError: If the file cannot be written.
            ValueError: If the prompts hold NaN or infinite values.
        """
        write_trained(path, self.state_dict(), trained_with)


@dataclass(frozen=True)
class PromptFile:
    """Prompts and metadata as read from a file; see :func:`read_prompts`."""

    path: Path
    weights: dict[str, torch.Tensor]
    trained_with: TrainedWith

    def load_into(self, prompts: LearnedPrompts) -> None:
        """Give a model these prompts.

        Raises:
            ValueError: If the shapes differ; both sides are named.
        """
        found = {name: tuple(tensor.shape) for name, tensor in self.weights.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in prompts.state_dict().items()}
        if found != expected:
            (_, length, width), (deeper, deep_length, _) = found["context"], found["deep"]
            msg = (
                f"{self.path} holds prompts of shapes {found}, the model needs {expected}. Set "
                f"prompt_length={length}, deep_prompt_length={deep_length}, deep_prompt_depth={deeper + 1} and a "
                f"backbone whose text tower has width {width}."
            )
            raise ValueError(msg)
        prompts.load_state_dict(self.weights)


def read_prompts(path: str | Path) -> PromptFile:
    """Read prompts from safetensors (ours) or from a ``.pth`` of the authors' code.

    Args:
        path (str | Path): The file.

    Returns:
        PromptFile: Prompts in float32, and metadata as far as they are known.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no prompts.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        msg = (
            f"Prompts {str(path)!r} are neither mvtec, visa, embedded nor a file. Give one of these names, or the path "
            "of a .safetensors file or of a .pth of the authors' code; AnomalyCLIP also takes auto."
        )
        raise FileNotFoundError(msg)
    try:
        weights, trained_with = read_trained(path) if path.suffix == ".safetensors" else _read_authors(path)
        weights = by_our_names(weights)
        _refuse_other_weights(weights)
    except Exception as error:  # whatever a file holds instead, its reader stumbles over it
        msg = f"{path} holds no prompts ({error}). Expected context and deep in safetensors, or the authors' .pth."
        raise ValueError(msg) from error
    return PromptFile(path, weights, trained_with)


def _refuse_other_weights(weights: Mapping[str, torch.Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    is_pair = shapes.keys() == {"context", "deep"} and all(len(shape) == 3 for shape in shapes.values())
    if not is_pair or shapes["context"][0] != 2:
        msg = f"it holds {dict(list(shapes.items())[:3])}"
        raise ValueError(msg)
    if broken := not_finite(weights):
        msg = f"{broken} has NaN or infinite values"
        raise ValueError(msg)


def _read_authors(path: Path) -> tuple[dict[str, torch.Tensor], TrainedWith]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    return dict(content.get(AUTHORS_KEY, content)), PUBLISHED.get(git_blob_hash(path), TrainedWith())


def by_our_names(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contexts and deep prompts in float32; all else in a file of the authors is unused, or is CLIP's own.

    Args:
        weights (Mapping[str, torch.Tensor]): By our names, or by the authors': ``ctx_pos`` and ``ctx_neg``,
            (1, 1, n, W), and ``compound_prompts_text.{i}``, (t, W).

    Returns:
        dict[str, torch.Tensor]: ``context`` (2, n, W) and ``deep`` (depth - 1, t, W).
    """
    if not set(AUTHORS_CONTEXTS) <= weights.keys():
        return {name: tensor.float() for name, tensor in weights.items()}
    context = torch.stack([weights[name].float().flatten(0, -2) for name in AUTHORS_CONTEXTS])  # (2, n, W)
    number = sum(name.startswith(AUTHORS_DEEP) for name in weights)
    deep = [weights[f"{AUTHORS_DEEP}{index}"].float() for index in range(number)]  # (t, W) each
    stacked = torch.stack(deep) if deep else context.new_zeros(0, 1, context.shape[2])
    return {"context": context, "deep": stacked}
