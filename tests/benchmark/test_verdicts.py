# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""From verdicts to metrics: the authors' whole run again, and what models and datasets may leave out."""

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch

from anomalib_aprilgan import AprilGANModel
from anomalib_aprilgan.benchmark.metrics import COLUMNS, IMAGE_COLUMNS
from anomalib_aprilgan.benchmark.verdicts import VerdictCollector, judge, masks_like, paper_scores


def batch(**fields):
    """Two images, the second with a defect, and what a model says of them."""
    values = {
        "gt_label": torch.tensor([0, 1]),
        "gt_mask": torch.tensor([[[0, 0], [0, 0]], [[0, 1], [0, 0]]]).bool(),
        "pred_score": torch.tensor([0.2, 0.6]),
        "anomaly_map": torch.tensor([[[0.1, 0.2], [0.3, 0.2]], [[0.1, 0.9], [0.3, 0.4]]]),
    }
    return ImageBatch(image=torch.zeros(2, 3, 2, 2), **{**values, **fields})


def collect(*batches, collector=None):
    collector = collector or VerdictCollector()
    for index, each in enumerate(batches):
        collector.on_test_batch_start(None, None, each, index)
        collector.on_test_batch_end(None, None, None, each, index)
    return collector.arrays()


@pytest.mark.parametrize("mode", ["zero_shot", "few_shot"])
def test_the_authors_run_again_from_images_to_the_printed_table(mode, golden_arrays, golden_arguments):
    arrays = golden_arrays("endtoend")
    rows = []
    for position, name in enumerate(arrays["classes"]):
        model = AprilGANModel(**golden_arguments("tiny_vit"))
        model.setup(str(name))
        if mode == "few_shot":
            model.setup(reference_images=torch.from_numpy(arrays["ref_images"][position]))
        chosen = arrays["cls_names"] == name
        verdict = model(torch.from_numpy(arrays["images"][chosen]))
        found = {
            "scores": verdict.pred_score.numpy(),
            "labels": arrays["labels"][chosen],
            "largest": verdict.anomaly_map.amax(dim=(1, 2)).numpy(),
            "maps": verdict.anomaly_map.numpy(),
            "masks": arrays["gt_binary"][chosen],
        }
        streaming, paper = judge(found, has_paper_scores=mode == "few_shot")
        if mode == "few_shot":
            scores = paper_scores(found["scores"], found["largest"])
            assert scores == pytest.approx(arrays["few_shot.image_score"][chosen], abs=1e-5)
        rows.append(list({**streaming, **paper}.values()))
        assert rows[-1] == pytest.approx(arrays[f"{mode}.metrics"][position], abs=2e-5)
    table = [[f"{100 * value:.1f}" for value in row] for row in (*rows, np.mean(rows, axis=0))]
    printed = [[cell.replace("-0.0", "0.0") for cell in row] for row in arrays[f"{mode}.table"][:, 1:].tolist()]
    assert [[cell.replace("-0.0", "0.0") for cell in row] for row in table] == printed


def test_batches_are_put_together():
    found = collect(batch(), batch())
    shapes = {name: values.shape for name, values in found.items()}
    assert shapes == {"scores": (4,), "labels": (4,), "largest": (4,), "maps": (4, 2, 2), "masks": (4, 2, 2)}
    streaming, paper = judge(found, has_paper_scores=False)
    assert tuple(streaming) == COLUMNS
    assert streaming["AUROC-segm"] == 1
    assert paper == {}


def test_without_masks_there_are_metrics_of_images_in_both_protocols():
    """Text scores 2 s - m are 0.8 and 0.3; with the largest map values stretched to 0 and 1, the order turns."""
    found = collect(batch(gt_mask=None, pred_score=torch.tensor([0.55, 0.6])))
    assert found["largest"].tolist() == pytest.approx([0.3, 0.9])
    streaming, paper = judge({**found, "scores": np.array([0.61, 0.6])}, has_paper_scores=True)
    assert tuple(streaming) == tuple(paper) == IMAGE_COLUMNS
    assert (streaming["AUROC-cls"], paper["AUROC-cls"]) == (0, 1)


def test_maps_above_one_count_as_one_in_the_score_that_the_text_score_is_taken_from():
    """(0.2 + min(1.5, 1)) / 2 and (0.8 + 0.5) / 2; the largest values 1.5 and 0.5 are stretched to 1 and 0."""
    assert paper_scores(np.array([0.6, 0.65]), np.array([1.5, 0.5])) == pytest.approx([(0.2 + 1) / 2, (0.8 + 0) / 2])


def test_masks_of_some_images_only_are_not_compared():
    collector = VerdictCollector()
    assert set(collect(batch(), batch(gt_mask=None), collector=collector)) == {"scores", "labels", "largest"}
    assert collector.map_size == (2, 2)


def test_without_maps_there_are_scores_only():
    assert set(collect(batch(anomaly_map=None))) == {"scores", "labels"}


def test_maps_of_bfloat16_are_kept():
    maps = torch.tensor([[[0.5]], [[0.25]]], dtype=torch.bfloat16)
    assert collect(batch(anomaly_map=maps, gt_mask=None))["largest"].tolist() == [0.5, 0.25]


def test_masks_of_another_size_are_brought_to_the_maps():
    masks = torch.tensor([[[True, False], [False, False]]])
    assert masks_like(masks, torch.zeros(1, 4, 4)).sum() == 4
    assert masks_like(masks.float() * 0.5, torch.zeros(1, 2, 2)).sum() == 0
    assert masks_like(masks[:, None], torch.zeros(1, 2, 2)).shape == (1, 2, 2)


def test_nothing_to_measure_is_told():
    with pytest.raises(ValueError, match="There were no test images"):
        collect()
    with pytest.raises(ValueError, match="gives no image scores, or the dataset no labels"):
        collect(batch(pred_score=None))
    with pytest.raises(
        ValueError, match=r"All 2 maps have the largest value 1\.0, so that the paper's score is undefined"
    ):
        paper_scores(np.zeros(2), np.ones(2))
