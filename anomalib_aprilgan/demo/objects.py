# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""All object categories of the renderer, by name; the counterpart of ``textures``."""

from . import electronics, goods, inventions, machine_parts
from .drawing import Draw

OBJECTS: dict[str, Draw] = {
    "battery": electronics.battery,
    "bearing": machine_parts.bearing,
    "biscuit": goods.biscuit,
    "bottle": goods.bottle,
    "bottle_cap": goods.bottle_cap,
    "button": goods.button,
    "capsule": goods.capsule,
    "circuit_board": electronics.circuit_board,
    "coin": machine_parts.coin,
    "connector": electronics.connector,
    "gear": machine_parts.gear,
    "invented_part": inventions.invented_part,
    "label": goods.label,
    "lens": machine_parts.lens,
    "microchip": electronics.microchip,
    "nut": machine_parts.nut,
    "pill": goods.pill,
    "screw": machine_parts.screw,
    "washer": machine_parts.washer,
}
