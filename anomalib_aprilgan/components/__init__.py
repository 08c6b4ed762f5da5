# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Parts that any CLIP detector uses: no model, no Lightning, nothing of anomalib."""
