# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The coreset with little memory is anomalib's own."""

import pytest
import torch
from anomalib.models import Patchcore
from anomalib.models.components import KCenterGreedy
from lightning import seed_everything

from anomalib_aprilgan.benchmark.patchcore import BenchmarkPatchcore, BufferedKCenterGreedy

ARGUMENTS = {"backbone": "resnet18", "layers": ("layer1",), "pre_trained": False, "coreset_sampling_ratio": 0.1}


@pytest.mark.parametrize("shape", [(200, 30), (50, 2, 3)])
def test_the_same_patches_are_chosen(shape):
    embedding = torch.randn(shape)
    chosen = []
    for kind in (KCenterGreedy, BufferedKCenterGreedy):
        torch.manual_seed(0)
        sampler = kind(embedding, 0.2)
        sampler.model.random_state = 0
        chosen.append(sampler.select_coreset_idxs())
    assert chosen[0] == chosen[1]
    assert len(set(chosen[1])) == len(embedding) // 5


def test_the_model_is_anomalibs():
    banks = []
    for kind in (Patchcore, BenchmarkPatchcore):
        seed_everything(0, verbose=False)  # the projection draws with NumPy
        model = kind(**ARGUMENTS)
        model.model.train()
        for _ in range(2):
            model.model(torch.rand(1, 3, 32, 32))
        model.fit()
        banks.append(model.model.memory_bank)
        assert model.model.embedding_store == []
    assert len(banks[1]) == 2 * 8 * 8 // 10
    assert torch.equal(banks[0], banks[1])
