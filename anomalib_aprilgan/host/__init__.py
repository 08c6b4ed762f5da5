# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""How the stock anomalib comes to know the models of this package, and of any other plugin.

The build moves ``hook.py`` and ``hook.pth`` to the root of site-packages, the only place from which Python runs
``.pth`` files. In a checkout they are here.
"""

try:  # ruff: ignore[non-empty-init-module]  # still a re-export
    from anomalib_aprilgan.host.hook import SWITCH, install, load_plugins, register
except ModuleNotFoundError:
    from _anomalib_aprilgan_hook import SWITCH, install, load_plugins, register  # type: ignore[no-redef]

__all__ = ["SWITCH", "install", "load_plugins", "register"]
