"""Random walks over configurations: whatever a rig is configured to, calibrate and refocus end, and in a typed way."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import anyio
from rich.console import Console

from bench.faults.kills import fresh_processes
from bench.quiet import be_quiet
from focusd.config import RigConfig
from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.errors import CalibrationError, FocusdError, InternalError, RequestError
from focusd.focus.frame import Frame
from focusd.microscope.protocol import Microscope
from focusd.microscope.simulated import open_simulated
from focusd.protocol.requests import CalibrateParams, MoveParams, RefocusParams
from focusd.scoring.choice import open_scorer
from focusd.scoring.scorer import Scorer
from focusd.storage.store import CalibrationStore

OBJECTIVES = (
    (4.0, 0.1, 1.0),
    (5.0, 0.15, 1.0),
    (10.0, 0.3, 1.0),
    (20.0, 0.5, 1.0),
    (20.0, 0.8, 1.0),
    (40.0, 0.75, 1.0),
    (60.0, 0.95, 1.0),
    (63.0, 1.2, 1.33),
    (100.0, 1.4, 1.515),
)
"""Magnification, NA, immersion index."""
WALKS_A_PROCESS = 25
"""After a thousand of pymmcore's cores in one process, the next may never open."""
HANG_S = 240.0
"""An operation that has not ended by then hangs; the longest takes a few seconds on a machine that is not busy."""


BEFORE_MOVING = {"calibrate": RequestError, "refocus": CalibrationError}
"""What is refused before the stage is asked for anything, and so says nothing of it."""

Note = Callable[[str, Callable[[], Awaitable[object]]], Awaitable[bool]]


class Witness:
    """A microscope that is asked for nothing outside its limits: it counts what is."""

    def __init__(self, inner: Microscope, config: RigConfig) -> None:
        self._inner, self._stage = inner, config.stage
        self.camera_name = inner.camera_name
        self.outside = 0

    def snap(self) -> Frame:
        """Expose."""
        return self._inner.snap()

    def end_sequence(self) -> None:
        """Let the camera rest."""
        self._inner.end_sequence()

    def position_um(self) -> float:
        """Where it stands."""
        return self._inner.position_um()

    def move_to(self, z_um: float) -> None:
        """Move, and look where."""
        self.outside += not self._stage.min_um <= z_um <= self._stage.max_um
        self._inner.move_to(z_um)

    def stop(self) -> None:
        """Stop."""
        self._inner.stop()

    def close(self) -> None:
        """Close."""
        self._inner.close()


@dataclass
class Walked:
    """How the operations of some walks have ended.

    Attributes:
        endings: how often each, by operation.
        hung: what has not ended, as a configuration.
        untyped: what has ended in a fault of focusd.
        unsaid: errors that do not say where the stage stands.
        outside: commanded z outside the limits.
        faults: latched, on hardware that is well.
    """

    walks: int = 0
    endings: dict[str, Counter[str]] = field(default_factory=dict)
    hung: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)
    unsaid: list[str] = field(default_factory=list)
    outside: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Walked) -> None:
        """Count those of another process too."""
        self.walks += other.walks
        for name, endings in other.endings.items():
            self.endings.setdefault(name, Counter()).update(endings)
        for name in ("hung", "untyped", "unsaid", "faults"):
            getattr(self, name).extend(getattr(other, name))
        self.outside += other.outside

    @property
    def kept(self) -> bool:
        """Whether all ended, typed, with the stage inside its limits and its z said."""
        return not (self.hung or self.untyped or self.unsaid or self.faults or self.outside)

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        ended = {name: dict(endings.most_common()) for name, endings in self.endings.items()}
        lists = {name: getattr(self, name)[:5] for name in ("hung", "untyped", "unsaid", "faults")}
        counts = {f"{name}_count": len(getattr(self, name)) for name in lists}
        return {
            "walks": self.walks,
            "endings": ended,
            "outside": self.outside,
            **counts,
            **lists,
            "kept": self.kept,
        }


def run_walks(walks: int, seed: int, console: Console, processes: int | None = None) -> dict[str, Any]:
    """Walk through so many configurations, and say after each process how far it is: all of them take an hour.

    Args:
        processes: at once; None: one a core.
    """
    seeds = [f"{seed} {number}" for number in range(walks)]
    parts = [seeds[i : i + WALKS_A_PROCESS] for i in range(0, walks, WALKS_A_PROCESS)]
    walked = Walked()
    with fresh_processes().Pool(processes, maxtasksperchild=1) as pool:
        ended = pool.imap_unordered(_in_a_process, parts, chunksize=1)
        for _ in parts:
            # A process that dies gives no answer.
            walked.add(ended.next(timeout=WALKS_A_PROCESS * HANG_S))
            console.print(
                f"{walked.walks} of {walks} walks:", "kept" if walked.kept else "broken", highlight=False
            )
    return walked.figures()


def _in_a_process(seeds: list[str]) -> Walked:
    be_quiet("error")
    return walk_all(seeds)


def walk_all(seeds: Iterable[str]) -> Walked:
    """Some walks, one after the other."""
    walked = Walked()
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            anyio.run(walk, walked, seed, Path(folder))
    return walked


async def walk(walked: Walked, seed: str, folder: Path) -> None:
    """One configuration: calibrate, then refocus, each from anywhere."""
    random = Random(seed)
    config = config_of(random, folder)
    scorer, told = open_scorer(config), f"{seed}: {config.model_dump_json()}"
    async with rig_of(config, scorer, walked, told) as (operations, note):
        start_um = _start_um(random, config)
        await note("move", partial(operations.move, MoveParams(z_um=start_um), _nobody))
        well = await note("calibrate", partial(operations.calibrate, CalibrateParams(), _nobody))
    if not well:  # a rig without limits leaves a calibration, so that there is something to refocus with
        async with rig_of(_unlimited(config), scorer, walked, told) as (operations, note):
            await note("prepare", partial(operations.calibrate, CalibrateParams(), _nobody))
    async with rig_of(config, scorer, walked, told) as (operations, note):
        start_um = _start_um(random, config)
        await note("move", partial(operations.move, MoveParams(z_um=start_um), _nobody))
        await note("refocus", partial(operations.refocus, RefocusParams(), _nobody))
    walked.walks += 1


@asynccontextmanager
async def rig_of(
    config: RigConfig, scorer: Scorer, walked: Walked, told: str
) -> AsyncIterator[tuple[RigOperations, Note]]:
    """A rig's operations, and what carries one out and notes how it ends."""
    microscope = Witness(open_simulated(config), config)
    rig = Rig(microscope, config.stage, config.camera)
    store = CalibrationStore(config.state_dir / "calibrations")
    try:
        yield (
            RigOperations(config, rig, scorer, store),
            partial(_ended, walked, rig, told),
        )
    finally:
        await rig.aclose()
        walked.outside += microscope.outside


def _unlimited(config: RigConfig) -> RigConfig:
    """The same optics where any stack fits, begun in focus."""
    assert config.microscope.kind == "simulated"
    focus_um = config.microscope.focus_z_um
    far = {"min_um": focus_um - 1e4, "max_um": focus_um + 1e4, "max_travel_um": 1e6}
    axial_um = 0.55 * config.objective.immersion_index / (config.objective.na or 1.0) ** 2
    stack = {"range_um": 10 * axial_um, "step_um": axial_um}
    scene = {"focus_z_um": 0.0}  # where a stage without limits stands at first
    return config.model_copy(
        update={
            "stage": config.stage.model_copy(update=far),
            "calibration": config.calibration.model_copy(update=stack),
            "microscope": config.microscope.model_copy(update=scene),
        }
    )


async def _ended(
    walked: Walked, rig: Rig, told: str, name: str, operation: Callable[[], Awaitable[object]]
) -> bool:
    """Carry out an operation and note how it ends; returns whether it ended well."""
    ending = "hung"
    with anyio.move_on_after(HANG_S) as scope:
        try:
            await operation()
            ending = "well"
        except Exception as error:
            ending = type(error).__name__
            if not scope.cancel_called:
                _judge(walked, error, name, told)
    if scope.cancel_called:
        ending = "hung"
        walked.hung.append(f"{name} {told}")
    if rig.fault:
        walked.faults.append(f"{rig.fault}: {name} {told}")
    walked.endings.setdefault(name, Counter())[ending] += 1
    return ending == "well"


def _judge(walked: Walked, error: Exception, name: str, told: str) -> None:
    if not isinstance(error, FocusdError) or isinstance(error, InternalError):
        walked.untyped.append(f"{error!r}: {name} {told}")
    elif "stage_z_um" not in error.data and not isinstance(error, BEFORE_MOVING.get(name, ())):
        walked.unsaid.append(f"{error!r}: {name} {told}")


def config_of(random: Random, folder: Path) -> RigConfig:
    """Any rig: most of them sensible, some not."""
    magnification, na, index = random.choice(OBJECTIVES)
    objective = {
        "name": f"{magnification:g}x/{na:g}",
        "magnification": magnification,
        "na": na,
        "immersion_index": index,
    }
    axial_um = 0.55 * index / na**2
    half_um = axial_um * random.choice((3.0, 10.0, 20.0, 40.0))
    low_um = -half_um * random.uniform(0.5, 1.5)
    calibration: dict[str, float] = {}
    if random.random() < 0.9:  # a default stack has a hundred planes
        step_um = axial_um * random.choice((0.2, 0.5, 1.0, 3.0))
        calibration = {"step_um": step_um, "range_um": step_um * random.uniform(3.0, 12.0)}
    size = random.choice((64, 96, 128))
    values: dict[str, Any] = {
        "name": "walk",
        "state_dir": folder,
        "objective": objective,
        "camera": {
            "pixel_um": 6.5,
            "exposure_ms": random.choice((0.2, 1.0, 5.0)),
            "acquisition": random.choice(("snap", "snap", "sequence")),
        },
        "stage": {
            "min_um": low_um,
            "max_um": low_um + 2 * half_um,
            "towards_sample": random.choice(("increasing", "decreasing")),
            "max_step_um": random.choice((0.1, 0.5, 2.0, 10.0, 100.0)) * axial_um,
            "max_travel_um": random.choice((0.5, 2.0, 10.0, 50.0)) * half_um,
            "timeout_s": 30.0,
        },
        "microscope": {
            "kind": "simulated",
            "sample": random.choice(("cells", "gravel", "filaments")),
            "seed": random.randrange(1000),
            "focus_z_um": axial_um * random.uniform(-2.0, 2.0),
            "width": size,
            "height": random.choice((64, size)),
            "velocity_um_per_s": 1e6,
            "settling_ms": 0.0,
            "backlash_um": random.choice((0.0, 0.3)),
        },
        "autofocus": {
            "strategy": random.choice(("posterior", "published")),
            "max_exposures": random.choice((2, 5, 8, 20)),
        },
        "calibration": calibration,
        "scorer": {"threads": 1, "max_tiles": 4},
    }
    return RigConfig.model_validate(values)


def _start_um(random: Random, config: RigConfig) -> float:
    """Anywhere, mostly near the focus."""
    stage = config.stage
    if random.random() < 0.25:
        return random.uniform(stage.min_um, stage.max_um)
    assert config.microscope.kind == "simulated"
    return min(max(config.microscope.focus_z_um * random.uniform(0.0, 2.0), stage.min_um), stage.max_um)


def _nobody(_topic: str, _payload: dict[str, Any]) -> None:
    """Nobody listens."""
