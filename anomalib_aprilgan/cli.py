# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The command ``anomalib-aprilgan``: what there is to do around the model. Training and prediction are anomalib's."""

import sys
from collections.abc import Sequence

from .doctor import Settings, examine, is_well, render


def doctor(
    backbone: str = Settings.backbone,
    pretrained: str | None = Settings.pretrained,
    adapters: str | None = Settings.adapters,
    image_size: int = Settings.image_size,
    layers: Sequence[int] = Settings.layers,
) -> int:
    """Tell whether anomalib knows AprilGAN, and whether it can predict without network; never uses the network.

    The options are the model's arguments of the same names. Lines marked [!!] must be put right, and say how.

    Args:
        backbone: open_clip architecture, or path of an open_clip model config (JSON).
        pretrained: open_clip tag, hf-hub:org/name, path of a weights file, or null for random weights.
        adapters: File of trained adapters, mvtec, visa, or auto for those that AprilGAN would choose.
        image_size: Side in pixels of the model's input.
        layers: Stages compared with the text.

    Returns:
        0 if all is well, 1 if a line is marked [!!].
    """
    findings = examine(Settings(backbone, pretrained, adapters, image_size, tuple(layers)))
    sys.stdout.write(render(findings))
    return 0 if is_well(findings) else 1


def main(args: list[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        args: Words of the command line; None takes those of the process.

    Returns:
        The exit status.
    """
    from jsonargparse import auto_cli

    status: int = auto_cli({"doctor": doctor}, args=args, prog="anomalib-aprilgan", as_positional=False)
    return status


if __name__ == "__main__":
    sys.exit(main())
