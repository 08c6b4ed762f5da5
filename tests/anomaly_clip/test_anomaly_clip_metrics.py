# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The benchmark's metrics are those of AnomalyCLIP's authors, too, on their maps and end to end on ours."""

import numpy as np
import pytest
import torch

from anomalib_aprilgan import AnomalyCLIPModel
from anomalib_aprilgan.benchmark import paper_metrics
from anomalib_aprilgan.detection.pre_processor import CLIPPreProcessor

# Their names, and ours.
NAMES = {"pixel-auroc": "AUROC-segm", "pixel-aupro": "PRO-segm", "image-auroc": "AUROC-cls", "image-ap": "AP-cls"}


def chosen(found: dict[str, float]) -> list[float]:
    return [found[name] for name in NAMES.values()]


@pytest.mark.parametrize("variant", ["separated", "noisy", "ties", "offset"])
def test_on_stored_maps(clip_arrays, variant):
    arrays = clip_arrays("metrics")
    assert list(arrays["metric_names"]) == list(NAMES)
    given = (arrays["masks"], arrays[f"{variant}.maps"], arrays["labels"], arrays[f"{variant}.image_prob"])
    assert chosen(paper_metrics(*given)) == pytest.approx(arrays[f"{variant}.metrics"], abs=1e-6)


def test_from_images_to_the_printed_table(clip_arrays, clip_arguments):
    arrays = clip_arrays("endtoend")
    model, pre_processor = AnomalyCLIPModel(**clip_arguments("tiny_vit")), CLIPPreProcessor(70)
    images = [torch.from_numpy(np.atleast_3d(arrays[f"image{index}"])).permute(2, 0, 1) for index in range(12)]
    prepared = torch.stack([pre_processor.transform(image.expand(3, -1, -1) / 255) for image in images])
    verdict = model(prepared)
    rows = []
    for name, theirs in zip(arrays["classes"], arrays["metrics"], strict=True):
        of_class = torch.from_numpy(arrays["cls_names"] == name)
        given = (arrays["gt_binary"], verdict.anomaly_map, arrays["labels"], verdict.pred_score)
        rows.append(chosen(paper_metrics(*(torch.as_tensor(values)[of_class] for values in given))))
        assert rows[-1] == pytest.approx(theirs, abs=1e-4)
    printed = [[f"{100 * value:.1f}" for value in row] for row in [*rows, np.mean(rows, axis=0)]]
    assert printed == [list(row[1:]) for row in arrays["table"]]
