# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The seven numbers of the paper's Tables 3 and 4."""

from collections.abc import Sequence

import torch

from anomalib_aprilgan.detection.blocks import Array, as_array, check_scores, check_truth
from anomalib_aprilgan.detection.region_overlap import region_overlap

from .ranking import rank

PIXEL_COLUMNS = ("AUROC-segm", "F1-max-segm", "AP-segm")
IMAGE_COLUMNS = ("AUROC-cls", "F1-max-cls", "AP-cls")
COLUMNS = (*PIXEL_COLUMNS, "PRO-segm", *IMAGE_COLUMNS)


def paper_metrics(
    masks: Array | torch.Tensor,
    maps: Array | torch.Tensor,
    labels: Array | torch.Tensor | Sequence[float],
    scores: Array | torch.Tensor | Sequence[float],
) -> dict[str, float]:
    """All metrics of one category, as the paper reports them.

    AUROC, F1-max and AP equal those of scikit-learn; PRO is :func:`region_overlap`. Besides the arguments, 2 GiB of
    memory suffice for any number of images.

    Args:
        masks: Truth of the pixels at the size of the maps, (N, H, W), boolean or 0 and 1.
        maps: Anomaly maps, (N, H, W); higher is more anomalous.
        labels: Truth of the images, (N,), boolean or 0 and 1.
        scores: Image scores, (N,); higher is more anomalous.

    Returns:
        Fractions by the names of the paper's columns. PRO-segm is NaN, with a warning, where it is undefined.

    Raises:
        ValueError: If shapes differ, truth is not binary or of one class only, or scores are not finite.

    Example:
        >>> maps = torch.tensor([[[0.1, 0.2], [0.3, 0.4]], [[0.9, 0.2], [0.3, 0.1]]])
        >>> paper_metrics(maps > 0.5, maps, [0, 1], [0.4, 0.9])["AUROC-segm"]
        1.0
    """
    masks, maps = as_array(masks, "masks", "N, H, W"), as_array(maps, "maps", "N, H, W")
    if masks.shape != maps.shape or len(labels) != len(maps):
        shapes = f"masks {masks.shape}, maps {maps.shape}, {len(labels)} labels"
        msg = f"Shapes do not fit: {shapes}. Expected (N, H, W) twice and (N,), masks resized to the maps."
        raise ValueError(msg)
    of_images = image_metrics(labels, scores)  # first, since it tells mistakes soon
    check_scores(maps, "maps")
    check_truth([masks], "masks", "pixels")
    of_pixels = dict(zip(PIXEL_COLUMNS, rank(maps, masks), strict=True))
    return {**of_pixels, "PRO-segm": region_overlap([(maps, masks)]), **of_images}


def image_metrics(
    labels: Array | torch.Tensor | Sequence[float], scores: Array | torch.Tensor | Sequence[float]
) -> dict[str, float]:
    """The three metrics of images alone; arguments, result and errors as in :func:`paper_metrics`.

    Example:
        >>> image_metrics([0, 1], [0.4, 0.9])
        {'AUROC-cls': 1.0, 'F1-max-cls': 1.0, 'AP-cls': 1.0}
    """
    labels, scores = as_array(labels, "labels", "N"), as_array(scores, "scores", "N")
    if labels.shape != scores.shape:
        msg = f"Shapes do not fit: {len(labels)} labels, {len(scores)} scores. Expected one of each an image."
        raise ValueError(msg)
    check_scores(scores, "scores")
    check_truth([labels], "labels", "images")
    return dict(zip(IMAGE_COLUMNS, rank(scores, labels), strict=True))
