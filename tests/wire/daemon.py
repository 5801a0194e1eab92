"""A real server over operations that do what a refocus's `strategy` says. Also runs as a process:
prints its endpoints as JSON, ends when its stdin does."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import anyio
import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from focusd.autofocus.geometry import LocalMap, describe, geometry_of
from focusd.config import HoldConfig, LogConfig, ServerConfig
from focusd.errors import FocusdError, NoSampleError, RequestError
from focusd.service.events import EventBus
from focusd.service.hold import Hold
from focusd.service.jobs import Jobs, Report
from focusd.service.logs import configure_logging
from focusd.service.record import Record, recorded
from focusd.service.slidemap import SlideMap
from focusd.wire.server import serve
from focusd.wire.sockets import LOOP, Endpoints

ANYWHERE = ServerConfig(control="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*")


@dataclass
class ScriptedOperations:
    slide: SlideMap
    runs: int = 0
    release: anyio.Event = field(default_factory=anyio.Event)
    z_um: float = 0.0
    fails: FocusdError | None = None
    """What a refocus and a score raise."""

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
        max_seconds: float | None = None,
        max_dose_ms: float | None = None,
        target_um: float | None = None,
        usable_um: float | None = None,
        prior: tuple[float, float] | None = None,
        surface: Literal["mean", "median", "nearest"] | None = None,
        report: Report,
    ) -> dict[str, Any]:
        self.runs += 1
        self._fail()
        report("focus.progress", {"exposures": 1, "z_um": self.z_um})
        if strategy == "wait":
            await self.release.wait()
        elif strategy == "fail":
            raise NoSampleError("the field is empty; move to a textured one", structure=[0.1])
        elif strategy == "crash":
            raise ZeroDivisionError("a bug")
        self.z_um = 12.5
        probe = {"z_um": 0.0, "b": 0.4, "sigma": 0.02, "structure": 0.9}
        found = {"z_start_um": 0.0, "z_found_um": 12.5, "sigma_um": 0.5}
        result = {"outcome": "focused", **found, "exposures": 4, "probes": [probe]}
        report("focus.done", result)
        self.slide.focused(12.5, 0.4)
        if strategy == "mapped":
            result["geometry"] = tilted_field()
        return {**result, "roi": roi}

    async def move(self, *, z_um: float, report: Report) -> dict[str, Any]:
        self.z_um = z_um
        return {"z_um": z_um}

    def _fail(self) -> None:
        if self.fails:
            raise self.fails

    async def depth_of_field_um(self) -> float:
        return 8.0

    async def score(self, *, pixels: NDArray[np.unsignedinteger], roi: object) -> dict[str, Any]:
        self._fail()
        b = float(pixels.mean()) / 1000
        return {"outcome": "scored", "b": b, "sigma": 0.01, "structure": 1.0, "sharpness": b, "roi": roi}

    async def reconnect(self) -> None:
        raise RequestError("nothing to reconnect")

    async def state(self) -> dict[str, Any]:
        return {"rig": "scripted", "z_um": self.z_um, "fault": None}


def tilted_field() -> dict[str, Any]:
    """The geometry of a field of 3×4 blocks that falls by 30 µm along x; one does not count."""
    y, x = np.meshgrid(128.0 + 128 * np.arange(3), 128.0 + 128 * np.arange(4), indexing="ij")
    focus_um = 30 * x / (3 * 128 + 256)
    focus_um[0, 1] = np.nan
    blocks = LocalMap(focus_um, np.full_like(x, 0.5), y, x)
    return describe(blocks, geometry_of(blocks, 0.65, 8.0, "increasing"), 0.65)


@dataclass
class Daemon:
    endpoints: Endpoints
    operations: ScriptedOperations
    bus: EventBus
    jobs: Jobs
    record: Record


@asynccontextmanager
async def running_daemon(config: ServerConfig = ANYWHERE) -> AsyncIterator[Daemon]:
    bus = EventBus()
    with TemporaryDirectory() as folder, recorded(bus, Path(folder) / "events.sqlite") as record:
        file = Path(folder) / "map.json"
        operations = ScriptedOperations(SlideMap(file, depth_of_field_um=lambda: 8.0, fingerprint={}))
        async with anyio.create_task_group() as tasks:
            jobs = Jobs(bus, tasks)
            hold = Hold(operations, bus, jobs, HoldConfig(), 10.0)
            tasks.start_soon(hold.run)
            async with serve(config, operations, bus, jobs, hold, record, operations.reconnect) as endpoints:
                yield Daemon(endpoints, operations, bus, jobs, record)
            tasks.cancel_scope.cancel()


async def _main() -> None:
    async with running_daemon() as daemon:
        print(json.dumps(asdict(daemon.endpoints)), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    configure_logging(LogConfig(level="warning"))
    anyio.run(_main, backend_options=LOOP)
