# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Times and memory of a run, on a clock and a model made for it."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from anomalib_aprilgan.benchmark import turns
from anomalib_aprilgan.benchmark.latency import measure_latency
from anomalib_aprilgan.benchmark.peak_memory import CLEAR_PEAK, peak_host_memory, reset_peaks


class Clock(nn.Module):
    """A model whose n-th pass takes n seconds on its own clock."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.now = 0.0
        self.batches = []

    def perf_counter(self):
        return self.now

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append(images.flatten().tolist())
        self.now += len(self.batches)


@pytest.fixture
def clock(monkeypatch):
    model = Clock()
    monkeypatch.setattr(turns, "time", model)
    return model


def test_three_passes_at_least_and_the_first_one_is_for_warming_up(clock):
    found = measure_latency(clock.train(), torch.tensor([1.0, 2, 3]), batch_size=8, seconds=0.1)
    assert clock.batches == [[1, 2, 3, 1, 2, 3, 1, 2]] * 4
    assert clock.training
    assert found.median == pytest.approx(1000 * 3 / 8)  # of 2, 3 and 4 seconds
    assert found.p95 == pytest.approx(1000 * 3.9 / 8)


@pytest.mark.parametrize(("seconds", "passes"), [(9, 3), (10, 4), (1e6, 30)])
def test_passes_fill_the_time_up_to_thirty(clock, seconds, passes):
    measure_latency(clock, torch.ones(1), batch_size=1, seconds=seconds)
    assert len(clock.batches) == 1 + passes


@pytest.mark.skipif(not os.access(CLEAR_PEAK, os.W_OK), reason="needs Linux's /proc")
def test_peak_of_memory_begins_anew():
    before = peak_host_memory()
    held = np.ones(2**25)  # 256 MiB
    with_it = peak_host_memory()
    assert with_it > before
    del held
    reset_peaks()
    assert peak_host_memory() < with_it - 2**27
