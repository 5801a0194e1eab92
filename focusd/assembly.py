"""A rig, its operations and its sockets, put together and taken apart again: the same for every program around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import anyio
import structlog

from focusd.config import RigConfig
from focusd.daemon.events import EventBus, Subscriber
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Jobs
from focusd.daemon.logs import forward_to
from focusd.daemon.memory import Recorder, RigMemory
from focusd.daemon.metrics import Bookkeeper, served
from focusd.daemon.operations import RigOperations
from focusd.daemon.record import recorded
from focusd.daemon.rig import Rig
from focusd.daemon.stages import stages
from focusd.scoring.scorer import Scorer
from focusd.server.answers import Answers, Reconnect
from focusd.server.server import serve
from focusd.server.sockets import EndpointError, Endpoints
from focusd.storage.store import CalibrationStore

log = structlog.get_logger(__name__)

Serving = Literal["required", "if_free", "none"]
"""Whether clients and monitors are served. if_free: where another program has the ports, none are."""


@dataclass(frozen=True)
class Assembly:
    """A rig that runs.

    Attributes:
        endpoints: where clients are served; None: nowhere.
    """

    rig: Rig
    operations: RigOperations
    bus: EventBus
    jobs: Jobs
    hold: Hold
    endpoints: Endpoints | None


@asynccontextmanager
async def assembled(
    config: RigConfig,
    scorer: Scorer,
    rig: Rig,
    memory: RigMemory,
    reconnect: Reconnect,
    forgets_fault: Callable[[], bool],
    serving: Serving = "required",
    listener: Subscriber = lambda _event: None,
) -> AsyncIterator[Assembly]:
    """Run an open rig inside the `async with`. Its end cancels the running job and waits for it.

    Args:
        reconnect: as for `Answers`.
        forgets_fault: whether the rig's record says nothing of a fault at the end, since an operator has looked.
        listener: hears every event.

    Raises:
        EndpointError, KeyFileError, MetricsError: clients or figures cannot be served.
    """
    folder = config.state_folder
    operations = RigOperations(config, rig, scorer, CalibrationStore(folder / "calibrations"))
    bus, recorder, bookkeeper = EventBus(), Recorder(memory, rig), Bookkeeper()
    with ExitStack() as resources:
        record = resources.enter_context(recorded(bus, folder / "events.sqlite"))
        resources.enter_context(forward_to(bus))
        for hear in (listener, recorder.hear, bookkeeper.hear):
            resources.enter_context(bus.subscribed(hear))
        async with served(config.metrics, config.name, scorer.model.name), stages() as tasks:
            jobs = Jobs(bus, tasks)
            hold = Hold(
                operations, bus, jobs, config.hold, config.camera.exposure_ms, interrupted=memory.record.hold
            )
            tasks.start_soon(recorder.keep)
            tasks.start_soon(hold.run)
            async with AsyncExitStack() as sockets:
                sockets.push_async_callback(_shut_down, jobs)
                endpoints = None
                if serving != "none":
                    answers = Answers(operations, bus, jobs, hold, record, reconnect)
                    opened = serve(config.server, answers, bus, jobs, record, config.http)
                    try:
                        endpoints = await sockets.enter_async_context(opened)
                    except EndpointError as error:
                        if serving == "required":
                            raise
                        log.warning("no client is served", reason=error.message)
                yield Assembly(rig, operations, bus, jobs, hold, endpoints)
            tasks.cancel_scope.cancel()
        recorder.stop(forget_fault=forgets_fault())


async def _shut_down(jobs: Jobs) -> None:
    with anyio.CancelScope(shield=True):
        await jobs.shutdown()
