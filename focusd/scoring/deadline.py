"""Calls that may never return: a GPU that is lost can hang instead of failing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from focusd.errors import ScoringError
from focusd.scoring.threads import compute_alone

T = TypeVar("T")


class Deadline:
    """Runs calls in a thread of its own, each within a deadline. Used by one thread at a time.

    The thread is a daemon thread: a call that never returns does not keep the process alive.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._late: Future[Any] | None = None
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="focusd-scorer", daemon=True).start()

    def call(self, function: Callable[[], T]) -> T:
        """The function's result.

        Raises:
            ScoringError: there is none in time, or the call before still hangs; this one is not made then.
        """
        if self.hangs:
            raise ScoringError("an earlier call to it still hangs; restart focusd")
        future = Future[T]()
        self._queue.put((future, function))
        try:
            return future.result(self._seconds)
        except TimeoutError:
            if future.done():  # it was the function's own
                raise
            self._late = future
            raise ScoringError(f"it has not answered within {self._seconds:g} s") from None

    @property
    def hangs(self) -> bool:
        """Whether a call is late that has not returned since."""
        return self._late is not None and not self._late.done()

    def close(self) -> None:
        """End the thread, once a call under way has returned."""
        self._queue.put(None)

    def _work(self) -> None:
        compute_alone()
        while (item := self._queue.get()) is not None:
            future, function = item
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            del item, future, function  # else the last frame would live on
