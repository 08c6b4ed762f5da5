# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Parts of anomalib's modules that any CLIP detector uses: knows anomalib, but no model."""
