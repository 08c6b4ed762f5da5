# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Image sets for experiments, written as folders for anomalib's ``Folder`` from two packages of PyPI.

========================  ==========  =========  ===========  =====================================================
set                       train/good  test/good  test/defect  images
========================  ==========  =========  ===========  =====================================================
``solar_cells``           294         294        313          photographs (electroluminescence), PNG, 300 x 300, grey
``textile_local``         500         500        500          simulated weave, JPEG, 250 x 250, grey as RGB
``textile_global``        500         500        500          the same normal images, other defects
========================  ==========  =========  ===========  =====================================================

The solar cells come from ``elpv-dataset`` 1.0.0.post1, images under CC BY-NC-SA 4.0: not for commercial use. Only
monocrystalline cells with a defect probability of exactly 0 or 1 are taken, that is 901 of 2,624. The package does not
say which module a cell was cut from, so cells of one module may lie in both train and test; and defects gather in some
modules, so that the number in the file name alone tells them apart with an AUROC of 0.86.

The textiles come from ``conformal-clip-data`` 0.1.4, under the MIT licence: 1,000 normal images and 500 of each defect.
They are drawn by a statistical model (the R package ``spc4sts``) and are not photographs. The mean difference of
neighbouring pixels alone finds the global defects with an AUROC of 0.985.

No image has a mask. Both packages are optional and looked for only when a set is written. :func:`textile` is the
datamodule of a textile set, and writes it if need be. Write the sets by hand with
``python -m anomalib_aprilgan.data.photographs ROOT`` and read each with
``Folder(name, root=ROOT/name, normal_dir="train/good", normal_test_dir="test/good", abnormal_dir="test/defect")``.
"""

import filecmp
import hashlib
import importlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Literal, TypeAlias

from anomalib.data import Folder

logger = logging.getLogger(__name__)

# Of every set, by Folder's names.
LAYOUT: dict[str, Any] = {"normal_dir": "train/good", "normal_test_dir": "test/good", "abnormal_dir": "test/defect"}

PhotographSet: TypeAlias = Literal["solar_cells", "textile_local", "textile_global"]
TextileDefect: TypeAlias = Literal["local", "global"]


def write_photographs(
    root: Path,
    sets: Sequence[PhotographSet] = ("solar_cells", "textile_local", "textile_global"),
    seed: int = 0,
) -> list[Path]:
    """Write image sets below one folder, each ready for anomalib's ``Folder``.

    A complete set is kept, a half-written one is written anew, and a folder with other files is an error.

    Args:
        root: The folder that receives one folder per set.
        sets: The sets to write.
        seed: Chooses which half of the normal images lies in train.

    Returns:
        The folder of each set, in the order of ``sets``.

    Raises:
        ValueError: If a set is unknown.
        ModuleNotFoundError: If a package with images is missing.
        FileExistsError: If a folder holds other files.
    """
    writers = {
        "solar_cells": lambda: write_solar_cells(root, seed=seed),
        "textile_local": lambda: write_textile(root, "local", seed=seed),
        "textile_global": lambda: write_textile(root, "global", seed=seed),
    }
    if unknown := [name for name in sets if name not in writers]:
        msg = f"sets={unknown} are unknown, expected any of {', '.join(writers)}."
        raise ValueError(msg)
    return [writers[name]() for name in sets]


def write_solar_cells(root: str | Path, seed: int = 0) -> Path:
    """Write the monocrystalline solar cells whose label is certain to ``root/solar_cells``.

    Args:
        root: The folder that receives the set.
        seed: Chooses which half of the normal images lies in train.

    Returns:
        The folder of the set.
    """
    # The package's own loader decodes every image; the files themselves lie beside its table of labels.
    data = Path(_import_or_explain("elpv_dataset", "elpv-dataset").__path__[0]) / "data"
    labels = [line.split() for line in (data / "labels.csv").read_text(encoding="utf-8").splitlines()]
    cells = [(data / path, float(probability)) for path, probability, kind in labels if kind == "mono"]
    normals = [image for image, probability in cells if probability == 0]
    defects = [image for image, probability in cells if probability == 1]
    return _write_set(Path(root) / "solar_cells", _plan(normals, defects, seed))


def write_textile(root: str | Path, kind: TextileDefect, seed: int = 0) -> Path:
    """Write the textiles with one kind of defect to ``root/textile_<kind>``.

    Args:
        root: The folder that receives the set.
        kind: ``local`` for small flaws in the weave, ``global`` for a changed weave of the whole image.
        seed: Chooses which half of the normal images lies in train; it is the same half for both kinds.

    Returns:
        The folder of the set.

    Raises:
        ValueError: If the kind is unknown.
    """
    package = _import_or_explain("conformal_clip_data", "conformal-clip-data")
    folders = {"local": package.local_dir, "global": package.global_dir}
    if kind not in folders:
        msg = f"kind={kind!r} of textile defects is unknown, expected local or global."
        raise ValueError(msg)
    plan = _plan(sorted(package.nominal_dir().glob("*.jpg")), sorted(folders[kind]().glob("*.jpg")), seed)
    return _write_set(Path(root) / f"textile_{kind}", plan)


def textile(defect: TextileDefect, root: str | Path = "datasets") -> Folder:
    """Datamodule of the textiles with one kind of defect, which are written before their first use.

    Args:
        defect: ``local`` or ``global``, as in :func:`write_textile`.
        root: The folder of the set's folder.
    """
    folder = Path(root) / f"textile_{defect}"
    if not folder.is_dir():  # it appears whole or not at all
        write_textile(root, defect)
    return open_set(folder)


def open_set(folder: Path) -> Folder:
    """Datamodule of a written set, without validation images.

    Args:
        folder: The set's folder.

    Raises:
        FileNotFoundError: If a folder of images is missing.
    """
    if missing := [folder / kind for kind in LAYOUT.values() if not (folder / kind).is_dir()]:
        msg = f"{missing[0]} is missing. Write it with: python -m anomalib_aprilgan.data.photographs {folder.parent}"
        raise FileNotFoundError(msg)
    return Folder(folder.name, root=folder, val_split_mode="none", num_workers=0, **LAYOUT)


def _import_or_explain(module: str, distribution: str) -> ModuleType:
    """Import an optional package, or say how it is installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        msg = f"These images come from the package {distribution}, which is missing: pip install {distribution}"
        raise ModuleNotFoundError(msg, name=error.name) from error


def _plan(normals: Sequence[Path], defects: Sequence[Path], seed: int) -> dict[str, Path]:
    """Map each file of a set, relative to its folder, to its source; half of the normal images go to train."""
    if not normals or not defects:
        msg = f"Expected normal and defective images, found {len(normals)} and {len(defects)}: has the package changed?"
        raise ValueError(msg)

    # Unlike `random`, a hash of the name gives the same order on every version of Python.
    shuffled = sorted(normals, key=lambda image: hashlib.sha256(f"{seed}/{image.name}".encode()).digest())
    half = len(shuffled) // 2
    images = {"normal_dir": shuffled[:half], "normal_test_dir": shuffled[half:], "abnormal_dir": defects}
    return {f"{LAYOUT[kind]}/{image.name}": image for kind, found in images.items() for image in found}


def _write_set(destination: Path, plan: Mapping[str, Path]) -> Path:
    """Copy the planned files unchanged, unless they are all there; a folder with other files is never touched."""
    present = {path.relative_to(destination).as_posix() for path in destination.rglob("*") if path.is_file()}
    if foreign := sorted(present - plan.keys()):
        msg = (
            f"{destination} holds {len(foreign)} files that do not belong to the set, such as {foreign[0]}: "
            "remove it, or choose another root. Another seed gives other files."
        )
        raise FileExistsError(msg)

    if present == plan.keys() and all(filecmp.cmp(plan[name], destination / name, shallow=False) for name in plan):
        logger.info("%s is complete, with %d images", destination, len(plan))
        return destination

    # The set appears under its name by one rename at the end, so that a killed run leaves no half set behind.
    destination.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as temporary:
        staging = Path(temporary) / destination.name
        for name, source in plan.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, staging / name)
        if destination.exists():
            shutil.rmtree(destination)
        staging.rename(destination)

    logger.info("%s written, with %d images", destination, len(plan))
    return destination


def main(args: list[str] | None = None) -> None:
    """Run :func:`write_photographs` from the command line."""
    from jsonargparse import auto_cli

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    auto_cli(write_photographs, args=args)


if __name__ == "__main__":
    main()
