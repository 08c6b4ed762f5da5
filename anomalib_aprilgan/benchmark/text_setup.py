# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""How long text set-up takes: encoded anew, as open_clip would do it, and from the cache on disk."""

import os
import statistics
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from anomalib_aprilgan.components.cache import CACHE_VARIABLE
from anomalib_aprilgan.components.clip_source import CLIPSource
from anomalib_aprilgan.components.prompts import PromptEnsemble
from anomalib_aprilgan.components.text_encoder import BATCH_SIZE, TextEncoder, encode_states, text_features

from .turns import ratio_of, take_turns, timed

CLASS_NAME = "object"
# A turn takes half a minute with one thread.
MAX_TURNS = 3


def measure_text(source: CLIPSource, repeats: int) -> dict[str, Any]:
    """Time text set-up of one class, its text tower built before, in turns with open_clip's own at full context.

    Args:
        source: CLIP.
        repeats: Turns, three at most, after one to warm up.
    """
    prompts, encoder = PromptEnsemble(), TextEncoder(source)
    cold = timed(lambda: encode_states(encoder, prompts, CLASS_NAME))
    full = timed(lambda: encode_at_full_context(encoder, prompts))
    pairs = take_turns(cold, {"full": full}, min(repeats, MAX_TURNS))["full"]
    speedup = ratio_of(pairs)
    with TemporaryDirectory() as folder, _cache_in(folder):
        file = Path(folder) / "weights"
        file.touch()
        filed = _FiledSource(source.backbone, source.pretrained, source.config, file, source.quick_gelu)
        text_features(filed, prompts, CLASS_NAME)
        warm = timed(lambda: text_features(replace(filed), prompts, CLASS_NAME))()
    return {
        "text_cold_seconds": statistics.median(pair.yardstick for pair in pairs),
        "speedup_text_cold": speedup.median,
        "spread": {"speedup_text_cold": [speedup.low, speedup.high]},
        "text_warm_seconds": warm,
    }


@torch.no_grad()
def encode_at_full_context(encoder: TextEncoder, prompts: PromptEnsemble) -> torch.Tensor:
    """Text features of all sentences as open_clip gives them, (M, E)."""
    clip, length = encoder.clip, encoder.context_length
    tokens = encoder.tokenize([sentence for state in prompts.sentences(CLASS_NAME) for sentence in state])
    clip.attn_mask = torch.full((length, length), float("-inf")).triu(1)  # left out of a text tower without images
    return torch.cat([clip.encode_text(batch) for batch in tokens.split(BATCH_SIZE)])  # (M, E)


class _FiledSource(CLIPSource):
    """Random weights that are said to lie in a file: only such text goes into the cache."""

    def _tensors(self, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
        return CLIPSource._tensors(replace(self, path=None), wanted)  # ruff: ignore[private-member-access] - its own


@contextmanager
def _cache_in(folder: str) -> Generator[None, None, None]:
    """Keep what is cached out of the user's cache."""
    earlier = os.environ.get(CACHE_VARIABLE)
    os.environ[CACHE_VARIABLE] = folder
    try:
        yield
    finally:
        os.environ.pop(CACHE_VARIABLE)
        if earlier is not None:
            os.environ[CACHE_VARIABLE] = earlier
