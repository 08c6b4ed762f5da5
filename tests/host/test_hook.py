# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""The start-up hook alone, with a stand-in for anomalib that imports in no time."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

HOOK_FOLDER = Path(__file__).parents[2] / "anomalib_aprilgan" / "host"
HOOK = "_anomalib_aprilgan_hook"

HOST = """
__all__ = ["Padim"]
ALLOWED_MODULES = {"anomalib.models"}
class Padim: ...
"""
# What a model package does: it imports anomalib first, and its class lies in a submodule.
PLUGIN = "import anomalib.models\nfrom plugin._model import Lotus\n"
PLUGIN_MODEL = "class Lotus: ...\n"
SELF_REGISTRATION = f"from {HOOK} import register\nregister(Lotus, module=__name__)\n"
REPORT = """
import anomalib.models as models
import json, sys
classes = {name: getattr(models, name).__module__ for name in models.__all__}
print(json.dumps([classes, models.__all__.count("Lotus"), sorted(models.ALLOWED_MODULES)]))
"""
NO_PLUGIN = [{"Padim": "anomalib.models"}, 0, ["anomalib.models"]]
ONE_PLUGIN = [{"Padim": "anomalib.models", "Lotus": "plugin._model"}, 1, ["anomalib.models", "plugin"]]


@dataclass(frozen=True)
class Site:
    """A site-packages folder of our own, and an interpreter that sees no other."""

    folder: Path

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def add_entry_point(self, name: str, value: str) -> None:
        self.write(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        self.write(f"{name}-1.0.dist-info/entry_points.txt", f"[anomalib.models]\n{name} = {value}\n")

    def run(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        start = f"import site; site.addsitedir({str(self.folder)!r})\n"
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", start + dedent(code)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "ANOMALIB_MODEL_PLUGINS": "", **environment},
        )

    def report(self, code: str = "", **environment: str) -> tuple[list, str]:
        """Return what the host knows in the end, and what was said on the way."""
        done = self.run(dedent(code) + REPORT, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr


@pytest.fixture
def bare(tmp_path: Path) -> Site:
    """The hook, and neither a host nor a plugin."""
    for suffix in (".py", ".pth"):
        shutil.copy(HOOK_FOLDER / f"hook{suffix}", tmp_path / f"{HOOK}{suffix}")
    return Site(tmp_path)


@pytest.fixture
def host(bare: Site) -> Site:
    """The hook and a host."""
    bare.write("anomalib/__init__.py", "")
    bare.write("anomalib/models/__init__.py", HOST)
    return bare


@pytest.fixture
def site(host: Site) -> Site:
    """The hook, a host and one healthy plugin."""
    host.write("plugin/__init__.py", PLUGIN + SELF_REGISTRATION)
    host.write("plugin/_model.py", PLUGIN_MODEL)
    host.add_entry_point("lotus", "plugin:Lotus")
    return host


def test_import_of_the_host_registers_the_plugin(site: Site) -> None:
    known, said = site.report()
    assert known == ONE_PLUGIN
    assert not said


def test_a_plugin_need_not_register_itself(site: Site) -> None:
    site.write("plugin/__init__.py", PLUGIN)
    assert site.report() == (ONE_PLUGIN, "")


def test_a_plugin_imported_first_registers_itself(site: Site) -> None:
    assert site.report("import plugin") == (ONE_PLUGIN, "")


def test_a_plugin_inside_a_half_imported_package_is_passed_over(site: Site) -> None:
    site.add_entry_point("lotus", "plugin.late:Lotus")
    site.write("plugin/late.py", "from plugin import Lotus\n")
    known, said = site.report("import plugin")
    assert known == ONE_PLUGIN
    assert not said


def test_interpreter_start_imports_the_hook_only(site: Site) -> None:
    listing = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    hooked = set(json.loads(site.run(listing).stdout))
    site.write(f"{HOOK}.pth", "# Reading any .pth file may load a codec.\n")
    assert hooked - set(json.loads(site.run(listing).stdout)) == {HOOK}


def test_anomalib_alone_loads_neither_plugins_nor_metadata(site: Site) -> None:
    code = "import anomalib, sys; print(sorted({'plugin', 'anomalib.models', 'importlib.metadata'} & {*sys.modules}))"
    assert site.run(code).stdout == "[]\n"


def test_the_host_keeps_its_own_loader(site: Site) -> None:
    done = site.run("""
        import importlib.util, inspect
        print(importlib.util.find_spec("anomalib.models").loader.get_source("anomalib.models") is not None)
        import anomalib.models as models
        print(type(models.__loader__).__name__, models.__spec__.loader is models.__loader__)
        print(inspect.getsource(models.Padim))
    """)
    assert done.stdout.splitlines() == ["True", "SourceFileLoader True", "class Padim: ...", ""]


@pytest.mark.parametrize(
    "again",
    ["import importlib; importlib.reload(models)", "del sys.modules['anomalib.models']"],
    ids=["reload", "second import"],
)
def test_a_fresh_host_is_told_again(site: Site, again: str) -> None:
    assert site.report(f"import sys, anomalib.models as models\n{again}") == (ONE_PLUGIN, "")


def test_registration_twice_changes_nothing(site: Site) -> None:
    known, said = site.report(f"""
        from {HOOK} import load_plugins, register
        from plugin import Lotus
        register(Lotus, module="plugin")
        load_plugins()
    """)
    assert known == ONE_PLUGIN
    assert not said


def test_two_copies_of_the_hook_install_one_finder(site: Site) -> None:
    shutil.copy(site.folder / f"{HOOK}.py", site.folder / "copy_of_hook.py")
    done = site.run("import sys, copy_of_hook; copy_of_hook.install(); print(len(sys.meta_path))")
    assert done.stdout == site.run("import sys; print(len(sys.meta_path))").stdout


def test_foreign_hooks_of_the_same_import_do_not_disturb(site: Site) -> None:
    # Like ours, such a hook asks every other finder for the module; unlike ours, it does not know ours.
    shutil.copy(site.folder / f"{HOOK}.py", site.folder / "foreign.py")
    for position in ("0", "len(sys.meta_path)"):
        code = f"import foreign, sys; sys.meta_path.insert({position}, foreign.PluginFinder())"
        assert site.report(code) == (ONE_PLUGIN, "")


def test_late_installation_registers_at_once(site: Site) -> None:
    (site.folder / f"{HOOK}.pth").unlink()
    assert site.report("import anomalib.models") == (NO_PLUGIN, "")
    assert site.report(f"import anomalib.models, {HOOK}; {HOOK}.install()") == (ONE_PLUGIN, "")


def test_without_the_hook_a_plugin_registers_itself(site: Site) -> None:
    (site.folder / f"{HOOK}.pth").unlink()
    assert site.report("import plugin") == (ONE_PLUGIN, "")


BROKEN = {
    "missing dependency": ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
    "error": ("1 / 0", "ZeroDivisionError: division by zero"),
    "syntax": ("class Ruin(:", "SyntaxError: invalid syntax"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "no such class": ("", "AttributeError: module 'ruin' has no attribute 'Ruin'"),
    "not a class": ("Ruin = 3", "TypeError: not a class: 3"),
}


@pytest.mark.parametrize(("source", "cause"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_costs_one_warning(site: Site, source: str, cause: str) -> None:
    site.write("ruin.py", source)
    site.add_entry_point("a_ruin", "ruin:Ruin")
    known, said = site.report()
    assert known == ONE_PLUGIN
    assert said.count("RuntimeWarning") == 1
    assert f"The model plugin 'a_ruin' of anomalib (ruin:Ruin) is not available: {cause}" in said
    assert "Traceback" not in said


def test_broken_metadata_costs_one_warning(site: Site) -> None:
    known, said = site.report("""
        import sys
        class Finder:
            def find_spec(self, *_): return None
            def find_distributions(self, *_): raise OSError("unreadable")
        sys.meta_path.append(Finder())
    """)
    assert known == NO_PLUGIN
    assert said.count("RuntimeWarning") == 1
    assert "The model plugins of anomalib cannot be listed: OSError: unreadable" in said


@pytest.mark.parametrize("name", ["Padim", "PADIM"])
def test_a_plugin_does_not_take_a_name_of_the_host(site: Site, name: str) -> None:
    site.write("impostor.py", f"class {name}: ...")
    site.add_entry_point("impostor", f"impostor:{name}")
    known, said = site.report()
    assert known == ONE_PLUGIN
    assert said.count("RuntimeWarning") == 1
    assert f"impostor.{name} is not registered as a model of anomalib: its name belongs to" in said
    assert "anomalib.models.Padim" in said


def test_a_plugin_does_not_hide_a_submodule_of_the_host(host: Site) -> None:
    host.write("anomalib/models/image.py", "")
    host.write("anomalib/models/__init__.py", HOST + "from anomalib.models import image\n")
    host.write("impostor.py", "class image: ...")
    host.add_entry_point("impostor", "impostor:image")
    known, said = host.report()
    assert known == NO_PLUGIN
    assert "impostor.image is not registered" in said


def test_a_reloaded_plugin_replaces_its_class(site: Site) -> None:
    done = site.run("""
        import anomalib.models as models, importlib, plugin._model
        old = models.Lotus
        importlib.reload(plugin._model)
        importlib.reload(plugin)
        print(models.Lotus is plugin._model.Lotus, models.Lotus is old, models.__all__.count("Lotus"))
    """)
    assert done.stdout == "True False 1\n"
    assert not done.stderr


@pytest.mark.parametrize("value", ["0", "off", "False", " no "])
def test_the_variable_switches_the_hook_off(site: Site, value: str) -> None:
    assert site.report(ANOMALIB_MODEL_PLUGINS=value) == (NO_PLUGIN, "")
    assert site.report("import plugin", ANOMALIB_MODEL_PLUGINS=value) == (ONE_PLUGIN, "")


def test_the_variable_is_read_again_when_the_host_is_imported(site: Site) -> None:
    assert site.report("import os; os.environ['ANOMALIB_MODEL_PLUGINS'] = '0'") == (NO_PLUGIN, "")
    assert site.report(ANOMALIB_MODEL_PLUGINS="1") == (ONE_PLUGIN, "")


def test_a_missing_host_is_nobodys_concern(bare: Site) -> None:
    done = bare.run("import importlib.util; print(importlib.util.find_spec('anomalib')); import json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")
    assert "ModuleNotFoundError: No module named 'anomalib'" in bare.run("import anomalib.models").stderr


def test_an_orphaned_pth_file_is_silent(site: Site) -> None:
    (site.folder / f"{HOOK}.py").unlink()
    site.write("plugin/__init__.py", PLUGIN)
    assert site.report() == (NO_PLUGIN, "")


def test_a_zipped_host_is_hooked_too(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "host.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for source in (site.folder / "anomalib").rglob("*.py"):
            file.write(source, source.relative_to(site.folder))
    shutil.rmtree(site.folder / "anomalib")
    assert site.report(f"import sys; sys.path.append({str(archive)!r})") == (ONE_PLUGIN, "")


@pytest.mark.parametrize("slow", ["anomalib/models/__init__.py", "plugin/__init__.py", "plugin/_model.py"])
def test_threads_that_import_both_at_once_do_not_lock_each_other(site: Site, slow: str) -> None:
    file = site.folder / slow
    file.write_text(f"import time; time.sleep(0.2)\n{file.read_text(encoding='utf-8')}", encoding="utf-8")
    for first, second in (("plugin", "anomalib.models"), ("anomalib.models", "plugin")):
        known, said = site.report(f"""
            import importlib, threading, time
            threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in {(first, second)}]
            for thread in threads:
                thread.start()
                time.sleep(0.05)
            for thread in threads:
                thread.join()
        """)
        assert known == ONE_PLUGIN
        assert not said
