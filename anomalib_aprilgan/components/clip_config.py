# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""open_clip's model configs: by name or from a file, and only those of plain CLIPs."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
from open_clip import version as open_clip_version

from .embedded import BACKBONE, CONFIG_FILE, FOLDER

# Keys of an open_clip config that lead to towers other than CLIP's own transformers and ResNets.
UNSUPPORTED_KEYS = {
    "": ("custom_text", "multimodal_cfg"),
    "vision_cfg": ("timm_model_name", "attentional_pool", "final_ln_after_pool", "pool_type"),
    "text_cfg": ("hf_model_name", "hf_tokenizer_name", "embed_cls", "no_causal_mask", "pool_type", "proj_bias"),
}
PLAIN_POOLING = ("tok", "argmax")


def architecture_of(backbone: str) -> str:
    """One spelling of a backbone's name; paths of configs stay as they are.

    Example:
        >>> architecture_of("ViT-L/14-336"), architecture_of("ViT-L-14-336-quickgelu")
        ('ViT-L-14-336', 'ViT-L-14-336')
    """
    return backbone if backbone.endswith(".json") else backbone.replace("/", "-").removesuffix("-quickgelu")


def load_config(backbone: str) -> dict[str, Any]:
    """Read the open_clip config of a backbone.

    Args:
        backbone (str): Name of an open_clip architecture, or path of a JSON file.

    Returns:
        dict[str, Any]: ``embed_dim``, ``vision_cfg``, ``text_cfg`` and perhaps ``quick_gelu``.

    Raises:
        ValueError: If it is unknown, not a config, or not a CLIP with a plain ViT or ResNet.
    """
    path = FOLDER / CONFIG_FILE if backbone == BACKBONE else Path(backbone).expanduser()
    if path.suffix == ".json":
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"backbone={backbone!r} cannot be read as an open_clip model config: {error}."
            raise ValueError(msg) from error
        config = config.get("model_cfg", config) if isinstance(config, dict) else {}
    else:
        config = open_clip.get_model_config(backbone.replace("/", "-"))
    if config is None:
        close = difflib.get_close_matches(backbone, [BACKBONE, *open_clip.list_models()], n=3) or ["ViT-L-14-336"]
        msg = (
            f"Unknown backbone {backbone!r}. Give an architecture of open_clip_torch {open_clip_version.__version__}, "
            f"{BACKBONE!r}, or the path of a model config ending in .json (near: {', '.join(close)})."
        )
        raise ValueError(msg)
    _require(backbone, config, ("embed_dim", "vision_cfg", "text_cfg"))
    _refuse_other_towers(backbone, config)
    _require(backbone, config["vision_cfg"], ("layers", "width", "patch_size"))
    return dict(config)


def _require(backbone: str, section: dict[str, Any], keys: Sequence[str]) -> None:
    if missing := [key for key in keys if key not in section]:
        msg = f"backbone={backbone!r} is no open_clip model config: it lacks {', '.join(missing)}."
        raise ValueError(msg)


def _refuse_other_towers(backbone: str, config: dict[str, Any]) -> None:
    for part, keys in UNSUPPORTED_KEYS.items():
        section = config[part] if part else config
        if found := [key for key in keys if section.get(key) and section[key] not in PLAIN_POOLING]:
            msg = (
                f"backbone={backbone!r} is not supported: its config has {', '.join(found)}. "
                "Choose a CLIP with a plain ViT or ResNet, such as ViT-L-14-336, ViT-B-16 or RN50."
            )
            raise ValueError(msg)
