# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""CLIP as it is, without any trained part: the baselines of AnomalyCLIP's paper (arXiv 2310.18961, section 4.1).

Patches of the last block go through CLIP's own norm and projection into the text space, as whole images do.
"""

import warnings

from anomalib.metrics import Evaluator
from anomalib.visualization import Visualizer
from torch import nn

from anomalib_aprilgan.april_gan import AprilGAN
from anomalib_aprilgan.components.clip_config import load_config
from anomalib_aprilgan.components.embedded import AUTO
from anomalib_aprilgan.components.prompts import PromptEnsemble

# One sentence each.
PLAIN_PROMPTS = PromptEnsemble(["a normal {}"], ["an anomalous {}"], ["a photo of {}."])


def clip_ac(
    class_name: str | None = None,
    backbone: str = "ViT-L-14-336",
    pretrained: str | None = AUTO,
    image_size: int | None = None,
    precision: str = "fp32",
    prompts: PromptEnsemble | None = None,
    post_processor: nn.Module | bool = True,
    evaluator: Evaluator | bool = True,
    visualizer: Visualizer | bool = True,
) -> AprilGAN:
    """CLIP with AprilGAN's prompt ensemble, zero-shot: ``CLIP-AC`` in benchmarks.

    Args:
        class_name: See :class:`AprilGAN`, as all up to ``prompts``.
        backbone: A ViT of open_clip.
        pretrained: Weights of CLIP.
        image_size: Side in pixels of the model's input.
        precision: Of the image tower.
        prompts: States and templates.
        post_processor: As in anomalib, like the two below.
        evaluator: Metrics.
        visualizer: Images of the results.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No adapters given")  # they are left out on purpose
        return AprilGAN(
            class_name,
            backbone=backbone,
            pretrained=pretrained,
            image_size=image_size,
            layers=[load_config(backbone)["vision_cfg"]["layers"]],
            adapters=None,
            prompts=prompts,
            precision=precision,
            post_processor=post_processor,
            evaluator=evaluator,
            visualizer=visualizer,
        )


def clip(
    class_name: str | None = None,
    backbone: str = "ViT-L-14-336",
    pretrained: str | None = AUTO,
    image_size: int | None = None,
    precision: str = "fp32",
    post_processor: nn.Module | bool = True,
    evaluator: Evaluator | bool = True,
    visualizer: Visualizer | bool = True,
) -> AprilGAN:
    """CLIP with one normal and one anomalous sentence, zero-shot: ``CLIP`` in benchmarks; see :func:`clip_ac`."""
    return clip_ac(
        class_name, backbone, pretrained, image_size, precision, PLAIN_PROMPTS, post_processor, evaluator, visualizer
    )
