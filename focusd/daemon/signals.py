"""The signals that ask the daemon to end, heard in the event loop. (asyncio hears none on Windows.)"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio

ENDING = [signal.SIGINT, signal.SIGTERM]
"""Ctrl-C, and what service managers send."""
if sys.platform == "win32":
    ENDING.append(signal.SIGBREAK)  # what one process may send to another there
else:
    ENDING += [signal.SIGHUP, signal.SIGQUIT]  # a terminal or ssh session that closes, and Ctrl-\


@contextmanager
def ending_signals() -> Iterator[AsyncIterator[signal.Signals]]:
    """What arrives of `ENDING` inside the `with`; in the main thread alone.

    Under `nohup`, which has SIGHUP ignored, it stays so.
    Python's handlers run when the main thread next runs Python, which may be never while it waits for a socket. So each
    signal is written into a socket that the event loop waits for.
    """
    heard, written = socket.socketpair()
    with heard, written:
        heard.setblocking(False)
        written.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in ENDING if not _nohup(number)}
        woken = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
        try:
            yield _heard(heard)
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)


def _nohup(number: signal.Signals) -> bool:
    return number.name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


async def _heard(numbers: socket.socket) -> AsyncIterator[signal.Signals]:
    while True:
        await anyio.wait_readable(numbers)
        for number in numbers.recv(16):
            if number in ENDING:
                yield signal.Signals(number)
