"""Every await of a piece of asynchronous work: counted, over all the tasks that it starts, and one of them chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any


class _Stepped(Awaitable[Any]):
    """A coroutine that tells each time it suspends."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], tell: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._tell = tell

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            self._tell()
            try:
                step = partial(self._coroutine.send, (yield awaited))
            except BaseException as error:
                step = partial(self._coroutine.throw, error)


@contextmanager
def stepping(tell: Callable[[], object]) -> Generator[None]:
    """Call `tell` at each await of the tasks that are started inside the `with`."""

    async def stepped(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await _Stepped(coroutine, tell)

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(stepped(coroutine), loop=loop, **options)

    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(before)
