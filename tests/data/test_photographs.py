# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The image sets are written from stand-ins for the two packages: the same layout and functions, a few bytes each."""

import shutil
import sys
from pathlib import Path

import pytest

from anomalib_aprilgan.data import photographs
from anomalib_aprilgan.data.photographs import main, write_photographs, write_solar_cells, write_textile

# Per cell: defect probability and type, as in labels.csv; numbered from 1.
CELLS = [
    *["0.0 mono"] * 5,
    *["0.3333333333333333 mono"] * 2,
    *["0.6666666666666666 mono"] * 2,
    *["1.0 mono"] * 3,
    *["0.0 poly"] * 4,
    *["1.0 poly"] * 4,
]
TEXTILE_CODE = """
from pathlib import Path
def _root(): return Path(__file__).parent / "data" / "textile_images" / "simulated"
def nominal_dir(): return _root() / "nominal"
def local_dir(): return _root() / "local"
def global_dir(): return _root() / "global"
"""


def write_files(files: dict[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def packages(tmp_path, monkeypatch):
    """A folder on the module search path with both stand-ins, which shadow the real packages for one test."""
    root = tmp_path / "site-packages"
    elpv, textile = root / "elpv_dataset", root / "conformal_clip_data"
    lines = [f"images/cell{number:04}.png  {label}\n" for number, label in enumerate(CELLS, 1)]
    write_files({elpv / "__init__.py": "", elpv / "data" / "labels.csv": "".join(lines)})
    write_files({elpv / "data" / line.split()[0]: f"solar {line}" for line in lines})
    write_files({textile / "__init__.py": TEXTILE_CODE})
    # As in the real package, the three classes share their file names.
    for kind, count in {"nominal": 6, "local": 2, "global": 4}.items():
        folder = textile / "data" / "textile_images" / "simulated" / kind
        write_files({folder / f"textile_{number:04}.jpg": f"{kind} {number}" for number in range(1, count + 1)})

    for name in ("elpv_dataset", "conformal_clip_data"):
        # Setting first makes monkeypatch remember what was there, and restore it in the end.
        monkeypatch.setitem(sys.modules, name, None)
        del sys.modules[name]
    monkeypatch.syspath_prepend(root)
    return root


class TestSolarCells:
    def test_only_certain_labels_of_monocrystalline_cells(self, tmp_path):
        folder = write_solar_cells(tmp_path / "out")

        assert folder == tmp_path / "out" / "solar_cells"
        train, test = names_in(folder / "train" / "good"), names_in(folder / "test" / "good")
        assert (len(train), len(test)) == (2, 3)
        assert train | test == {f"cell{number:04}.png" for number in range(1, 6)}
        assert names_in(folder / "test" / "defect") == {"cell0010.png", "cell0011.png", "cell0012.png"}
        assert len(files_below(folder)) == 8

    def test_bytes_are_kept(self, tmp_path, packages):
        images = packages / "elpv_dataset" / "data" / "images"
        (images / "cell0010.png").write_bytes(b"\x89PNG\r\n\x00\xff")

        written = files_below(write_solar_cells(tmp_path / "out"))

        assert written["test/defect/cell0010.png"] == b"\x89PNG\r\n\x00\xff"
        assert all(content == (images / Path(name).name).read_bytes() for name, content in written.items())

    def test_split_depends_on_the_seed_alone(self, tmp_path):
        first, again, *others = (write_solar_cells(tmp_path / str(i), seed) for i, seed in enumerate([0, 0, 1, 2, 3]))

        assert files_below(first) == files_below(again)
        assert any(files_below(other).keys() != files_below(first).keys() for other in others)

    def test_split_is_the_same_everywhere(self, tmp_path):
        # `printf 0/cell0003.png | sha256sum` and its four siblings, sorted: any published number hangs on this choice.
        folder = write_solar_cells(tmp_path / "out")

        assert names_in(folder / "train" / "good") == {"cell0003.png", "cell0004.png"}


class TestTextile:
    @pytest.mark.parametrize(("kind", "defects"), [("local", 2), ("global", 4)])
    def test_sizes_and_bytes(self, tmp_path, kind, defects):
        folder = write_textile(tmp_path / "out", kind)

        written = files_below(folder)
        assert folder.name == f"textile_{kind}"
        assert len(written) == 6 + defects
        assert len(names_in(folder / "train" / "good")) == len(names_in(folder / "test" / "good")) == 3
        normal = sorted(content for name, content in written.items() if name.split("/")[1] == "good")
        assert normal == [f"nominal {number}".encode() for number in range(1, 7)]
        defective = {name: content for name, content in written.items() if name.startswith("test/defect/")}
        assert defective == {
            f"test/defect/textile_{number:04}.jpg": f"{kind} {number}".encode() for number in range(1, defects + 1)
        }

    def test_both_kinds_share_their_normal_images(self, tmp_path):
        local, global_ = (write_textile(tmp_path, kind) for kind in ("local", "global"))

        assert files_below(local / "train") == files_below(global_ / "train")
        assert files_below(local / "test" / "good") == files_below(global_ / "test" / "good")

    def test_an_empty_class_is_an_error(self, tmp_path, packages):
        shutil.rmtree(packages / "conformal_clip_data" / "data" / "textile_images" / "simulated" / "local")

        with pytest.raises(ValueError, match="found 6 and 0: has the package changed"):
            write_textile(tmp_path / "out", "local")


class TestExistingFolders:
    def test_complete_set_is_kept(self, tmp_path):
        folder = write_solar_cells(tmp_path)
        before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
        inode = folder.stat().st_ino

        assert write_solar_cells(tmp_path) == folder
        assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == before
        assert folder.stat().st_ino == inode

    @pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"cut")], ids=["missing", "cut"])
    def test_half_written_set_is_rebuilt(self, tmp_path, damage):
        folder = write_solar_cells(tmp_path)
        whole = files_below(folder)
        damage(folder / "test" / "defect" / "cell0011.png")
        assert files_below(folder) != whole

        write_solar_cells(tmp_path)

        assert files_below(folder) == whole

    def test_folder_with_other_files_is_not_touched(self, tmp_path):
        write_files({tmp_path / "solar_cells" / "train" / "good" / "mine.png": "mine"})

        with pytest.raises(FileExistsError, match=r"holds 1 files .* such as train/good/mine\.png"):
            write_solar_cells(tmp_path)
        assert files_below(tmp_path / "solar_cells") == {"train/good/mine.png": b"mine"}

    def test_another_seed_does_not_replace_the_set(self, tmp_path):
        folder = write_textile(tmp_path, "local", seed=0)
        before = files_below(folder)

        with pytest.raises(FileExistsError, match="Another seed gives other files"):
            write_textile(tmp_path, "local", seed=1)
        assert files_below(folder) == before

    def test_failure_half_way_leaves_nothing(self, tmp_path, monkeypatch):
        root = tmp_path / "out"
        copies = []

        def copy_twice(source, target):
            if len(copies) == 2:
                raise OSError(28, "No space left on device")
            copies.append(target)
            Path(target).write_bytes(Path(source).read_bytes())

        monkeypatch.setattr(photographs.shutil, "copyfile", copy_twice)
        with pytest.raises(OSError, match="No space left"):
            write_solar_cells(root)

        assert len(copies) == 2
        assert list(root.iterdir()) == []


class TestMissingPackages:
    def test_solar_cells(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "elpv_dataset", None)

        with pytest.raises(ModuleNotFoundError, match="pip install elpv-dataset"):
            write_solar_cells(tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_textile(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "conformal_clip_data", None)

        with pytest.raises(ModuleNotFoundError, match="pip install conformal-clip-data"):
            write_textile(tmp_path / "out", "global")


class TestCommand:
    def test_writes_every_set(self, tmp_path):
        main([str(tmp_path / "out")])

        assert names_in(tmp_path / "out") == {"solar_cells", "textile_local", "textile_global"}

    def test_writes_chosen_sets(self, tmp_path):
        main([str(tmp_path / "out"), "--sets", "[textile_global]", "--seed", "1"])

        assert names_in(tmp_path / "out") == {"textile_global"}
        expected = write_textile(tmp_path / "direct", "global", seed=1)
        assert files_below(tmp_path / "out" / "textile_global") == files_below(expected)

    def test_unknown_sets_are_told_before_any_is_written(self, tmp_path):
        with pytest.raises(ValueError, match=r"sets=\['wafers'\] are unknown, expected any of solar_cells, textile_lo"):
            write_photographs(tmp_path / "out", ["solar_cells", "wafers"])
        with pytest.raises(ValueError, match="kind='tiny' of textile defects is unknown, expected local or global"):
            write_textile(tmp_path / "out", "tiny")
        assert not (tmp_path / "out").exists()

    def test_order_of_the_folders(self, tmp_path):
        folders = write_photographs(tmp_path, ["textile_local", "solar_cells"])

        assert [folder.name for folder in folders] == ["textile_local", "solar_cells"]
