# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What ``coreset_ratio`` costs in accuracy: AprilGAN with many references on rendered products.

``python -m anomalib_aprilgan.benchmark.coreset`` prints a table. Times are of one image from pixels to verdict, as
multiples of the first row's for the same image.
"""

from collections.abc import Sequence
from pathlib import Path

from anomalib_aprilgan.components.embedded import BACKBONE

from .console import print_report
from .side_by_side import compare_settings, render


def report_coreset(
    backbone: str = BACKBONE,
    k_shot: int = 16,
    ratios: Sequence[float] = (1.0, 0.5, 0.25, 0.1, 0.01),
    categories: Sequence[str] = ("leather", "coin", "nut"),
    seed: int = 0,
    root: Path = Path("datasets/RenderedProducts"),
) -> str:
    """Markdown table of AprilGAN with memory banks of all patches and of parts of them.

    Args:
        backbone: Of AprilGAN, with its own settings.
        k_shot: Number of references.
        ratios: Parts of their patches; the first row is compared with.
        categories: What to render.
        seed: The product line.
        root: Folder for the pictures.
    """
    outcomes = compare_settings("coreset_ratio", ratios, categories, (seed,), k_shot, backbone, root)
    return render(f"coreset_ratio, k={k_shot}", outcomes)


def main(args: list[str] | None = None) -> None:
    """Run :func:`report_coreset` from the command line."""
    print_report(report_coreset, args)


if __name__ == "__main__":
    main()
