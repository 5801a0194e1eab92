"""One thread for work that takes time, and few requests that may wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

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


class Look(Generic[T]):
    """Looks at something that may have changed: one look answers all who asked before it began, all at once.

    Args:
        look: takes time, and is done in a thread.
    """

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._under_way, self._worker = anyio.Lock(), anyio.CapacityLimiter(1)
        self._next: _Seen[T] | None = None

    async def seen(self) -> T:
        """What is so now; raises what looking raises."""
        while (other := self._next) is not None:
            await other.has_ended.wait()
            if other.answers:
                return other.answers[0]
        mine = self._next = _Seen()
        try:
            async with self._under_way:
                self._next = None  # whoever asks from now on is answered by the next one
                mine.answers.append(await to_thread.run_sync(self._look, limiter=self._worker))
        finally:
            self._next = None if self._next is mine else self._next
            mine.has_ended.set()
        return mine.answers[0]


class _Seen(Generic[T]):
    def __init__(self) -> None:
        self.answers: list[T] = []
        self.has_ended = anyio.Event()
