# Copyright (C) 2026 The anomalib-aprilgan developers
# SPDX-License-Identifier: Apache-2.0

"""Handlers of signals around long work; what a benchmark makes of signals is in ``test_stops.py``."""

import signal

import pytest

from anomalib_aprilgan.components.interrupts import stopped_by_signals


def test_a_signal_that_comes_with_the_handlers_leaves_none_behind(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    install = signal.signal
    raised = []

    def install_and_strike(number, handler):
        install(number, handler)
        if number == signal.SIGTERM and not raised:
            raised.append(number)
            handler(number, None)  # as Python does when one has come

    monkeypatch.setattr(signal, "signal", install_and_strike)
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        pytest.fail("the signal came before")
    assert raised
    assert {number: signal.getsignal(number) for number in before} == before
