# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Ctrl-C and SIGTERM, which stop long work also while a trainer has its own handlers."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import NoReturn

STOPPED = 130  # status of a command that Ctrl-C stopped


class Stop:
    """Whether a signal has come, and the handler of signals: an exception alone is lost where it strikes a finalizer.

    Args:
        numbers (Sequence[int]): Signals to heed.
    """

    def __init__(self, numbers: Sequence[int] = ()) -> None:
        self.is_wanted = False
        self.numbers = numbers

    def __call__(self, *_: object) -> NoReturn:
        """Stop now, and remember that it is wanted.

        Raises:
            KeyboardInterrupt: Always.
        """
        self.is_wanted = True
        raise KeyboardInterrupt

    def listen(self) -> None:
        """Take the signals, also from a library that has put a handler of its own before this one."""
        for number in self.numbers:
            signal.signal(number, self)

    def check(self) -> None:
        """Stop now, if a signal has come.

        Raises:
            KeyboardInterrupt: If one has.
        """
        if self.is_wanted:
            raise KeyboardInterrupt


@contextmanager
def stopped_by_signals() -> Generator[Stop, None, None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt unless they are ignored, and put the handlers back at the end.

    Lightning waits with SIGTERM for the next batch, and ignores it in the last one, unless there is a handler.
    """
    is_main = threading.current_thread() is threading.main_thread()  # others can have no handlers
    numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {number: signal.getsignal(number) for number in numbers}
    heeded = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    stop = Stop(tuple(heeded))
    try:
        stop.listen()
        yield stop
    finally:
        for number, handler in heeded.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def ended_though_deaf(stop: Stop, clean_up: Callable[[], object], patience: float = 5.0) -> Generator[None, None, None]:
    """End this process, with status 130, where Python hears no signal: in a library that waits for other processes.

    Args:
        stop (Stop): Knows whether Python has heard it.
        clean_up (Callable[[], object]): What to do before, in another thread.
        patience (float): Seconds between a signal and the end.
    """
    if not stop.numbers:
        yield
        return
    listener, bell = socket.socketpair()
    bell.settimeout(0)  # never waits

    def watch() -> None:
        with listener:
            while rung := listener.recv(64):
                if not set(rung).isdisjoint(stop.numbers):
                    time.sleep(patience)
                    if not stop.is_wanted:
                        clean_up()
                        os._exit(STOPPED)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)  # the interpreter rings it at once
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        bell.close()


def is_stop(error: BaseException) -> bool:
    """Whether it is an interrupt, or the exit that Lightning makes of one."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
    )
