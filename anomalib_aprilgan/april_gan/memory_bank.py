# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Patch tokens of normal references, and the distance of other patches to them."""

import math

import numpy as np
import torch
from anomalib.models.components import DynamicBufferMixin, KCenterGreedy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.nn import functional

# Reference patches compared at a time: the similarities of an image's patches to so many stay in the processor's cache,
# and take less memory than a hidden layer of the image tower's took before.
CHUNK = 1024


class MemoryBank(DynamicBufferMixin, nn.Module):
    """Unit patch tokens of one stage of the references.

    Source: paper section 2.3; ``memory`` in the authors' ``few_shot.py``.

    Args:
        dtype (torch.dtype): Of what is kept. In less than float32 the nearest reference is searched with that
            precision, as fast as the image tower's own products, and its distance calculated in float32.

    Example:
        >>> bank = MemoryBank()
        >>> bank.update(torch.tensor([[[2.0, 0.0], [0.0, 5.0]]]))
        >>> bank.finalize()
        >>> bank.distance(torch.tensor([[[3.0, 0.0], [-1.0, 0.0]]]))
        tensor([[0., 1.]])
    """

    tokens: torch.Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.empty(0, dtype=dtype))  # (M, W) once finalised; saved with the model
        self._collected: list[torch.Tensor] = []

    @property
    def is_fitted(self) -> bool:
        """Whether the bank holds references."""
        return self.tokens.numel() > 0

    def update(self, tokens: torch.Tensor) -> None:
        """Collect patch tokens of references, (K, P, W); call ``finalize`` after the last.

        Raises:
            ValueError: If the tokens are not (K, P, W).
        """
        if tokens.ndim != 3:
            msg = f"A memory bank takes patch tokens (K, P, W), got a tensor of shape {tuple(tokens.shape)}."
            raise ValueError(msg)
        self._collected.append(functional.normalize(tokens.float(), dim=-1).flatten(0, 1))  # (K*P, W)

    def finalize(self, coreset_ratio: float = 1.0) -> None:
        """Make the collected tokens the bank, in place of any earlier one.

        Args:
            coreset_ratio (float): Part of the tokens to keep: those that anomalib's greedy search finds farthest
                apart, always the same. Slow; worth it where many images follow.

        Raises:
            RuntimeError: If nothing was collected.
            ValueError: If the ratio leaves no token.
        """
        if not self._collected:
            msg = "The memory bank has collected no references: call update(tokens) before finalize()."
            raise RuntimeError(msg)
        tokens = torch.cat(self._collected)  # (M, W)
        self._collected = []
        if coreset_ratio < 1:
            _check_coreset(coreset_ratio, len(tokens))
            with isolate_rng():  # the search draws from both generators
                torch.manual_seed(0)
                np.random.seed(0)  # ruff: ignore[numpy-legacy-random] - the one that scikit-learn draws from
                tokens = FrugalSearch(tokens, coreset_ratio).sample_coreset()
        self.tokens = tokens.to(self.tokens.dtype)

    def distance(self, tokens: torch.Tensor) -> torch.Tensor:
        """Cosine distance to the nearest reference patch.

        Args:
            tokens (torch.Tensor): Patch tokens of any length, (N, P, W).

        Returns:
            torch.Tensor: min over the bank of 1 - cosine, (N, P), in [0, 2] up to rounding.

        Raises:
            RuntimeError: If the bank is empty.
        """
        if not self.is_fitted:
            msg = "The memory bank is empty: call update(tokens) and finalize() with normal references first."
            raise RuntimeError(msg)
        queries = functional.normalize(tokens.float(), dim=-1)  # (N, P, W)
        if self.tokens.dtype != torch.float32:
            nearest = self.tokens[self._search(queries)].float()  # (N, P, W)
            return 1 - functional.cosine_similarity(queries, nearest, dim=-1)
        largest = [(queries @ part.T).amax(dim=-1) for part in self.tokens.split(CHUNK)]  # each (N, P)
        return 1 - torch.stack(largest).amax(dim=0)

    def _search(self, queries: torch.Tensor) -> torch.Tensor:
        """Which reference patch is the nearest, as far as the bank's precision can tell, (N, P)."""
        narrow = queries.to(self.tokens.dtype)
        found = [(narrow @ part.T).max(dim=-1) for part in self.tokens.split(CHUNK)]
        cosines = torch.stack([part.values for part in found])  # (C, N, P)
        indices = torch.stack([part.indices + CHUNK * number for number, part in enumerate(found)])  # (C, N, P)
        return indices.gather(0, cosines.argmax(dim=0, keepdim=True))[0]


class FrugalSearch(KCenterGreedy):
    """anomalib's greedy search, without its temporary tensor as large as all features in every step.

    glibc may put the step's small results, which are kept, where the large one was, so that the next one finds no room
    there: 9,216 features, half of them kept, took 24 GB that way.
    """

    def update_distances(self, cluster_center: int | torch.Tensor | None) -> None:
        """Take note of how far all features (M, D) are from another centre."""
        if cluster_center is None:
            return
        centre = self.features[cluster_center].reshape(1, -1)  # (1, D)
        distances = torch.cdist(self.features, centre, compute_mode="donot_use_mm_for_euclid_dist")  # (M, 1)
        is_first = self.min_distances is None
        self.min_distances = distances if is_first else torch.minimum(self.min_distances, distances)


def _check_coreset(ratio: float, number: int) -> None:
    """Refuse a ratio that leaves none of so many tokens."""
    if int(number * ratio) == 0:  # as KCenterGreedy counts
        smallest = math.ceil(1e6 / number) / 1e6  # rounded up: 49 * (1 / 49) is less than 1 in floating point
        msg = (
            f"coreset_ratio={ratio!r} keeps none of the {number} patches of the references. "
            f"Set it to {smallest:g} or more, or give more references."
        )
        raise ValueError(msg)
