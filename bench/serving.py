"""The daemon's server on a rig, in the caller's own event loop, so that a bench sees what happens in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from focusd.config import RigConfig
from focusd.daemon.events import EventBus
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Jobs
from focusd.daemon.operations import RigOperations
from focusd.daemon.record import recorded
from focusd.daemon.rig import Rig
from focusd.errors import RequestError
from focusd.scoring.scorer import Scorer
from focusd.server.server import serve
from focusd.server.sockets import Endpoints
from focusd.standalone import favour_event_loop
from focusd.storage.store import CalibrationStore


@asynccontextmanager
async def serving(config: RigConfig, rig: Rig, scorer: Scorer) -> AsyncIterator[tuple[Endpoints, EventBus]]:
    """Serve clients inside the `async with`."""
    folder = config.state_folder
    operations = RigOperations(config, rig, scorer, CalibrationStore(folder / "calibrations"))
    bus = EventBus()
    favour_event_loop()
    with recorded(bus, folder / "events.sqlite") as record:
        async with anyio.create_task_group() as tasks:
            jobs = Jobs(bus, tasks)
            hold = Hold(operations, bus, jobs, config.hold, config.camera.exposure_ms)
            tasks.start_soon(hold.run)
            async with serve(config.server, operations, bus, jobs, hold, record, _nothing) as endpoints:
                yield endpoints, bus
            tasks.cancel_scope.cancel()


async def _nothing() -> None:
    raise RequestError("a bench's rig is not reconnected")
