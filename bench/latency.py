"""`python -m bench latency`: how much longer an answer takes than the hardware alone would.

The whole daemon runs in this process, over real sockets, on a simulated microscope of real timings
(bench/rehearsed.py). The floor is what the same exposures and moves take with an infinitely fast computer.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from anyio import to_thread
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.rehearsed import RehearsedMicroscope
from bench.serving import serving
from focusd.client import Client
from focusd.config import RigConfig, SimulatedConfig
from focusd.daemon.events import EventBus
from focusd.daemon.rig import Rig
from focusd.errors import NoConvergenceError
from focusd.protocol.results import CalibrationResult, RefocusResult
from focusd.scoring.choice import open_scorer
from focusd.server.sockets import Endpoints

FRAME_PX = 2048
CALIBRATED_ON = "gravel"
SCENES = (("cells", 22.0), ("filaments", -41.0), ("brick", 9.0), ("tissue", 48.0), ("beads", -15.0))
"""Sample and its focus; the stage starts at 0."""
EXPOSURES_MS = (10.0, 30.0, 100.0)
SUBSCRIBERS = (1, 10, 50)
REHEARSALS = 4
TICK_S = 0.001
EVENT_S = 0.005


@dataclass
class Run:
    """One measured operation.

    Attributes:
        floor_s: of the hardware.
        stages_s: where the time went.
    """

    exposure_ms: float
    what: str
    seconds: float
    floor_s: float
    exposures: int
    error_um: float
    stages_s: dict[str, float] = field(default_factory=dict)

    @property
    def over_floor(self) -> float:
        """Ratio."""
        return self.seconds / self.floor_s


@dataclass
class Bench:
    """What is running, and what has been measured."""

    config: RigConfig
    microscope: RehearsedMicroscope
    client: Client
    repeats: int
    runs: list[Run] = field(default_factory=list)

    async def measured(self, what: str, ask: Any) -> None:
        """Repeat an operation until it has been rehearsed, then measure it."""
        for _ in range(REHEARSALS):
            before = self.microscope.camera.rendered
            await self._once(what, ask)
            if self.microscope.camera.rendered == before:
                break
        for _ in range(self.repeats):
            before = self.microscope.camera.rendered
            run = await self._once(what, ask)
            if self.microscope.camera.rendered == before:
                self.runs.append(run)

    async def _once(self, what: str, ask: Any) -> Run:
        await to_thread.run_sync(self.client.move, 0.0)
        began_s = time.perf_counter()
        result = await to_thread.run_sync(ask)
        seconds = time.perf_counter() - began_s
        path = [0.0, *_planes(result)]
        exposures = len(path) - 2
        return Run(
            self.config.camera.exposure_ms,
            what,
            seconds,
            floor_s(path, exposures, self.config),
            exposures,
            (result.z_found_um if isinstance(result, RefocusResult) else 0.0) - self.truth_um,
            _split(result),
        )

    truth_um: float = 0.0


def _split(result: RefocusResult | CalibrationResult) -> dict[str, float]:
    """Seconds by stage, where the result has them."""
    split = result.seconds_by_stage if isinstance(result, RefocusResult) else None
    return split.model_dump() if split else {}


def _planes(result: RefocusResult | CalibrationResult) -> list[float]:
    """Where the stage was sent, the way's end included."""
    if isinstance(result, RefocusResult):
        return [*(probe.z_um for probe in result.probes), result.z_found_um]
    z_um = np.array(result.curve.z_um) + result.z_focus_um
    return [*z_um.tolist(), 0.0]


def floor_s(path_um: Sequence[float], exposures: int, config: RigConfig) -> float:
    """Exposures and moves alone."""
    settings = config.microscope
    assert isinstance(settings, SimulatedConfig)
    moves_um = np.abs(np.diff(path_um))
    moves_um = moves_um[moves_um > 1e-6]
    moving_s = moves_um.sum() / settings.velocity_um_per_s + len(moves_um) * settings.settling_ms / 1000
    return float(exposures * config.camera.exposure_ms / 1000 + moving_s)


def run_latency(quick: bool, json_file: Path | None) -> None:
    """Measure, print the tables, write the JSON."""
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as state:
        figures = anyio.run(_measure, Path(state), quick, console)
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


async def _measure(state: Path, quick: bool, console: Console) -> dict[str, float]:
    runs: list[Any] = []
    delays_s: list[float] = []
    idle_s: list[float] = []
    scenes = SCENES[:2] if quick else SCENES
    with Progress(console=console, transient=True) as progress:
        exposures = EXPOSURES_MS[:1] if quick else EXPOSURES_MS
        task = progress.add_task("operations", total=len(exposures) * (1 + len(scenes)))
        for exposure_ms in exposures:
            async with running(config_of(state, exposure_ms, quick), 2 if quick else 5) as (bench, _, _bus):
                async with _ticking(idle_s):
                    await anyio.sleep(1)
                async with _ticking(delays_s):
                    await bench.measured("calibration", lambda: bench.client.calibrate())
                    progress.advance(task)
                    for sample, focus_um in scenes:
                        await to_thread.run_sync(bench.microscope.set_scene, sample, 1, focus_um)
                        bench.truth_um = focus_um
                        try:
                            await bench.measured("refocus", lambda: bench.client.refocus())
                        except NoConvergenceError as error:  # no time to compare, and not to be hidden
                            console.print(
                                f"{sample} at {exposure_ms:g} ms is refused: {error}", highlight=False
                            )
                        progress.advance(task)
                runs += bench.runs
        wire = {}
        task = progress.add_task("subscribers", total=len(SUBSCRIBERS))
        async with running(config_of(state, 10.0, quick), 0) as (_, endpoints, bus):
            for count in SUBSCRIBERS:
                wire[count] = await _subscribed(endpoints, bus, count, 200 if quick else 1000)
                progress.advance(task)
    _print(console, runs, delays_s, idle_s, wire)
    return _figures(runs, delays_s, wire)


def config_of(state: Path, exposure_ms: float, quick: bool) -> RigConfig:
    """A 10×/0.3 with a stage of 1 mm/s that settles in 20 ms."""
    return RigConfig.model_validate(
        {
            "name": "latency",
            "state_dir": state,
            "objective": {"name": "10x-0.3", "magnification": 10.0, "na": 0.3},
            "camera": {"pixel_um": 6.5, "exposure_ms": exposure_ms},
            "stage": {"min_um": -300.0, "max_um": 300.0, "towards_sample": "increasing"},
            "microscope": {
                "kind": "simulated",
                "sample": CALIBRATED_ON,
                "width": FRAME_PX,
                "height": FRAME_PX,
                "velocity_um_per_s": 1000.0,
                "settling_ms": 20.0,
            },
            "calibration": {"range_um": 100.0, "step_um": 8.0 if quick else 4.0},
            "server": {"control": "tcp://127.0.0.1:*", "events": "tcp://127.0.0.1:*"},
        }
    )


@asynccontextmanager
async def running(config: RigConfig, repeats: int) -> AsyncIterator[tuple[Bench, Endpoints, EventBus]]:
    """The daemon of a rehearsed microscope, and a client of it."""
    scorer = await to_thread.run_sync(open_scorer, config)
    microscope = await to_thread.run_sync(RehearsedMicroscope, config)
    rig = Rig(microscope, config.stage, config.camera)
    try:
        async with serving(config, rig, scorer) as (endpoints, bus):
            with Client(endpoints.control, endpoints.events, name="bench") as client:
                yield Bench(config, microscope, client, repeats), endpoints, bus
    finally:
        with anyio.CancelScope(shield=True):
            await rig.aclose()


@asynccontextmanager
async def _ticking(delays_s: list[float]) -> AsyncIterator[None]:
    """How late the loop comes back to a task that sleeps, all the time inside the `async with`."""

    async def tick() -> None:
        while True:
            due_s = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            delays_s.append(time.perf_counter() - due_s)

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()


async def _subscribed(endpoints: Endpoints, bus: EventBus, count: int, total: int) -> dict[str, list[float]]:
    """Latencies of events and round trips with so many subscribers, one of them stalled."""
    arguments = [endpoints.control, endpoints.events, str(count), str(total)]
    command = [sys.executable, "-m", "bench.subscribers", *arguments]
    process = await anyio.open_process(command, stderr=None, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = b""
    while b"ready\n" not in lines:
        lines += await process.stdout.receive()
    for number in range(total):
        bus.publish("log", {"message": "x" * 200, "number": number})
        await anyio.sleep(EVENT_S)
    lines = b""
    async for part in process.stdout:
        lines += part
    await process.wait()
    figures: dict[str, list[float]] = json.loads(lines)
    return figures


def _ms(seconds: Sequence[float], percentile: float) -> float:
    return float(np.percentile(seconds, percentile)) * 1e3


def _median(runs: list[Run], what: str, exposure_ms: float) -> float:
    return float(np.median([r.over_floor for r in runs if (r.what, r.exposure_ms) == (what, exposure_ms)]))


def _figures(
    runs: list[Run], delays_s: list[float], wire: dict[int, dict[str, list[float]]]
) -> dict[str, float]:
    """The ratios at the shortest exposure, and what the most subscribers saw."""
    most = wire[max(wire)]
    return {
        "refocus_over_floor": _median(runs, "refocus", EXPOSURES_MS[0]),
        "calibration_over_floor": _median(runs, "calibration", EXPOSURES_MS[0]),
        "loop_delay_p99_ms": _ms(delays_s, 99),
        "rpc_p50_ms": _ms(most["rpc_s"], 50),
        "rpc_p99_ms": _ms(most["rpc_s"], 99),
        "event_p99_ms": _ms(most["event_s"], 99),
    }


def _print(
    console: Console,
    runs: list[Run],
    delays_s: list[float],
    idle_s: list[float],
    wire: dict[int, dict[str, list[float]]],
) -> None:
    console.print(_operations_table(runs))
    table = Table(title="milliseconds over ZeroMQ; from two on, one subscriber is stalled")
    for column in ("subscribers", "request p50", "request p99", "event p50", "event p99"):
        table.add_column(column, justify="right")
    for count, each in wire.items():
        cells = [_ms(each[name], percentile) for name in ("rpc_s", "event_s") for percentile in (50, 99)]
        table.add_row(str(count), *(f"{value:.2f}" for value in cells))
    console.print(table)
    for what, seconds in (("idle", idle_s), ("during operations", delays_s)):
        console.print(
            f"event loop delay, {what}: p50 {_ms(seconds, 50):.2f}, p99 {_ms(seconds, 99):.2f}, "
            f"max {_ms(seconds, 100):.1f} ms",
            highlight=False,
        )


def _operations_table(runs: list[Run]) -> Table:
    table = Table(title=f"{FRAME_PX}×{FRAME_PX}; medians")
    columns = (
        "operation",
        "exposure ms",
        "runs",
        "exposures",
        "floor ms",
        "ms",
        "÷ floor",
        "worst",
        "|error| µm",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "operation" else "right")
    for what, exposure_ms in dict.fromkeys((r.what, r.exposure_ms) for r in runs):
        chosen = [r for r in runs if (r.what, r.exposure_ms) == (what, exposure_ms)]
        ratios = [r.over_floor for r in chosen]
        values = (
            f"{exposure_ms:g}",
            str(len(chosen)),
            f"{np.median([r.exposures for r in chosen]):g}",
            f"{np.median([r.floor_s for r in chosen]) * 1e3:.0f}",
            f"{np.median([r.seconds for r in chosen]) * 1e3:.0f}",
            f"{np.median(ratios):.2f}",
            f"{max(ratios):.2f}",
            f"{np.median([abs(r.error_um) for r in chosen]):.2f}" if what == "refocus" else "–",
        )
        table.add_row(what, *values)
    return table
