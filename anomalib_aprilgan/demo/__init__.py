# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Rendered products with exact masks, and the training of the small CLIP on them."""

from .rendered_products import RenderedProducts

__all__ = ["RenderedProducts"]
