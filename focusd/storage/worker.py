"""One thread for work that takes time, and few requests that may wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread

from focusd.errors import BusyError

T = TypeVar("T")

MOST_WAITING = 32
"""Requests that may wait for one worker; the last of them waits a few seconds."""


class Worker:
    """Does one thing after the other: thousands of requests keep nothing else from its turn.

    Args:
        what: the requests wait for, in words.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._turn = anyio.CapacityLimiter(1)
        self._waiting = 0

    async def do(self, work: Callable[..., T], *given: object) -> T:
        """Do something that takes time, after all that was asked for before.

        Raises:
            BusyError: too many wait already; and what `work` raises.
        """
        if self._waiting >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} requests wait for {self._what} already; ask again in a second")
        self._waiting += 1
        try:
            return await to_thread.run_sync(work, *given, limiter=self._turn)
        finally:
            self._waiting -= 1
