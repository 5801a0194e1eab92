"""`python -m bench soak`: hours of drift in compressed time; held, refocused at fixed intervals, or left alone.

The daemon's own hold, jobs, rig, guard and scorer run; only camera, stage and clock are simulated. The acquisition
takes a frame every 30 s under each policy; hold gets it scored. Counted are the exposures that a policy adds.
"""

from __future__ import annotations

import gc
import json
import math
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.drifting import EMPTY_S, Clock, Drift, DriftingMicroscope, Kind
from focusd.config import RigConfig
from focusd.daemon.events import EventBus
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Jobs, Report
from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.errors import FocusdError, NoSampleError
from focusd.protocol.requests import CalibrateParams, HoldParams, MoveParams, RefocusParams
from focusd.protocol.results import FieldGeometry, RefocusResult
from focusd.protocol.states import Holding
from focusd.scoring.choice import open_scorer
from focusd.scoring.scorer import Scorer
from focusd.storage.store import CalibrationStore

FRAME_S = 30.0
INTERVALS_S = (30.0, 600.0)
"""Between these is the one that does as well as hold."""
_ALIKE = 1.05
"""Intervals of so little difference are the same."""
MODELLED_EXPOSURES = 3
ELECTRONS = 8000.0
"""At the brightest places of the sample, in the calibration's light."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Soak:
    """What is simulated.

    Attributes:
        light: of the timelapse, as a share of the calibration's.
        empty_s: how long the sample is out of the field, every third hour.
    """

    hours: float
    velocity_um_per_min: float
    step_um: float
    sample: str
    seed: int
    refocus_sigma_um: float | None
    light: float = 1.0
    drift: Kind = "ramp"
    empty_s: float = EMPTY_S


@dataclass(frozen=True)
class AtRate:
    """How a hold did at one rate of drift.

    Attributes:
        in_focus, settled: share of the time, with and without the first minute.
        locked: share of the time in which it said so.
        mistaken: share of that in which the sample was out of focus.
    """

    velocity_um_per_min: float
    drift: Kind
    in_focus: float
    settled: float
    locked: float
    mistaken: float
    exposures_per_hour: float


@dataclass(frozen=True)
class Figures:
    """How a policy did; errors of the true focus, every second but during checks, when no acquisition exposes."""

    name: str
    rms_dof: float
    p95_dof: float
    in_focus: float
    exposures_per_hour: float
    interval_s: float | None = None


@dataclass
class Bench:
    """A drifting rig, calibrated."""

    soak: Soak
    clock: Clock
    microscope: DriftingMicroscope
    operations: RigOperations
    dof_um: float

    @property
    def end_s(self) -> float:
        return self.soak.hours * 3600

    def figures(self, name: str, exposures: int, interval_s: float | None = None) -> Figures:
        error = np.abs(self.microscope.error_um(self.end_s)) / self.dof_um
        error = error[np.isfinite(error)]
        rms, p95 = float(np.sqrt((error**2).mean())), float(np.quantile(error, 0.95))
        return Figures(name, rms, p95, float((error <= 0.5).mean()), exposures / self.soak.hours, interval_s)


class ModelledOperations(RigOperations):
    """A refocus of a stated error, for decisions to be judged apart from the search."""

    bench: Bench

    async def refocus(self, asked: RefocusParams, report: Report, **_: Any) -> RefocusResult:
        """Go to the true focus, but for a normal error."""
        bench, sigma_um = self.bench, self.bench.soak.refocus_sigma_um
        assert sigma_um is not None
        for _number in range(MODELLED_EXPOSURES):
            report("focus.progress", {})
        bench.microscope.exposures += MODELLED_EXPOSURES
        second = int(bench.clock())
        if bench.microscope.drift.empty[second]:
            raise NoSampleError("empty")
        start_um = bench.microscope.position_um()
        focus_um = bench.microscope.drift.focus_um[second] + self._errors.normal(0, sigma_um)
        moved = await self.move(MoveParams(z_um=float(focus_um)), report)
        return RefocusResult.model_construct(
            z_start_um=start_um,
            z_found_um=moved.z_um,
            sigma_um=sigma_um,
            exposures=MODELLED_EXPOSURES,
            geometry=FieldGeometry.model_construct(shape="flat"),
        )

    _errors = np.random.default_rng(0)


def run_soak(soak: Soak, out: Path, json_file: Path | None) -> None:
    """Run the policies, print the table, draw the picture, write the JSON."""
    torch.set_num_threads(1)
    console = Console(width=120)
    ran = anyio.run(_soak, soak, console)
    console.print(_table(ran.policies, soak))
    hold, _, interval = ran.policies
    verdict = "does" if _reaches(interval, hold) else f"even every {INTERVALS_S[0]:.0f} s does not do"
    share = hold.exposures_per_hour / interval.exposures_per_hour
    console.print(f"A refocus at fixed intervals {verdict} as well; hold takes {share:.0%} of its exposures.")
    console.print(f"RSS grew by {ran.rss_growth_mb:.1f} MB, file descriptors by {ran.fd_growth}")
    out.mkdir(parents=True, exist_ok=True)
    _draw(ran.traces, out / "soak.png")
    if json_file:
        figures = {
            "policies": [asdict(figures) for figures in ran.policies],
            "interval_reaches_hold": _reaches(interval, hold),
            "rss_growth_mb": ran.rss_growth_mb,
            "fd_growth": ran.fd_growth,
            "rss_mb": [mb for mb, _ in ran.resources],
            "fds": [files for _, files in ran.resources],
            "soak": asdict(soak),
        }
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def run_rates(soak: Soak, rates_um_per_min: list[float], json_file: Path | None) -> None:
    """Hold at each of several rates of drift, one after the other, and print the table."""
    torch.set_num_threads(1)
    console = Console(width=120)
    figures = []
    for rate in rates_um_per_min:
        at_rate = replace(soak, velocity_um_per_min=rate)
        figures.append(anyio.run(_rate, at_rate))
        console.print(f"{rate:g} µm/min: in focus {figures[-1].settled:.2%} after the first minute")
    console.print(_rates_table(figures, soak))
    if json_file:
        values = {"rates": [asdict(each) for each in figures], "soak": asdict(soak)}
        json_file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


async def _rate(soak: Soak) -> AtRate:
    said: list[tuple[float, bool]] = []
    async with _bench(soak) as bench:
        figures = await _hold(bench, [], said)
        error = np.abs(bench.microscope.error_um(bench.end_s)) / bench.dof_um
    times_s, locked = (np.array(column) for column in zip(*said, strict=True))
    is_locked = locked[np.searchsorted(times_s, np.arange(len(error)), side="right") - 1]
    out, rests = error > 0.5, np.isfinite(error)
    settled = float((~out)[60:][rests[60:]].mean())
    mistaken = float(out[is_locked & rests].mean()) if (is_locked & rests).any() else 0.0
    share, light = float(is_locked.mean()), figures.exposures_per_hour
    return AtRate(soak.velocity_um_per_min, soak.drift, figures.in_focus, settled, share, mistaken, light)


def _rates_table(figures: list[AtRate], soak: Soak) -> Table:
    light = f"{ELECTRONS * soak.light:g} electrons"
    title = f"{soak.hours:g} h, drift: {soak.drift}, steps of {soak.step_um:g} µm, 10×/0.3, {soak.sample}, {light}"
    names = ("µm/min", "in focus", "after 1 min", "locked", "of that out of focus", "exposures/h")
    table = Table(*names, title=title)
    for at in figures:
        shares = (f"{share:.2%}" for share in (at.in_focus, at.settled, at.locked, at.mistaken))
        table.add_row(f"{at.velocity_um_per_min:g}", *shares, f"{at.exposures_per_hour:.1f}")
    return table


@dataclass(frozen=True)
class _Ran:
    """What came out: hold, none, interval; error traces in DOF; memory and descriptors of hold, each hour."""

    policies: list[Figures]
    traces: dict[str, Array]
    resources: list[tuple[float, int]]

    @property
    def rss_growth_mb(self) -> float:
        """From the first hour to the last."""
        return self.resources[-1][0] - self.resources[1][0]

    @property
    def fd_growth(self) -> int:
        """From the first hour to the last."""
        return self.resources[-1][1] - self.resources[1][1]


async def _soak(soak: Soak, console: Console) -> _Ran:
    traces: dict[str, Array] = {}
    memory: list[tuple[float, int]] = []
    hold = await _policy(soak, lambda bench: _hold(bench, memory), traces)
    console.print(_told(hold))
    alone = await _policy(soak, _none, traces)
    console.print(_told(alone))
    interval = await _equal_interval(soak, hold, traces, console)
    return _Ran([hold, alone, interval], traces, memory)


async def _policy(
    soak: Soak, run: Callable[[Bench], Awaitable[Figures]], traces: dict[str, Array]
) -> Figures:
    async with _bench(soak) as bench:
        figures = await run(bench)
        traces[figures.name] = bench.microscope.error_um(bench.end_s) / bench.dof_um
    return figures


@asynccontextmanager
async def _bench(soak: Soak) -> AsyncIterator[Bench]:
    """Calibrate on another sample before the drift begins, as a user would."""
    with tempfile.TemporaryDirectory(prefix="focusd-soak-") as state:
        config, clock = _config(Path(state), soak.sample, soak.seed, soak.light), Clock()
        slide = _config(Path(state), "gravel", soak.seed)
        store, scorer = CalibrationStore(Path(state)), open_scorer(config)
        still = Drift(np.zeros(10), np.zeros(10, bool))
        async with _operations(
            DriftingMicroscope(slide, still, Clock(), 1), slide, scorer, store
        ) as operations:
            await operations.calibrate(CalibrateParams(), _silent)
        drift = Drift.seeded(
            soak.hours, soak.velocity_um_per_min, soak.step_um, soak.seed, soak.drift, soak.empty_s
        )
        microscope = DriftingMicroscope(config, drift, clock, soak.seed)
        async with _operations(microscope, config, scorer, store, soak) as operations:
            dof_um = await operations.depth_of_field_um()
            bench = Bench(soak, clock, microscope, operations, dof_um)
            if isinstance(operations, ModelledOperations):
                operations.bench = bench
            yield bench


@asynccontextmanager
async def _operations(
    microscope: DriftingMicroscope,
    config: RigConfig,
    scorer: Scorer,
    store: CalibrationStore,
    soak: Soak | None = None,
) -> AsyncIterator[RigOperations]:
    rig = Rig(microscope, config.stage, config.camera)
    await rig.position_um()
    kind = ModelledOperations if soak and soak.refocus_sigma_um is not None else RigOperations
    try:
        yield kind(config, rig, scorer, store)
    finally:
        await rig.aclose()


def _config(state: Path, sample: str, seed: int, light: float = 1.0) -> RigConfig:
    return RigConfig.model_validate(
        {
            "name": "soak",
            "state_dir": state,
            "objective": {"name": "10x/0.3", "magnification": 10.0, "na": 0.3},
            "camera": {"name": "soak", "pixel_um": 6.5, "exposure_ms": 10.0},
            "stage": {"min_um": -50_000.0, "max_um": 50_000.0, "towards_sample": "increasing"},
            "microscope": {
                "kind": "simulated",
                "sample": sample,
                "seed": seed,
                "width": 256,
                "height": 256,
                "electrons": ELECTRONS * light,
                "background_electrons": ELECTRONS / 40 * light,
            },
        }
    )


async def _hold(
    bench: Bench, memory: list[tuple[float, int]], said: list[tuple[float, bool]] | None = None
) -> Figures:
    """The daemon's hold, with the acquisition's own frames.

    Args:
        said: receives when it was looked at, and whether it said that it was locked.
    """
    async with anyio.create_task_group() as tasks:
        bus = EventBus(capacity=1000)
        jobs = Jobs(bus, tasks, bench.clock)
        config = bench.operations._config
        hold = Hold(bench.operations, bus, jobs, config.hold, config.camera.exposure_ms, bench.clock)
        await hold.engage(HoldParams(client="soak"))
        frame_s, hour_s = FRAME_S, 0.0
        while bench.clock() < bench.end_s:
            pause_s = await hold.turn()
            if said is not None:
                said.append((bench.clock(), hold.state().state == "locked"))
            bench.clock.now_s = max(bench.clock(), min(bench.clock() + pause_s, frame_s))
            if bench.clock() >= frame_s:
                frame_s += FRAME_S
                await _show(bench, hold)
            if bench.clock() >= hour_s:
                hour_s += min(3600.0, bench.end_s / 4)
                memory.append(_resources())
        memory.append(_resources())
    state = hold.state()
    assert isinstance(state, Holding)
    return bench.figures("hold", state.exposures)


async def _show(bench: Bench, hold: Hold) -> None:
    """One frame of the acquisition, as `focus.score` takes it."""
    frame = bench.microscope.snap()
    score = await bench.operations.score(pixels=frame.pixels, roi=None)
    if score.b is not None:
        hold.saw(score.sharpness, frame.z_um, {})


async def _none(bench: Bench) -> Figures:
    return bench.figures("none", 0)


async def _every(bench: Bench, interval_s: float) -> Figures:
    """A refocus at fixed intervals; where it fails, the stage rests until the next."""
    exposures = 0

    def count(topic: str, _: object) -> None:
        nonlocal exposures
        exposures += topic == "focus.progress"

    for start_s in np.arange(0.0, bench.end_s, interval_s):
        bench.clock.now_s = max(bench.clock(), float(start_s))
        try:
            await bench.operations.refocus(RefocusParams(), count)
        except FocusdError:
            continue
    return bench.figures("interval", exposures, interval_s)


async def _equal_interval(soak: Soak, hold: Figures, traces: dict[str, Array], console: Console) -> Figures:
    """The longest interval that reaches hold's RMS, to a twentieth; where none does, the shortest tried."""
    (shortest_s, longest_s), best, last = INTERVALS_S, None, hold
    while longest_s / shortest_s > _ALIKE:
        every_s, trace = math.sqrt(shortest_s * longest_s), dict[str, Array]()
        last = await _policy(soak, partial(_every, interval_s=every_s), trace)
        console.print(_told(last))
        if _reaches(last, hold):
            best, shortest_s, traces["interval"] = last, every_s, trace["interval"]
        else:
            longest_s = every_s
            traces.setdefault("interval", trace["interval"])
    return best or last


def _reaches(figures: Figures, hold: Figures) -> bool:
    return figures.rms_dof <= hold.rms_dof


def _resources() -> tuple[float, int]:
    """Resident memory in MB, and open file descriptors."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(os.listdir("/proc/self/fd"))


def _silent(_topic: str, _payload: object) -> None:
    pass


def _told(figures: Figures) -> str:
    every = f" every {figures.interval_s:.0f} s" if figures.interval_s else ""
    return f"{figures.name}{every}: RMS {figures.rms_dof:.3f} DOF, in focus {figures.in_focus:.2%}"


def _table(policies: list[Figures], soak: Soak) -> Table:
    drift = f"{soak.velocity_um_per_min:g} µm/min ({soak.drift}), steps of {soak.step_um:g} µm"
    title = f"{soak.hours:g} h, {drift}, 10×/0.3, {soak.sample}, {ELECTRONS * soak.light:g} electrons"
    table = Table("policy", "RMS, DOF", "p95, DOF", "in focus", "exposures/h", title=title)
    for p in policies:
        name = f"{p.name}, {p.interval_s:.0f} s" if p.interval_s else p.name
        values = f"{p.rms_dof:.3f}", f"{p.p95_dof:.3f}", f"{p.in_focus:.2%}", f"{p.exposures_per_hour:.1f}"
        table.add_row(name, *values)
    return table


def _draw(traces: dict[str, Array], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(traces), 1, figsize=(10, 7), sharex=True, layout="constrained")
    for axis, (name, trace) in zip(axes, traces.items(), strict=True):
        axis.plot(np.arange(len(trace)) / 3600, trace, linewidth=0.6)
        axis.axhspan(-0.5, 0.5, color="tab:green", alpha=0.15)
        limit = max(2.0, float(np.nanquantile(np.abs(trace), 0.999)))
        axis.set(title=name, ylabel="error (DOF)", ylim=(-limit, limit))
    axes[-1].set_xlabel("hours")
    figure.savefig(path, dpi=90)
    plt.close(figure)
