# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The frozen text tower, reading learned prompts: gradients flow through it, but none into it."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.clip_tower import residual_stream
from anomalib_aprilgan.components.text_encoder import TextEncoder

from .learned_prompts import LearnedPrompts

# What follows the learned vectors, of normal and anomalous; no class name (paper section 3.2).
WORDS = ("object.", "damaged object.")
# A word of one token that holds a vector's place.
PLACE = "X"


class PromptEncoder(nn.Module):
    """Frozen text tower of a CLIP for prompts of one length.

    Args:
        source (CLIPSource): Architecture, weights and activation.
        length (int): Number of learned vectors before the words.

    Raises:
        ValueError: If so many vectors do not fit into the tower's context.

    Example:
        >>> encoder = PromptEncoder(CLIPSource.resolve("ViT-S-32-alt", None), length=12)
        >>> encoder(LearnedPrompts(encoder.width)).shape
        torch.Size([2, 256])
    """

    tokens: torch.Tensor

    def __init__(self, source: CLIPSource, length: int) -> None:
        super().__init__()
        encoder = TextEncoder(source)
        longest = encoder.context_length - 5  # start, "damaged", "object", ".", end
        if length > longest:
            msg = f"prompt_length={length} does not fit into the text tower, which has room for {longest}."
            raise ValueError(msg)
        self.clip: Any = encoder.clip
        tokens = encoder.tokenize([" ".join([*[PLACE] * length, words]) for words in WORDS])  # (2, L)
        end = int(tokens.argmax(dim=1).max()) + 1  # the end token has the highest number
        self.register_buffer("tokens", tokens[:, :end], persistent=False)  # padding is behind the causal mask

    @property
    def width(self) -> int:
        """Width of the text tower."""
        return int(self.clip.positional_embedding.shape[1])

    def forward(self, prompts: LearnedPrompts, *, half_gradients: bool = True) -> torch.Tensor:
        """Encode both prompts.

        Source: ``encode_text_learn`` and the text transformer in the authors' ``AnomalyCLIP.py``.

        Args:
            prompts (LearnedPrompts): Vectors of the length that the encoder was built for.
            half_gradients (bool): Whether gradients of deep prompts are rounded to half precision, as they are in the
                authors' code; small ones are lost.

        Returns:
            torch.Tensor: Two unit vectors, normal first, (2, E), float32.
        """
        with torch.autocast(self.tokens.device.type, enabled=False):
            final = deque(self.streams(prompts, half_gradients=half_gradients), maxlen=1).pop()  # (2, L, W)
            ends = final[torch.arange(len(WORDS)), self.tokens.argmax(dim=1)]  # (2, W)
            return functional.normalize(self.clip.ln_final(ends) @ self.clip.text_projection, dim=-1)

    def streams(self, prompts: LearnedPrompts, *, half_gradients: bool = True) -> Iterator[torch.Tensor]:
        """The residual stream after each block, (2, L, W); arguments as those of ``forward``."""
        clip, length = self.clip, self.tokens.shape[1]
        stream = self.embed(prompts) + clip.positional_embedding[:length]  # (2, L, W)
        mask = torch.full((length, length), float("-inf"), device=stream.device).triu(1)
        for index in range(len(clip.transformer.resblocks)):
            # The first block reads the contexts; rows of deep for blocks that are not there count for nothing.
            if 0 < index <= len(prompts.deep):
                deep = _half(prompts.deep[index - 1].expand(len(WORDS), -1, -1), half_gradients=half_gradients)
                stream = _replace_first(stream, deep)
            stream = next(residual_stream(clip.transformer.resblocks[index : index + 1], stream, mask))
            yield stream

    def embed(self, prompts: LearnedPrompts) -> torch.Tensor:
        """Start token, vectors, words and end token, before positions are added, (2, L, W)."""
        return _replace_first(self.clip.token_embedding(self.tokens), prompts.context)


def _replace_first(stream: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Put vectors (2, n, W) in the place of the first n tokens after the start token."""
    return torch.cat([stream[:, :1], vectors, stream[:, 1 + vectors.shape[1] :]], dim=1)


def _half(vectors: torch.Tensor, *, half_gradients: bool) -> torch.Tensor:
    """Round to half precision; gradients are rounded the same way, or else pass unchanged."""
    rounded = vectors.half().float()
    return rounded if half_gradients else vectors + (rounded - vectors).detach()
