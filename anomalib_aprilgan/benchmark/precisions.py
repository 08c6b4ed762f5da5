# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""What half precision costs in accuracy: AprilGAN with a CLIP in several precisions on rendered products.

``python -m anomalib_aprilgan.benchmark.precisions`` prints a table, and below it how many maps move visibly. Times are
of one image from pixels to verdict, as multiples of the first row's for the same image.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from anomalib_aprilgan.components.embedded import BACKBONE
from anomalib_aprilgan.demo.categories import HELD_OUT

from .console import print_report
from .side_by_side import Outcome, compare_settings, render

VISIBLE = 0.02  # difference of a map's pixel


def report_precisions(
    backbone: str = BACKBONE,
    k_shot: int = 0,
    precisions: Sequence[str] = ("fp32", "bf16"),
    categories: Sequence[str] = HELD_OUT,
    seeds: int = 5,
    root: Path = Path("datasets/RenderedProducts"),
) -> str:
    """Markdown table of AprilGAN in several precisions.

    Args:
        backbone: Of AprilGAN, with its own settings.
        k_shot: Number of references.
        precisions: Of the image tower; the first row is compared with.
        categories: What to render.
        seeds: Product lines of each category.
        root: Folder for the pictures.
    """
    outcomes = compare_settings("precision", precisions, categories, range(seeds), k_shot, backbone, root)
    table = render(f"precision, k={k_shot}", outcomes)
    return "\n".join([table, *(_moved(name, outcomes[name]) for name in precisions[1:])]) + "\n"


def _moved(name: str, outcomes: Iterable[Outcome]) -> str:
    """How many maps differ visibly."""
    differences = [difference for outcome in outcomes for difference in outcome.map_differences]
    moved = sum(difference > VISIBLE for difference in differences)
    return f"{name}: in {moved} of {len(differences)} maps a pixel moved by more than {VISIBLE}."


def main(args: list[str] | None = None) -> None:
    """Run :func:`report_precisions` from the command line."""
    print_report(report_precisions, args)


if __name__ == "__main__":
    main()
