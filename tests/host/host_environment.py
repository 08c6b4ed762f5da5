# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Virtual environments over the libraries of the running interpreter."""

import json
import os
import site
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SILENT = Path(__file__).parents[1] / "no_telemetry"
NO_NETWORK = Path(__file__).parents[1] / "no_network"
WATCHED = os.pathsep.join(map(str, (SILENT, NO_NETWORK)))
# What the console script `anomalib` of a normal installation does, command after command: importing takes longest.
ANOMALIB = """
import json, sys
from importlib.metadata import entry_points
(script,) = entry_points(group="console_scripts", name="anomalib")
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["anomalib", *arguments]
    script.load()()
"""


def call(*command: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command that sees neither this checkout nor a switched-off hook, and ends where it tries the network."""
    hidden = ("PYTHON", "ANOMALIB_MODEL_PLUGINS", "HF_HUB_OFFLINE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": WATCHED, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )


@dataclass(frozen=True)
class Environment:
    """A virtual environment without pip; commands run in its own folder, away from the checkout."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "Environment":
        venv.create(folder, with_pip=False)
        return cls(folder)

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def site_packages(self) -> Path:
        (found,) = self.folder.rglob("site-packages")
        return found

    def files(self) -> set[Path]:
        return {file.relative_to(self.folder) for file in self.folder.rglob("*") if file.is_file()}

    def pip(self, *arguments: str | Path) -> None:
        done = call(sys.executable, "-m", "pip", "--python", self.python, *arguments, cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def show_outer_libraries(self) -> None:
        """Make everything visible that the running interpreter has installed, after what is installed here."""
        lines = "".join(f"import site; site.addsitedir({folder!r})\n" for folder in site.getsitepackages())
        (self.site_packages / "zz_outer.pth").write_text(lines, encoding="utf-8")

    def run(self, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return call(self.python, *arguments, cwd=self.folder, **environment)

    def evaluate(self, code: str, *arguments: str, options: tuple[str, ...] = (), **environment: str) -> object:
        """Run code and return what it printed last, as JSON."""
        done = self.run(*options, "-c", code, *arguments, **environment)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def anomalib(self, *commands: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the stock command with these arguments, one command after the other."""
        return self.run("-c", ANOMALIB, json.dumps(commands), COLUMNS="200", **environment)
