# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Which CLIP: architecture, weights and activation, settled once and explicitly, for image and text tower alike."""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from open_clip import version as open_clip_version
from open_clip.model import CLIP, CLIPTextCfg
from open_clip.pretrained import get_pretrained_cfg, get_pretrained_url
from torch import nn

from .clip_config import architecture_of, load_config
from .positions import resize_positions
from .pretrained_tags import HUB_REPOSITORIES, QUICK_GELU_TAGS
from .weights import HUB_PREFIX, WEIGHT_SUFFIXES, fetch, file_digest, load_tensors, locate, tag_key

logger = logging.getLogger(__name__)

# How folders of the hub's cache begin; the rest is the repository, org--name.
HUB_FOLDER = "models--"
# Side in pixels that the last stage of any ResNet sees as one.
RESNET_STRIDE = 32
# Tag of OpenAI's weights.
OPENAI = "openai"


@dataclass(frozen=True)
class CLIPSource:
    """One CLIP model, not yet built.

    Attributes:
        backbone (str): Name of an open_clip architecture, or path of a config.
        pretrained (str | None): As given by the user; None means random weights from a fixed seed.
        config (dict[str, Any]): open_clip's model config.
        path (Path | None): File of the weights, None for random ones.
        quick_gelu (bool): Whether both towers use QuickGELU instead of the exact GELU.
        is_left_behind (bool): Whether the weights' file stayed on another machine, which exported a model.
    """

    backbone: str
    pretrained: str | None
    config: dict[str, Any]
    path: Path | None
    quick_gelu: bool
    is_left_behind: bool = False

    @classmethod
    def resolve(
        cls,
        backbone: str,
        pretrained: str | None,
        quick_gelu: bool | None = None,
        adapters_quick_gelu: bool | None = None,
    ) -> "CLIPSource":
        """Find architecture and weights, and settle the activation.

        OpenAI's weights were trained with QuickGELU, but the authors' factory rebuilds them without it at any size
        but their own (``open_clip/factory.py`` there), so the adapters of the paper belong to the exact GELU.

        Args:
            backbone (str): Name of an open_clip architecture, or path of an open_clip config (JSON).
            pretrained (str | None): Tag, ``hf-hub:org/name``, path of a weights file, or None for random weights.
            quick_gelu (bool | None): The activation; None takes the adapters' word, else open_clip's registry's.
            adapters_quick_gelu (bool | None): What the adapters' metadata say; None where they say nothing.

        Returns:
            CLIPSource: Everything needed to build either tower.

        Raises:
            ValueError: If backbone, tag or config is unknown or unsupported, or argument and adapters disagree.
            WeightsNotFoundError: If the weights are neither here nor to be had.
        """
        _check_activation(quick_gelu, adapters_quick_gelu)
        config = load_config(backbone)
        name = backbone if backbone.endswith(".json") else backbone.replace("/", "-")
        path = None if pretrained is None else fetch(locate(name, pretrained))
        activation = adapters_quick_gelu if quick_gelu is None else quick_gelu
        if activation is None:
            activation = bool(config.get("quick_gelu")) or _is_trained_with_quick_gelu(name, pretrained, path)
        return cls(backbone, pretrained, config, path, activation)

    @property
    def is_vit(self) -> bool:
        """Whether the image tower is a vision transformer; a ResNet else."""
        return isinstance(self.config["vision_cfg"]["layers"], int)

    @property
    def stages(self) -> int:
        """How many stages the image tower has: blocks of a ViT, the 4 stages of a ResNet."""
        layers = self.config["vision_cfg"]["layers"]
        return layers if isinstance(layers, int) else len(layers)

    @property
    def image_size(self) -> int:
        """The side in pixels that the weights were trained at."""
        return int(self.config["vision_cfg"].get("image_size", 224))

    @property
    def stride(self) -> int:
        """The side in pixels of a patch, to which an image must divide."""
        return int(self.config["vision_cfg"]["patch_size"]) if self.is_vit else RESNET_STRIDE

    @property
    def text_width(self) -> int:
        """Width of the text tower."""
        return int(self.config["text_cfg"].get("width", CLIPTextCfg.width))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights file; ``random`` without one."""
        self._check_is_here()
        return "random" if self.path is None else file_digest(self.path)

    def without_folders(self) -> "CLIPSource":
        """The same for other machines: files by their names alone, so that nothing tells where they lie on this one."""
        backbone = Path(self.backbone).name if self.backbone.endswith(".json") else self.backbone
        if self.path is None or self.pretrained is None:
            return replace(self, backbone=backbone)
        is_file = Path(self.pretrained).expanduser() == self.path  # no tag and nothing of the hub
        pretrained = self.path.name if is_file else self.pretrained
        return replace(self, backbone=backbone, pretrained=pretrained, path=Path(self.path.name), is_left_behind=True)

    def _check_is_here(self) -> None:
        if self.is_left_behind:
            msg = f"{self.path} stayed where this model was exported, for one class name. Export it for the other, too."
            raise RuntimeError(msg)

    def fingerprint(self) -> dict[str, Any]:
        """What decides about every feature: architecture, weights and activation, as plain data."""
        config = json.dumps(self.config, sort_keys=True).encode()
        return {
            "backbone": self.backbone,
            "config": hashlib.sha256(config).hexdigest(),
            "weights": self.digest,
            "quick_gelu": self.quick_gelu,
        }

    def build_visual(self, image_size: int, interpolation: str = "bicubic") -> nn.Module:
        """Build open_clip's image tower at a size and load its weights.

        Args:
            image_size (int): Side in pixels.
            interpolation (str): Of the positional embedding, see :func:`.positions.resize_positions`.

        Returns:
            nn.Module: ``VisionTransformer`` or ``ModifiedResNet`` in float32, on the CPU.
        """
        visual: nn.Module = self._skeleton(image_size).visual
        state = resize_positions(self._tensors(lambda name: name.startswith("visual.")), visual, interpolation)
        self._load(visual, {name.removeprefix("visual."): tensor for name, tensor in state.items()})
        return visual

    def build_text(self) -> CLIP:
        """Build an open_clip model with the text tower's weights and no image tower, in float32, on the CPU."""
        clip = self._skeleton(self.image_size)
        del clip.visual
        clip.attn_mask = None  # on the meta device; the text encoder makes its own
        self._load(clip, self._tensors(lambda name: not name.startswith("visual.")))
        return clip

    def _skeleton(self, image_size: int) -> CLIP:
        """The model without memory or values: building is quick and nothing is drawn at random."""
        config = dict(self.config, quick_gelu=self.quick_gelu)
        config["vision_cfg"] = dict(config["vision_cfg"], image_size=image_size)
        try:
            with torch.device("meta"):
                return CLIP(**config)
        except (TypeError, ValueError, AttributeError) as error:
            msg = f"open_clip_torch {open_clip_version.__version__} cannot build backbone {self.backbone!r}: {error}."
            raise ValueError(msg) from error

    def _tensors(self, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor]:
        self._check_is_here()
        if self.path is not None:
            return load_tensors(self.path, wanted)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            # The same weights in every process, so that checkpoints need not hold them. ``torch.manual_seed`` would
            # seed GPUs, too.
            torch.default_generator.manual_seed(0)
            state = CLIP(**dict(self.config, quick_gelu=self.quick_gelu)).state_dict()
        return {name: tensor for name, tensor in state.items() if wanted(name)}

    def _load(self, module: nn.Module, state: dict[str, torch.Tensor]) -> None:
        expected = module.state_dict()
        counters = {name: torch.tensor(0) for name in expected if name.endswith("num_batches_tracked")}
        state = {**counters, **state}
        missing = sorted(expected.keys() - state.keys())
        unexpected = sorted(state.keys() - expected.keys())
        shapes = [
            f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in expected.keys() & state.keys()
            if state[name].shape != expected[name].shape
        ]
        if missing or unexpected or shapes:
            msg = (
                f"{self.path or 'The weights'} do not fit backbone {self.backbone!r}: "
                f"missing {missing[:3]}, unexpected {unexpected[:3]}, shapes {shapes[:3]}. "
                "Name the architecture that the weights belong to."
            )
            raise ValueError(msg)
        module.load_state_dict(state, assign=True)
        module.eval().requires_grad_(requires_grad=False)


def _check_activation(quick_gelu: bool | None, adapters_quick_gelu: bool | None) -> None:
    if quick_gelu is not None and not isinstance(quick_gelu, bool):
        msg = f"quick_gelu={quick_gelu!r} must be true, false or null."
        raise ValueError(msg)
    if quick_gelu is not None and adapters_quick_gelu is not None and quick_gelu != adapters_quick_gelu:
        msg = (
            f"quick_gelu={quick_gelu}, but the adapters were trained with quick_gelu={adapters_quick_gelu}. "
            "Leave quick_gelu out, or use adapters trained with it."
        )
        raise ValueError(msg)


def _is_trained_with_quick_gelu(name: str, pretrained: str | None, path: Path | None) -> bool:
    """What the registry says of a tag, of a repository of the hub, or of a file that lies in the hub's cache."""
    if pretrained is None or path is None:
        return False
    if tag_key(name, pretrained) in QUICK_GELU_TAGS:
        return True
    if _repository_of(pretrained, path) in quick_gelu_repositories() or _is_of_openai(name, path):
        return True
    if any(key.split(":")[0] == name for key in QUICK_GELU_TAGS) and pretrained.endswith(WEIGHT_SUFFIXES):
        logger.warning(
            "Nothing tells whether %s was trained with QuickGELU, as OpenAI's weights were: taking the exact GELU. "
            "Where it was, write quick_gelu: true into a config file that is the backbone, or set quick_gelu where the "
            "model has this argument, as AprilGAN does.",
            pretrained,
        )
    return False


def _repository_of(pretrained: str, path: Path) -> str:
    """Repository of the hub that weights come from; the argument itself where nothing tells."""
    folders = [part.removeprefix(HUB_FOLDER) for part in path.parts if part.startswith(HUB_FOLDER)]
    return folders[-1].replace("--", "/") if folders else pretrained.removeprefix(HUB_PREFIX)


def _is_of_openai(name: str, path: Path) -> bool:
    """Whether a file is the archive that OpenAI published for an architecture."""
    url = get_pretrained_url(name, OPENAI)
    return bool(url) and file_digest(path) in url


def known_tag(backbone: str, pretrained: str | None) -> str | None:
    """One name for OpenAI's weights of a backbone, whether by tag, by their repository on the hub or as a file.

    Args:
        backbone (str): Name of an open_clip architecture, in any spelling, or path of a config.
        pretrained (str | None): Tag, ``hf-hub:org/name``, path of a weights file, or None.

    Returns:
        str | None: ``openai`` if they are OpenAI's, else ``pretrained`` as it is.

    Example:
        >>> known_tag("ViT-L/14-336", "hf-hub:timm/vit_large_patch14_clip_336.openai"), known_tag("RN50", "cc12m")
        ('openai', 'cc12m')
    """
    if pretrained is None:
        return None
    name, path = architecture_of(backbone), Path(pretrained).expanduser()
    key = tag_key(name, OPENAI)
    if tag_key(name, pretrained) == key or _repository_of(pretrained, path) == HUB_REPOSITORIES.get(key):
        return OPENAI
    return OPENAI if path.is_file() and _is_of_openai(name, path) else pretrained


def quick_gelu_repositories() -> set[str]:
    """Repositories of the hub whose weights were trained with QuickGELU, as ``org/name``."""
    keys = [key.split(":") for key in QUICK_GELU_TAGS]
    registered = {get_pretrained_cfg(name, tag).get("hf_hub", "").rstrip("/") for name, tag in keys}
    return {*registered, *(HUB_REPOSITORIES.get(":".join(key), "") for key in keys)} - {""}
