# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""All categories, their defects, and the fixed public split: what small CLIP, adapters and figures are made of."""

from .defects import DEFECTS, Defect, frayed, worn
from .drawing import Draw
from .inventions import invented_surface
from .objects import OBJECTS
from .photographed import PHOTOGRAPHED
from .textures import TEXTURES

DRAWINGS: dict[str, Draw] = {**TEXTURES, **PHOTOGRAPHED, "invented_surface": invented_surface, **OBJECTS}
CATEGORIES = tuple(DRAWINGS)
# Defects that no other category can have. Cloth was drawn with the simulated textiles of ``data.photographs`` in view.
OWN_DEFECTS: dict[str, dict[str, Defect]] = {cloth: {"frayed": frayed, "worn": worn} for cloth in ("nonwoven", "wool")}

# Never mixed: the CLIP has seen no part of the second and third group, the adapters none of the third.
HELD_OUT = ("carpet", "leather", "tile", "bottle", "coin", "nut", "pill", "circuit_board")
ADAPTER_TRAINING = ("wood", "perforated_sheet", "knit", "wool", "gear", "lens", "capsule")
INVENTED = ("invented_surface", "invented_part")  # another design in every line; they have no name of their own
CLIP_TRAINING = tuple(name for name in CATEGORIES if name not in HELD_OUT + ADAPTER_TRAINING)


def check_category(category: str) -> None:
    """Complain of an unknown category.

    Args:
        category (str): The name to look up.

    Raises:
        ValueError: If there is none of this name.
    """
    if category not in DRAWINGS:
        msg = f"category={category!r} is unknown. Choose one of {', '.join(CATEGORIES)}."
        raise ValueError(msg)


def defects_of(category: str) -> dict[str, Defect]:
    """Defects that a category can have: those of any product, and its own."""
    return {**DEFECTS, **OWN_DEFECTS.get(category, {})}
