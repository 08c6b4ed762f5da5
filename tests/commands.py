# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Commands in processes of their own, forked from one that has imported the package: that takes no time.

They share what was read at import, and this process's ``sys.path``; ``.ci/run`` and ``tests/host`` start commands anew.
"""

import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
import torch

PATIENCE = 300  # seconds, for anything
SOON = 60  # seconds, for the end of what was stopped
SCRIPT = Path(sys.executable).with_name("anomalib-aprilgan")


class Command:
    """A command at work, in a process group of its own.

    Args:
        arguments: All words after the command's name.
        folder: Where it works, and leaves what it says.
        environment: Variables besides this process's own.
        script: The command, a Python script; Lightning starts further processes with it.
    """

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str], script: Path = SCRIPT) -> None:
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.log = folder / f"command-{time.monotonic_ns()}.txt"
        self.log.touch()
        self.process = forking().Process(target=run, args=([str(script), *arguments], self.log, variables))
        self.process.start()
        self.pid = self.process.pid

    def told(self) -> str:
        """What it has said until now, on both streams."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def status(self) -> int | None:
        """As subprocess's returncode: None while it is at work, negative where a signal killed it."""
        return self.process.exitcode

    def send(self, number: int) -> None:
        """Send it a signal; it must be at work."""
        assert self.status() is None, self.told()
        os.kill(self.pid, number)

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its status when it has ended."""
        self.process.join(seconds)
        status = self.status()
        assert status is not None, self.told()
        return status

    def wait_for_lines(self, path: Path, number: int) -> bytes:
        """What a file holds as soon as it has so many lines; the command must be at work."""
        deadline = time.monotonic() + PATIENCE
        while (content := _content(path)).count(b"\n") < number:
            self._wait_on(deadline)
        return content

    def wait_for_words(self, words: str) -> None:
        """Come back as soon as it has said them; it must be at work."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.told():
            self._wait_on(deadline)

    def _wait_on(self, deadline: float) -> None:
        assert self.status() is None, self.told()
        assert time.monotonic() < deadline, self.told()
        time.sleep(0.005)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # not there yet, or gone with the command's end
        return b""


def forking() -> multiprocessing.context.ForkServerContext:
    """Starts processes like one that has imported the package, from where this process has it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["anomalib_aprilgan.cli", "anomalib_aprilgan.prediction.bulk"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONSAFEPATH", "1")  # the working directory may hold the package's source
        forkserver.ensure_running()
    return context


def run(words: list[str], log: Path, variables: dict[str, str]) -> None:
    """Become the command, as if it had been typed in the folder of the log."""
    os.setsid()
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(log.parent)
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")


def train_in_two(config: dict[str, Any], folder: Path) -> str:
    """What ``anomalib train`` says in two processes; it knows this package also where the hook is not installed."""
    (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    script = folder / "anomalib_with_plugin.py"
    script.write_text("import anomalib_aprilgan\nfrom anomalib.cli.cli import main\n\nmain()\n", encoding="utf-8")
    words = ["train", f"--config={folder / 'config.yaml'}", "--trainer.devices=2", "--trainer.strategy=ddp"]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    with none_left_behind() as started:
        started.append(Command(words, folder, {"PYTHONPATH": paths}, script))
        assert started[0].wait() == 0, started[0].told()
    return started[0].told()


@contextmanager
def none_left_behind() -> Generator[list[Command], None, None]:
    """A list for commands; all of those in it, and what they have started, are killed in the end."""
    started: list[Command] = []
    try:
        yield started
    finally:
        for command in started:
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            command.process.kill()  # it may not have a group of its own yet
            command.wait(SOON)
