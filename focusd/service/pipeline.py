"""Stages that run at once, joined by bounded streams: while one frame is scored, the next is moved to and exposed.

What one stage raises cancels the others and is raised as itself. Each waits where it can be cancelled; a stage that is
cancelled on its way stops where it is, and the operation around it brings it home (service/observer.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.lowlevel
from anyio import to_thread
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from focusd.autofocus.observation import Observation
from focusd.microscope.protocol import Frame
from focusd.service.observer import Observer
from focusd.sharpness.pace import REMEMBERED

T = TypeVar("T")

WAITING_FRAMES = 1
"""Exposed and not yet scored; with the one that is scored and the one being exposed, all that are kept."""


@asynccontextmanager
async def stages() -> AsyncIterator[TaskGroup]:
    """A task group that raises the first error of its tasks, not a group of them."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    # Where the tasks have ended by being cancelled before they were waited for, nothing has been raised yet.
    await anyio.lowlevel.checkpoint_if_cancelled()


async def take_stack(
    observer: Observer,
    planes_um: list[float],
    told: Callable[[Observation], None],
    judge: Callable[[list[Observation]], T],
    ahead: Callable[[list[Observation]], Callable[[], object] | None],
) -> T:
    """Expose planes from one end to the other, so that backlash is the same for all, and score them meanwhile.

    Args:
        told: of each exposure when it is scored.
        judge: of all of them, in a thread of its own while the stage returns to where the operation began; what it
            says is returned when the stage is there.
        ahead: of those so far, asked after each until it gives something to do, in a thread of its own, before the
            judge is called.
    """
    observations: list[Observation] = []
    send, receive = anyio.create_memory_object_stream[Frame](WAITING_FRAMES)
    async with stages() as group, receive:
        group.start_soon(_acquire, observer, planes_um, send)
        async with stages() as preparing:
            work = None
            async for frame in receive:
                learnt = len(observations) >= REMEMBERED  # what all tiles of a frame cost this machine
                only = observer.telling_tiles(observations[0]) if learnt else None
                observations.append(await observer.look(frame, None, only=only))
                told(observations[-1])
                if work is None and (work := ahead(observations)):
                    preparing.start_soon(to_thread.run_sync, work)
        return await to_thread.run_sync(judge, observations)


async def _acquire(observer: Observer, planes_um: list[float], frames: MemoryObjectSendStream[Frame]) -> None:
    with frames:
        for z_um in planes_um:
            await frames.send(await observer.expose(z_um))
    await observer.rig.return_to_start()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
