# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The benchmark of a training step measures what it says."""

import re
import time

from anomalib_aprilgan.april_gan.adapter_training import AprilGANAdapters
from anomalib_aprilgan.benchmark.training_step import time_training_step


def test_slower_steps_show(tiny_backbone, monkeypatch):
    plain = AprilGANAdapters.training_step

    def slow(self, batch, batch_idx):
        time.sleep(0.5)
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(AprilGANAdapters, "training_step", slow)
    line = time_training_step(tiny_backbone, image_size=56, layers=[1, 2, 3, 4], batch_size=2, repeats=1)
    ratio = re.search(r"a step takes ([\d.]+) x the tower's forward pass", line)
    assert ratio is not None
    assert float(ratio.group(1)) > 5
