# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What the doctor says of AprilGAN's adapters and of AnomalyCLIP's prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .components.embedded import AUTO, embedded_adapters, embedded_prompts, prompt_settings_of
from .findings import Finding, Settings


def chosen_adapters(settings: Settings) -> str | None:
    """The adapters that AprilGAN would start with."""
    from .april_gan.published_adapters import choose_for, published_for

    if settings.adapters != AUTO:
        return settings.adapters
    if published_for(settings.backbone, settings.pretrained, settings.layers):
        return choose_for("")
    bundled = embedded_adapters(settings.backbone, settings.pretrained, settings.layers)
    return None if bundled is None else str(bundled)


def find_adapters(settings: Settings) -> Iterator[Finding]:
    """What the adapters say of themselves, and whether they fit the model."""
    from .april_gan.published_adapters import PUBLISHED_FILES
    from .april_gan.published_adapters import find_adapters as read_by_name
    from .components.clip_config import load_config

    cached = {name: file.find() for name, file in PUBLISHED_FILES.items()}
    for name, path in cached.items():
        yield Finding(ok=None, subject=f"published: {name}", detail=str(path or "not in the cache"))
    chosen = chosen_adapters(settings)
    if chosen is None:
        detail = "none: the zero-shot map uses CLIP's own projection, which localises poorly"
        yield Finding(ok=None, subject="adapters", detail=detail, remedy="Give --model.adapters PATH of some.")
        return
    if chosen in cached and cached[chosen] is None:
        remedy = "With network: predict once. Without: copy the authors' file and give --model.adapters PATH."
        yield Finding(ok=False, subject="adapters", detail=f"{chosen} is not in the cache", remedy=remedy)
        return
    file = read_by_name(chosen)
    known = [f"{key} {value}" for key, value in asdict(file.metadata).items() if value is not None]
    yield Finding(ok=None, subject="adapters", detail=f"{file.path}: {', '.join(known) or 'no metadata'}")
    config = load_config(settings.backbone)
    file.check_backbone(settings.backbone)
    file.build(settings.layers, _stage_widths(config["vision_cfg"], settings.layers), config["embed_dim"])
    detail = f"{settings.backbone}, layers {list(settings.layers)}"
    yield Finding(ok=True, subject="adapters fit", detail=detail)


def _stage_widths(vision: dict[str, Any], layers: Sequence[int]) -> list[int]:
    """Channels of stages, as in :class:`CLIPTower`, which this does without: it would need the weights."""
    is_vit = isinstance(vision["layers"], int)
    return [vision["width"] if is_vit else vision["width"] * 2 ** (layer + 1) for layer in layers]


def chosen_prompts(settings: Settings) -> str | None:
    """The prompts that AnomalyCLIP would start with."""
    from .anomaly_clip.published_prompts import are_published_for, choose_for

    if settings.prompt_weights != AUTO:
        return settings.prompt_weights
    lengths = prompt_settings_of(settings.backbone).lengths
    if are_published_for(settings.backbone, settings.pretrained, lengths):
        return choose_for()
    bundled = embedded_prompts(settings.backbone, settings.pretrained, lengths)
    return None if bundled is None else str(bundled)


def find_prompts(settings: Settings) -> Iterator[Finding]:
    """Which prompts AnomalyCLIP would start with, and whether they are here and fit; AprilGAN does without."""
    from .anomaly_clip.learned_prompts import LearnedPrompts
    from .anomaly_clip.published_prompts import PUBLISHED_FILES
    from .anomaly_clip.published_prompts import find_prompts as read_by_name
    from .components.clip_config import load_config

    subject, chosen = "AnomalyCLIP's prompts", chosen_prompts(settings)
    if chosen is None:
        remedy = "Give --model.prompt_weights PATH of trained prompts, or train some: configs/anomaly_clip_mvtec.yaml."
        yield Finding(ok=None, subject=subject, detail="random: for this backbone there are none", remedy=remedy)
        return
    if chosen in PUBLISHED_FILES and PUBLISHED_FILES[chosen].find() is None:
        remedy = "With network: predict once. Without: copy the authors' file and give --model.prompt_weights PATH."
        ok = None if settings.prompt_weights == AUTO else False
        yield Finding(ok=ok, subject=subject, detail=f"{chosen} is not in the cache", remedy=remedy)
        return
    file = read_by_name(chosen)
    file.trained_with.check_backbone(settings.backbone, file.path)
    context, deep = file.weights["context"], file.weights["deep"]
    fitting = LearnedPrompts(
        load_config(settings.backbone)["text_cfg"]["width"], context.shape[1], deep.shape[1], len(deep) + 1
    )
    file.load_into(fitting)
    known = [f"{key} {value}" for key, value in asdict(file.trained_with).items() if value is not None]
    yield Finding(ok=True, subject=subject, detail=f"{file.path}: {', '.join(known) or 'no metadata'}")
