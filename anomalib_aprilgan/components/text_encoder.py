# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""CLIP's text tower: sentences -> one unit vector per state of a class, computed once and kept on disk."""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from open_clip import version as open_clip_version
from open_clip.tokenizer import SimpleTokenizer
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional

from .cache import cache_dir, write_cache_entry
from .clip_source import CLIPSource
from .clip_tower import residual_stream
from .prompts import PromptEnsemble

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
# Part of every cache key: raise it when the encoding changes.
CACHE_FORMAT = 1


class TextEncoder(nn.Module):
    """Frozen text tower of a CLIP.

    Args:
        source (CLIPSource): Architecture, weights and activation.

    Example:
        >>> encoder = TextEncoder(CLIPSource.resolve("ViT-S-32-alt", None))
        >>> encoder(["a photo of a nut.", "a photo of a broken nut."]).shape
        torch.Size([2, 256])
    """

    def __init__(self, source: CLIPSource) -> None:
        super().__init__()
        self.clip: Any = source.build_text()
        self.context_length: int = self.clip.context_length
        self.tokenizer = SimpleTokenizer(context_length=self.context_length)

    def tokenize(self, sentences: Sequence[str]) -> torch.Tensor:
        """Token ids of sentences, (M, context_length).

        Raises:
            ValueError: If a sentence does not fit; open_clip would cut it silently.
        """
        for sentence in sentences:
            length = len(self.tokenizer.encode(sentence)) + 2  # start and end token
            if length > self.context_length:
                msg = (
                    f"{sentence!r} has {length} tokens, CLIP reads {self.context_length}. Shorten class name or prompt."
                )
                raise ValueError(msg)
        tokens: torch.Tensor = self.tokenizer(list(sentences))
        return tokens

    @torch.no_grad()
    def forward(self, sentences: Sequence[str]) -> torch.Tensor:
        """Encode sentences, not normalised.

        Sentences of like length go together, cut to the longest of them: under the causal mask no token sees the
        padding after it.

        Args:
            sentences (Sequence[str]): M sentences.

        Returns:
            torch.Tensor: (M, E), float32.
        """
        tokens = self.tokenize(sentences).to(self.clip.positional_embedding.device)  # (M, L)
        lengths = tokens.argmax(dim=1) + 1  # the end token has the highest number
        order = lengths.argsort(stable=True)
        with torch.autocast(tokens.device.type, enabled=False):  # the cache outlives it
            encoded = torch.cat(list(self._encode_batches(tokens[order], lengths[order])))  # (M, E)
        return encoded[order.argsort()]

    def _encode_batches(self, tokens: torch.Tensor, lengths: torch.Tensor) -> Iterator[torch.Tensor]:
        for batch, batch_lengths in zip(tokens.split(BATCH_SIZE), lengths.split(BATCH_SIZE), strict=True):
            yield self.encode_tokens(batch[:, : int(batch_lengths[-1])])

    @torch.no_grad()
    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """CLIP's text feature of tokenised sentences, not normalised.

        Args:
            tokens (torch.Tensor): Token ids, any length up to the context's, each row with its end token, (M, L).

        Returns:
            torch.Tensor: (M, E), float32.
        """
        clip, length = self.clip, tokens.shape[1]
        stream = clip.token_embedding(tokens) + clip.positional_embedding[:length]  # (M, L, W)
        mask = torch.full((length, length), float("-inf"), device=tokens.device).triu(1)
        final = deque(residual_stream(clip.transformer.resblocks, stream, mask), maxlen=1).pop()  # (M, L, W)
        ends = final[torch.arange(len(tokens)), tokens.argmax(dim=1)]  # (M, W)
        features: torch.Tensor = clip.ln_final(ends) @ clip.text_projection
        return features


def encode_states(encoder: TextEncoder, prompts: PromptEnsemble, class_name: str) -> torch.Tensor:
    """Two unit vectors for one class.

    Source: paper section 2.1; ``encode_text_with_prompt_ensemble`` in the authors' ``prompt_ensemble.py``: normalise
    every sentence, average, normalise again.

    Args:
        encoder (TextEncoder): Text tower.
        prompts (PromptEnsemble): States and templates.
        class_name (str): Name of the product.

    Returns:
        torch.Tensor: Normal first, (2, E).
    """
    sentences = prompts.sentences(class_name)
    means = [functional.normalize(encoder(state), dim=-1).mean(dim=0) for state in sentences]  # 2 x (E,)
    return functional.normalize(torch.stack(means), dim=-1)  # (2, E)


def text_features(source: CLIPSource, prompts: PromptEnsemble, class_name: str) -> torch.Tensor:
    """Two unit vectors for one class, from the disk cache if they are there.

    Where they are, no text tower is loaded; else it is built, used and dropped. Random weights are told, not cached.

    Args:
        source (CLIPSource): Architecture, weights and activation.
        prompts (PromptEnsemble): States and templates.
        class_name (str): Name of the product.

    Returns:
        torch.Tensor: Normal first, (2, E), on the CPU.
    """
    prompts.sentences(class_name)  # refuses a bad class name before anything is loaded
    if source.path is None:
        logger.warning("CLIP has random weights, since pretrained is null: verdicts on '%s' mean nothing.", class_name)
        return encode_states(TextEncoder(source), prompts, class_name)
    path = cache_dir() / "text" / f"{_cache_key(source, prompts, class_name)}.safetensors"
    if (cached := _read(path, source.config["embed_dim"])) is not None:
        return cached
    features = encode_states(TextEncoder(source), prompts, class_name)
    write_cache_entry(path, save({"text_features": features}, metadata={"class_name": class_name}))
    return features


def _cache_key(source: CLIPSource, prompts: PromptEnsemble, class_name: str) -> str:
    fingerprint = source.fingerprint()
    key = {
        "format": CACHE_FORMAT,
        "weights": fingerprint["weights"],
        "config": fingerprint["config"],
        "quick_gelu": fingerprint["quick_gelu"],
        "prompts": [list(prompts.normal_states), list(prompts.anomalous_states), list(prompts.templates)],
        "class_name": class_name,
        "tokenizer": f"{SimpleTokenizer.__name__} {open_clip_version.__version__}",
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _read(path: Path, embed_dim: int) -> torch.Tensor | None:
    """An entry of the cache, or None where there is none or it is damaged."""
    try:
        features = load(path.read_bytes())["text_features"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError) as error:
        logger.warning("Text cache entry %s is unreadable (%s): encoding anew.", path, error)
        return None
    if features.shape != (2, embed_dim) or not features.isfinite().all():
        logger.warning("Text cache entry %s is damaged: encoding anew.", path)
        return None
    return features
