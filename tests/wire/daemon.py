"""A real server over operations that do what a refocus's `strategy` says. Also runs as a process:
prints its endpoints as JSON, ends when its stdin does."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import anyio
import anyio.to_thread

from focusd.config import LogConfig, ServerConfig
from focusd.errors import NoSampleError, RequestError
from focusd.service.events import EventBus
from focusd.service.jobs import Jobs, Report
from focusd.service.logs import configure_logging
from focusd.wire.server import serve
from focusd.wire.sockets import Endpoints

ANYWHERE = ServerConfig(control="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*")


@dataclass
class ScriptedOperations:
    runs: int = 0
    release: anyio.Event = field(default_factory=anyio.Event)
    z_um: float = 0.0

    async def calibrate(
        self, *, range_um: float | None, step_um: float | None, planes_um: list[float] | None, report: Report
    ) -> dict[str, Any]:
        report("focus.progress", {"plane": 1, "of": 1})
        return {"id": "c1", "planes": 51, "fwhm_um": 95.0, "range_um": range_um, "step_um": step_um}

    async def refocus(
        self,
        *,
        roi: tuple[int, int, int, int] | None,
        strategy: str | None,
        max_exposures: int | None,
        report: Report,
    ) -> dict[str, Any]:
        self.runs += 1
        report("focus.progress", {"exposures": 1, "z_um": self.z_um})
        if strategy == "wait":
            await self.release.wait()
        elif strategy == "fail":
            raise NoSampleError("the field is empty; move to a textured one", structure=[0.1])
        elif strategy == "crash":
            raise ZeroDivisionError("a bug")
        self.z_um = 12.5
        probe = {"z_um": 0.0, "b": 0.4, "sigma": 0.02, "structure": 0.9}
        result = {"outcome": "focused", "z_found_um": 12.5, "exposures": 4, "probes": [probe]}
        report("focus.done", result)
        return {**result, "roi": roi}

    async def reconnect(self) -> None:
        raise RequestError("nothing to reconnect")

    async def state(self) -> dict[str, Any]:
        return {"rig": "scripted", "z_um": self.z_um, "fault": None}


@dataclass
class Daemon:
    endpoints: Endpoints
    operations: ScriptedOperations
    bus: EventBus
    jobs: Jobs


@asynccontextmanager
async def running_daemon(config: ServerConfig = ANYWHERE) -> AsyncIterator[Daemon]:
    bus, operations = EventBus(), ScriptedOperations()
    async with anyio.create_task_group() as tasks:
        jobs = Jobs(bus, tasks)
        async with serve(config, operations, bus, jobs, operations.reconnect) as endpoints:
            yield Daemon(endpoints, operations, bus, jobs)


async def _main() -> None:
    async with running_daemon() as daemon:
        print(json.dumps(asdict(daemon.endpoints)), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    configure_logging(LogConfig(level="warning"))
    anyio.run(_main)
