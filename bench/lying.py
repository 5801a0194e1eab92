"""Searches and checks on hardware that lies: how each ended, and where the stage truly stood.

The product's own rig, operations, jobs and hold run; below them a microscope that lies (`bench.lies`). A run is wrong
if it ends `focused` or `locked` further from the focus than 3 σ, or than half a depth of field. Seeds below 1000 are
for development; figures are reported with seeds from 1000 on.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import anyio
from rich.console import Console
from rich.table import Table

from bench.drifting import Clock
from bench.faults.kills import fresh_processes
from bench.lies import HONEST, KINDS, SETTLED_S, Eye, LyingMicroscope
from bench.quiet import be_quiet
from focusd.config import RigConfig
from focusd.daemon.events import Event, EventBus
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Jobs, Report
from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.errors import FocusdError
from focusd.microscope.samples import SAMPLES
from focusd.microscope.simulated import open_simulated
from focusd.protocol.requests import CalibrateParams, HoldParams, RefocusParams
from focusd.protocol.results import RefocusResult
from focusd.scoring.choice import open_scorer
from focusd.scoring.scorer import Scorer
from focusd.storage.store import CalibrationStore

MODES = ("cold", "warm", "hold")
START_UM = 60.0
"""A cold search starts within so much of the focus."""
LIMITS_UM = 200.0
PRIOR_SIGMA_UM = (0.2, 3.0)
HELD_CHECKS = 4
"""Of one hold, while the hardware lies."""
_TURNS = 400
"""A hold that has given up checks no more."""
_ROUNDING_UM = 1e-9
_PATIENCE_S = 60.0
"""A run that takes longer hangs."""
_CALIBRATED_ON = "gravel"
_SAMPLES = sorted(SAMPLES.keys() - {"empty"})


@dataclass
class Run:
    """One search or check, and the truth.

    Attributes:
        lie: the numbers of the lie.
        outcome: `focused`, `locked`, or that of the error; `untyped` is an error that focusd does not name.
        claims: whether it says that the sample is in focus: by its outcome, or a hold by going on to say `locked` after
            a check that failed.
        error_um: where the optics stood at the end, less the focus.
        settled_um: the same once a stage that creeps has come to rest.
        commanded_um: all z that were commanded.
        expected_um: the prior's focus, or where the stage stood at first.
        farthest_um: largest distance of a commanded z from that.
        beyond_reach: of a check, whether that is more than `hold.reach_um`.
    """

    kind: str
    mode: str
    seed: int
    lie: str
    sample: str
    outcome: str
    message: str
    claims: bool
    focus_um: float | None
    sigma_um: float | None
    error_um: float
    settled_um: float
    dof_um: float
    exposures: int
    expected_um: float
    prior_sigma_um: float | None
    commanded_um: list[float]
    beyond_reach: bool

    @property
    def farthest_um(self) -> float:
        return max((abs(z_um - self.expected_um) for z_um in self.commanded_um), default=0.0)

    @property
    def is_locked_after_failure(self) -> bool:
        """Whether a hold says `locked` although this check has failed."""
        return self.claims and self.outcome not in ("focused", "locked")

    @property
    def is_beyond_sigma(self) -> bool:
        """Wrong by what it says itself."""
        return self.claims and abs(self.error_um) > 3 * (self.sigma_um or 0.0)

    @property
    def is_beyond_depth_later(self) -> bool:
        """Wrong by half a depth of field once the stage has come to rest."""
        return self.claims and abs(self.settled_um) > self.dof_um / 2

    @property
    def is_beyond_depth(self) -> bool:
        """Wrong by half a depth of field."""
        return self.claims and abs(self.error_um) > self.dof_um / 2


@dataclass
class _Asked:
    """What a refocus was asked, as the operations saw it."""

    prior: tuple[float, float] | None = None
    first_move: int = 0
    first_exposure: int = 0
    start_um: float = 0.0


@dataclass
class _Bed:
    """A calibrated rig on lying hardware."""

    microscope: LyingMicroscope
    operations: _Watched
    eye: Eye
    clock: Clock
    config: RigConfig
    dof_um: float


class _Watched(RigOperations):
    """Notes what each refocus is asked."""

    microscope: LyingMicroscope
    asked: _Asked

    async def refocus(self, asked: RefocusParams, report: Report, **within: Any) -> RefocusResult:
        """As it is, noted."""
        microscope, prior = self.microscope, asked.prior
        self.asked = _Asked(prior, len(microscope.asked_um), microscope.exposures, microscope.position_um())
        return await super().refocus(asked, report, **within)


def run_lying(
    kinds: Sequence[str] = tuple(KINDS),
    searches: int = 10,
    seed: int = 1,
    modes: Sequence[str] = MODES,
    folder: Path | None = None,
) -> list[Run]:
    """Search and check on lying hardware, in two processes.

    Args:
        searches: searches or checks of each kind in each mode.
        seed: of the first run of each; the others count from there.
        folder: with a calibration, made by `calibrated`; None: it is made first.
    """
    asked = [(kind, mode, seed + n) for kind in kinds for mode in modes for n in range(_runs(searches, mode))]
    with (
        tempfile.TemporaryDirectory(prefix="focusd-lying-") as temporary,
        ProcessPoolExecutor(2, fresh_processes(), be_quiet, ("error",)) as processes,
    ):
        if folder is None:
            folder = Path(temporary)
            processes.submit(calibrated, folder).result()
        found = processes.map(_run, [folder] * len(asked), asked, chunksize=4)
        return [run for runs in found for run in runs]


def _runs(searches: int, mode: str) -> int:
    return -(-searches // HELD_CHECKS) if mode == "hold" else searches


def _run(folder: Path, asked: tuple[str, str, int]) -> list[Run]:
    return run_once(folder, *asked)


def run_once(folder: Path, kind: str, mode: str, seed: int) -> list[Run]:
    """One search, or one hold with its checks.

    Args:
        folder: with a calibration, made by `calibrated`.
    """
    return anyio.run(_hold if mode == "hold" else _search, folder, kind, mode, seed)


def calibrated(folder: Path) -> None:
    """Calibrate on healthy hardware."""

    async def calibrate() -> None:
        async with _bed(folder, _CALIBRATED_ON, 0, 0.0, 0.0) as bed:
            await bed.operations.calibrate(CalibrateParams(), _silent)

    anyio.run(calibrate)


async def _search(folder: Path, kind: str, mode: str, seed: int) -> list[Run]:
    random = Random(f"{mode} {seed}")  # the same scene for every kind
    sample, focus_um = random.choice(_SAMPLES), random.uniform(-20, 20)
    prior = _prior(random, focus_um) if mode == "warm" else None
    near = random.choice((0.5, 15.0))
    start_um = (
        prior[0] + random.uniform(-near, near) if prior else focus_um + random.uniform(-START_UM, START_UM)
    )
    is_tight, lie = random.random() < 0.5, KINDS[kind](Random(f"{kind} {mode} {seed}"))
    async with _bed(folder, sample, seed, start_um, focus_um) as bed:
        bed.microscope.begin(lie)
        target_um = 0.05 * bed.dof_um if prior and is_tight else None
        answer = await _answer(bed, prior, target_um)
        return [_judged(bed, kind, mode, seed, lie.told, sample, **answer)]


def _prior(random: Random, focus_um: float) -> tuple[float, float]:
    """True to its σ, or off by a few of them."""
    low, high = PRIOR_SIGMA_UM
    sigma_um = low * (high / low) ** random.random()
    off = random.gauss(0, 1) if random.random() < 0.7 else random.choice((-1, 1)) * random.uniform(2, 5)
    return focus_um + off * sigma_um, sigma_um


async def _answer(bed: _Bed, prior: tuple[float, float] | None, target_um: float | None) -> dict[str, Any]:
    """How a refocus ends."""
    try:
        with anyio.fail_after(_PATIENCE_S):
            found = await bed.operations.refocus(RefocusParams(target_um=target_um, prior=prior), _silent)
    except FocusdError as error:
        return {"outcome": error.outcome, "message": error.message}
    except Exception as error:
        return {"outcome": "untyped", "message": repr(error)}
    return {
        "outcome": found.outcome,
        "focus_um": found.focus_um,
        "sigma_um": found.sigma_um,
        "claims": True,
    }


def _judged(
    bed: _Bed,
    kind: str,
    mode: str,
    seed: int,
    lie: str,
    sample: str,
    *,
    outcome: str,
    message: str = "",
    focus_um: float | None = None,
    sigma_um: float | None = None,
    claims: bool = False,
) -> Run:
    """The run beside the truth of this moment."""
    microscope, asked = bed.microscope, bed.operations.asked
    expected_um, prior_sigma_um = asked.prior or (asked.start_um, None)
    commanded_um = microscope.asked_um[asked.first_move :]
    farthest_um = max((abs(z_um - expected_um) for z_um in commanded_um), default=0.0)
    return Run(
        kind=kind,
        mode=mode,
        seed=seed,
        lie=lie,
        sample=sample,
        outcome=outcome,
        message=message,
        claims=claims,
        focus_um=focus_um,
        sigma_um=sigma_um,
        error_um=microscope.error_um(),
        settled_um=microscope.error_um(SETTLED_S),
        dof_um=bed.dof_um,
        exposures=microscope.exposures - asked.first_exposure,
        expected_um=expected_um,
        prior_sigma_um=prior_sigma_um,
        commanded_um=commanded_um,
        beyond_reach=mode == "hold" and farthest_um > bed.config.hold.reach_um + _ROUNDING_UM,
    )


async def _hold(folder: Path, kind: str, mode: str, seed: int) -> list[Run]:
    """A hold whose hardware lies from its start, or once it is locked; the focus drifts a little meanwhile."""
    random, checks = Random(f"{mode} {seed}"), list[Run]()
    sample, focus_um = random.choice(_SAMPLES), random.uniform(-20, 20)
    async with (
        _bed(folder, sample, seed, focus_um + random.uniform(-10, 10), focus_um) as bed,
        anyio.create_task_group() as tasks,
    ):
        lie, after = KINDS[kind](Random(f"{kind} {mode} {seed}")), random.choice((0, 2))
        drift = _Drift(bed, focus_um, random.uniform(-2, 2))
        bus = EventBus(capacity=1000)
        jobs = Jobs(bus, tasks, bed.clock)
        hold = Hold(bed.operations, bus, jobs, bed.config.hold, bed.config.camera.exposure_ms, bed.clock)
        seen = _Seen(bed, (kind, mode, seed, lie.told, sample), checks)
        with bus.subscribed(seen.hear):
            await hold.engage(HoldParams(client="bench"))
            for _ in range(_TURNS):
                drift.go_on()
                if len(checks) == after:
                    bed.microscope.begin(lie)
                    if random.random() < 0.3:
                        drift.step(random.choice((-5.0, 5.0)))
                    after = -1
                    checks.clear()
                if after < 0 and len(checks) >= HELD_CHECKS:
                    break
                bed.clock.now_s += await hold.turn()
            await hold.release()
        if after >= 0:  # it never came so far as to lie
            checks.clear()
    return checks


@dataclass
class _Drift:
    """A focus that moves with the clock."""

    bed: _Bed
    from_um: float
    um_per_min: float

    def go_on(self) -> None:
        self.bed.eye.focus_um = self.from_um + self.um_per_min * self.bed.clock() / 60

    def step(self, by_um: float) -> None:
        self.from_um += by_um
        self.go_on()


@dataclass
class _Seen:
    """The checks of a hold as they are told, each beside the truth of that moment."""

    bed: _Bed
    told: tuple[str, str, int, str, str]
    checks: list[Run]

    def hear(self, event: Event) -> None:
        data = event["data"]
        if event["topic"] != "drift" or data["source"] not in ("check", "failed"):
            return
        good, is_locked = data["source"] == "check", data["state"] == "locked"
        outcome = "locked" if good and is_locked else "focused" if good else data["outcome"]
        self.checks.append(
            _judged(
                self.bed,
                *self.told,
                outcome=outcome,
                message=data["reason"] or "",
                focus_um=data["focus_um"],
                sigma_um=data["sigma_um"],
                claims=good or is_locked,
            )
        )


@asynccontextmanager
async def _bed(folder: Path, sample: str, seed: int, start_um: float, focus_um: float) -> AsyncIterator[_Bed]:
    config, clock, eye = _config(folder), Clock(), _eye(folder)
    eye.lay(sample, seed, focus_um)
    microscope = LyingMicroscope(eye, clock, start_um, config.camera.name)
    rig = Rig(microscope, config.stage, config.camera)
    await rig.position_um()
    operations = _Watched(config, rig, _scorer(folder), CalibrationStore(folder / "calibrations"))
    operations.microscope, operations.asked = microscope, _Asked(start_um=start_um)
    dof_um = operations.autofocus.depth_of_field_um()
    try:
        yield _Bed(microscope, operations, eye, clock, config, dof_um)
    finally:
        await rig.aclose()


@cache
def _scorer(folder: Path) -> Scorer:
    return open_scorer(_config(folder))


@cache
def _eye(folder: Path) -> Eye:
    """One simulator for all runs of a process."""
    config = _config(folder)
    return Eye(open_simulated(config), config.objective, config.camera)


@cache
def _config(folder: Path) -> RigConfig:
    return RigConfig.model_validate(
        {
            "name": "lying",
            "state_dir": folder,
            "objective": {"name": "10x/0.3", "magnification": 10.0, "na": 0.3},
            "camera": {"pixel_um": 6.5, "exposure_ms": 0.1},
            "stage": {
                "min_um": -LIMITS_UM,
                "max_um": LIMITS_UM,
                "towards_sample": "increasing",
                "timeout_s": _PATIENCE_S,
            },
            "microscope": {
                "kind": "simulated",
                "width": 384,
                "height": 384,
                "velocity_um_per_s": 1e7,
                "settling_ms": 0.0,
            },
            "scorer": {"backend": "cpu", "threads": 1, "budget_ms": 10_000.0},
        }
    )


def _silent(_topic: str, _payload: object) -> None:
    pass


def summarised(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One row for each kind and mode."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.kind, run.mode), []).append(run)
    return [_row(kind, mode, group) for (kind, mode), group in groups.items()]


def _row(kind: str, mode: str, runs: Sequence[Run]) -> dict[str, Any]:
    claims = [run for run in runs if run.claims]
    return {
        "kind": kind,
        "mode": mode,
        "n": len(runs),
        "focused": len(claims),
        "wrong_3_sigma": sum(run.is_beyond_sigma for run in runs),
        "wrong_half_dof": sum(run.is_beyond_depth for run in runs),
        "locked_after_failure": sum(run.is_locked_after_failure for run in runs),
        "wrong_half_dof_later": sum(run.is_beyond_depth_later for run in runs),
        "largest_error_um": max((abs(run.error_um) for run in claims), default=0.0),
        "refusals": dict(Counter(run.outcome for run in runs if run.outcome not in ("focused", "locked"))),
        "exposures": median(run.exposures for run in runs),
        "farthest_um": max(run.farthest_um for run in runs),
        "beyond_reach": sum(run.beyond_reach for run in runs),
    }


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows for people."""
    figures = {
        "n": "n",
        "claims": "focused",
        ">3σ": "wrong_3_sigma",
        ">½DOF": "wrong_half_dof",
        "later": "wrong_half_dof_later",
        "locked, failed": "locked_after_failure",
        "largest": "largest_error_um",
        "exposures": "exposures",
        "farthest": "farthest_um",
        ">reach": "beyond_reach",
    }
    title = "searches and checks on lying hardware; errors in µm"
    drawn = Table("kind", "mode", *figures, "refusals", title=title, box=None, padding=(0, 1, 0, 0))
    drawn.columns[0].no_wrap = True
    for row in rows:
        refusals = ", ".join(f"{name} {count}" for name, count in sorted(row["refusals"].items()))
        drawn.add_row(row["kind"], row["mode"], *(f"{row[name]:.4g}" for name in figures.values()), refusals)
    return drawn


def report(searches: int, seed: int, console: Console) -> dict[str, Any]:
    """Run all kinds in all modes, with at least so many searches and checks in all; print the table.

    Returns:
        the figures, as for JSON.
    """
    each = max(1, -(-searches // (len(KINDS) * len(MODES))))
    runs = run_lying(searches=each, seed=seed)
    rows = summarised(runs)
    console.print(table(rows))
    lies = [run for run in runs if run.kind != HONEST]
    totals = {
        "n": len(runs),
        "wrong_3_sigma": sum(run.is_beyond_sigma for run in lies),
        "wrong_half_dof": sum(run.is_beyond_depth for run in lies),
        "beyond_reach": sum(run.beyond_reach for run in runs),
        "untyped": sum(run.outcome == "untyped" for run in runs),
    }
    console.print(totals)
    wrong = [asdict(run) for run in runs if run.is_beyond_sigma or run.is_beyond_depth or run.beyond_reach]
    return {"seed": seed, "rows": rows, **totals, "wrong": wrong}
