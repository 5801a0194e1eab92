"""A real server over the real operations on a scripted rig: what it answers is what production answers.

A refocus whose `strategy` names a scene plays it. Also runs as a process: prints its endpoints as JSON, ends when its
stdin does."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from focusd.config import HoldConfig, LogConfig, RigConfig, ServerConfig
from focusd.daemon.events import EventBus
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Jobs, Report
from focusd.daemon.logs import configure_logging
from focusd.daemon.operation import operation_on
from focusd.daemon.operations import RigOperations
from focusd.daemon.record import Record, recorded
from focusd.daemon.rig import Rig
from focusd.errors import FocusdError
from focusd.focus.blocks import LocalMap
from focusd.focus.geometry import describe, geometry_of
from focusd.protocol.requests import RefocusParams
from focusd.protocol.results import FieldGeometry, RefocusResult, Score
from focusd.scoring.spectra import Region
from focusd.server.answers import Answers
from focusd.server.server import serve
from focusd.server.sockets import LOOP, Endpoints
from focusd.standalone import Ending, _reconnect
from focusd.storage.store import CalibrationStore
from tests.daemon.scripted import (
    ScriptedMicroscope,
    ScriptedScorer,
    calibrate_at_focus,
    config_of,
    operations_of,
)

ANYWHERE = ServerConfig(control="tcp://127.0.0.1:*", events="tcp://127.0.0.1:*")
FOCUS_UM = 12.5
SCENES = ("wait", "fail", "crash", "mapped")
"""A refocus that waits, finds an empty field, stumbles over a fault of focusd, has a tilted field."""


class StagedOperations(RigOperations):
    """The real operations, that count refocuses and play scenes.

    Attributes:
        runs: refocuses that were asked for.
        release: ends the scene `wait`.
        fails: what a refocus and a score raise; None: what they really raise.
        scorer: of the rig; it knows which regions it was asked for.
    """

    def __init__(self, config: RigConfig, rig: Rig, scorer: ScriptedScorer, store: CalibrationStore) -> None:
        super().__init__(config, rig, scorer, store)
        self.scorer = scorer
        self.runs = 0
        self.release = anyio.Event()
        self.fails: FocusdError | None = None

    async def refocus(self, asked: RefocusParams, report: Report, **within: Any) -> RefocusResult:
        """A real refocus, before, behind or instead of a scene."""
        self.runs += 1
        self._fail()
        scene = asked.strategy if asked.strategy in SCENES else None
        really = asked.model_copy(update={"strategy": None}) if scene else asked
        if scene == "wait":
            return await self._waiting(really, report)
        self.scorer.structure = 0.0 if scene == "fail" else 1.0
        self.scorer.crashes = scene == "crash"
        found = await super().refocus(really, report, **within)
        return found.model_copy(update={"geometry": tilted_field()}) if scene == "mapped" else found

    async def _waiting(self, asked: RefocusParams, report: Report) -> RefocusResult:
        """A refocus that has shown its exposures and does not end before `release`, or before it is cancelled."""
        last: list[tuple[str, dict[str, Any]]] = []

        def held_back(topic: str, data: dict[str, Any]) -> None:
            if topic == "focus.progress":
                report(topic, data)
            else:
                last.append((topic, data))

        found = await super().refocus(asked, held_back)
        async with operation_on(self._rig):
            await self.release.wait()
        for topic, data in last:
            report(topic, data)
        return found

    async def score(self, *, pixels: NDArray[np.unsignedinteger], roi: Region | None) -> Score:
        """A real score, unless it is to fail."""
        self._fail()
        return await super().score(pixels=pixels, roi=roi)

    def _fail(self) -> None:
        if self.fails:
            raise self.fails


def tilted_field() -> FieldGeometry:
    """The geometry of a field of 3×4 blocks that falls by 30 µm along x; one does not count."""
    y, x = np.meshgrid(128.0 + 128 * np.arange(3), 128.0 + 128 * np.arange(4), indexing="ij")
    focus_um = 30 * x / (3 * 128 + 256)
    focus_um[0, 1] = np.nan
    blocks = LocalMap(focus_um, np.full_like(x, 0.5), y, x)
    return describe(blocks, geometry_of(blocks, 0.65, 8.0, "increasing"), 0.65)


@dataclass
class Daemon:
    endpoints: Endpoints
    operations: StagedOperations
    bus: EventBus
    jobs: Jobs
    record: Record


@cache
def calibration() -> tuple[str, bytes]:
    """Name and content of a calibration of the scripted rig, made once a process: it takes a second."""

    async def make(folder: Path) -> str:
        async with operations_of(config_of(folder), ScriptedMicroscope(), ScriptedScorer()) as operations:
            return (await calibrate_at_focus(operations)).path

    with TemporaryDirectory() as folder:
        path = Path(anyio.run(make, Path(folder)))
        return path.name, path.read_bytes()


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[tuple[StagedOperations, Rig]]:
    """A calibrated scripted rig whose stage stands at 0, its sample in focus at 12.5 µm."""
    config, scorer = config_of(folder), ScriptedScorer()
    store = folder / config.name / "calibrations"
    store.mkdir(parents=True)
    name, content = await anyio.to_thread.run_sync(calibration)
    (store / name).write_bytes(content)
    scorer.focus_um = FOCUS_UM
    rig = Rig(ScriptedMicroscope(0.0), config.stage, config.camera)
    await rig.position_um()
    try:
        yield StagedOperations(config, rig, scorer, CalibrationStore(store)), rig
    finally:
        await rig.aclose()


@asynccontextmanager
async def running_daemon(config: ServerConfig = ANYWHERE) -> AsyncIterator[Daemon]:
    bus = EventBus()
    with TemporaryDirectory() as folder, recorded(bus, Path(folder) / "events.sqlite") as record:
        async with staged(Path(folder)) as (operations, rig), anyio.create_task_group() as tasks:
            jobs = Jobs(bus, tasks)
            hold = Hold(operations, bus, jobs, HoldConfig(), 10.0)
            tasks.start_soon(hold.run)
            reconnect = partial(_reconnect, rig, Ending())
            answers = Answers(operations, bus, jobs, hold, record, reconnect)
            async with serve(config, answers, bus, jobs, record) as endpoints:
                yield Daemon(endpoints, operations, bus, jobs, record)
            tasks.cancel_scope.cancel()


async def _main() -> None:
    async with running_daemon() as daemon:
        print(json.dumps(asdict(daemon.endpoints)), flush=True)
        await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    configure_logging(LogConfig(level="warning"))
    anyio.run(_main, backend_options=LOOP)
