"""Signals that ask for an end, heard in the event loop on every system."""

from __future__ import annotations

import asyncio
import selectors
import signal
import sys

import anyio
import pytest

from focusd.daemon.signals import ENDING, ending_signals


def plain_select() -> asyncio.SelectorEventLoop:
    """The event loop as Windows has it."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@pytest.mark.parametrize("loop_factory", [asyncio.SelectorEventLoop, plain_select])
def test_each_signal_wakes_an_idle_loop_and_what_was_there_before_comes_back(loop_factory: object) -> None:
    handlers = [signal.getsignal(number) for number in ENDING]

    async def main() -> list[int]:
        heard: list[int] = []
        with ending_signals() as signals, anyio.fail_after(5):
            for number in ENDING:
                signal.raise_signal(number)
                heard.append(await anext(signals))
        return heard

    assert anyio.run(main, backend_options={"loop_factory": loop_factory}) == ENDING
    assert [signal.getsignal(number) for number in ENDING] == handlers


def test_many_at_once_are_no_error() -> None:
    async def main() -> signal.Signals:
        with ending_signals() as signals, anyio.fail_after(5):
            for _ in range(1000):
                signal.raise_signal(signal.SIGTERM)
            return await anext(signals)

    assert anyio.run(main) == signal.SIGTERM


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGHUP")
def test_under_nohup_the_end_of_the_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform == "win32", reason="has neither")
def test_the_end_of_a_terminal_and_ctrl_backslash_are_heard() -> None:
    assert {signal.SIGHUP, signal.SIGQUIT} < set(ENDING)
