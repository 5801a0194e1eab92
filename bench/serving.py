"""The daemon on a rig, in the caller's own event loop, so that a bench sees what happens in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from focusd.assembly import assembled
from focusd.config import RigConfig
from focusd.daemon.events import EventBus
from focusd.daemon.memory import RigMemory
from focusd.daemon.rig import Rig
from focusd.errors import RequestError
from focusd.scoring.scorer import Scorer
from focusd.server.sockets import Endpoints
from focusd.standalone import favour_event_loop


@asynccontextmanager
async def serving(config: RigConfig, rig: Rig, scorer: Scorer) -> AsyncIterator[tuple[Endpoints, EventBus]]:
    """Serve clients inside the `async with`."""
    config.state_folder.mkdir(parents=True, exist_ok=True)
    memory = RigMemory(config.state_folder / "rig.json")
    async with assembled(config, scorer, rig, memory, _nothing, lambda: False) as assembly:
        favour_event_loop()
        assert assembly.endpoints is not None, "clients are served"
        yield assembly.endpoints, assembly.bus


async def _nothing() -> None:
    raise RequestError("a bench's rig is not reconnected")
