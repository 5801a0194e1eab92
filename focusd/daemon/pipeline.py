"""A stack of planes: while one frame is scored, the next ones are moved to and exposed.

A move that is cancelled stops where it is, and the operation around it brings the stage home (daemon/observer.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio import to_thread
from anyio.streams.memory import MemoryObjectSendStream

from focusd.daemon.observer import Observer
from focusd.daemon.stages import stages
from focusd.focus.observation import Observation
from focusd.microscope.protocol import Frame
from focusd.scoring.pace import REMEMBERED

T = TypeVar("T")

WAITING_FRAMES = 1
"""Exposed and not yet scored; with the one that is scored and the one being exposed, all that are kept."""


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
        await observer.sweep(planes_um, frames.send)
    await observer.rig.return_to_start()
