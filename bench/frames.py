"""`python -m bench frames`: searches on whole camera frames, 2048×2048, of the simulator's samples.

The accuracy bench's figures are of 512×512 of one even texture. A whole frame holds more light, is scored on a few of
its tiles, and repeats what lies in it: of a lattice or of a few beads every block of it may show the same few lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.errors import of_answers
from bench.runs import CALIBRATION_FOCUS_UM, calibration_by, workers
from bench.searches import FOCUSED, alone, posterior_search, posterior_steps
from bench.setting import OBJECTIVES, Setting
from bench.tables import finite, shown
from focusd.config import RigConfig
from focusd.focus.calibration import Calibration
from focusd.focus.geometry import geometry_of
from focusd.focus.observation import Observation
from focusd.focus.planes import stack_um
from focusd.focus.search import PosteriorSearch
from focusd.microscope.samples import SAMPLES
from focusd.microscope.simulated import SimulatedMicroscope, open_simulated
from focusd.scoring.measuring import observation_of
from focusd.scoring.scorer import FocusMeasure, Scorer
from focusd.scoring.weights import load_model

FRAME_PX = 2048
SAMPLE_OF_CALIBRATION = "gravel"
FLAT_SAMPLES = tuple(name for name in SAMPLES if name not in ("empty", SAMPLE_OF_CALIBRATION))
"""All of them lie in one plane."""

Stack = tuple[str, float]
"""Of a calibration: objective, and distance of the planes in µm."""
USUAL: tuple[Stack, ...] = tuple((name, stack_um(instrument)[1]) for name, instrument in OBJECTIVES.items())
"""As the daemon takes them, if nobody configures them otherwise."""
COARSE: Stack = ("10x/0.3", 4.0)
"""Half as many planes: less light, and zeros of the transfer that no plane shows."""

MOST_TILES = (4, 8, 16)
"""Of a frame, as the machine is slow or fast."""
SHAPES_OF_FLAT = ("flat", "unknown")
SETTING = Setting(optics="simulator's", scene="whole frame")
LIMITS_UM = (-300.0, 300.0)
"""Of the stage."""
_COLUMNS = (
    "runs",
    "images_mean",
    "outcomes",
    "median_dof",
    "p95_dof",
    "max_dof",
    "within_2_sigma",
    "not_called_flat",
)


@dataclass(frozen=True)
class Case:
    """What one search meets.

    Attributes:
        seed: of the sample.
        objective, step_um: of the calibration's `Stack`.
        tiles: to score of a frame, at most.
    """

    number: int
    sample: str
    seed: int
    objective: str
    step_um: float
    tiles: int
    focus_um: float

    @property
    def setting(self) -> Setting:
        """For the search."""
        return replace(SETTING, objective=self.objective)

    @property
    def stack(self) -> Stack:
        """Of its calibration."""
        return self.objective, self.step_um


@dataclass(frozen=True)
class FrameEnding:
    """How it ended.

    Attributes:
        shape: of the field, as reported; empty where no focus was.
    """

    case: Case
    exposures: int
    error_um: float
    sigma_um: float
    outcome: str
    shape: str


class WholeFrames:
    """A simulated microscope as a search looks at it."""

    limits_um = LIMITS_UM

    def __init__(self, case: Case) -> None:
        self.setting = case.setting
        self._microscope = microscope(case.objective)
        self._microscope.set_scene(case.sample, case.seed, case.focus_um)
        self._scorer = Scorer(load_model(), self.setting.instrument.sampling, max_tiles=case.tiles)
        self._first: FocusMeasure | None = None

    @property
    def dof_um(self) -> float:
        """Depth of field."""
        return self.setting.instrument.depth_of_field_um

    def look(self, z_um: float) -> Observation:
        """Scores and spectra of one exposure, of the same tiles each time."""
        self._microscope.move_to(z_um)
        measure = self._scorer.score(self._microscope.snap().pixels, like=self._first)
        self._first = self._first or measure
        return observation_of(z_um, measure)


def run_frames(runs: int, quick: bool, seed: int, json_file: Path | None) -> None:
    """Measure, print the table, write the JSON."""
    stacks = (USUAL[0], COARSE) if quick else (*USUAL, COARSE)
    cases = [draw_case(stacks, number, seed) for number in range(runs)]
    with workers() as pool:
        endings = list(_endings(pool, cases))
    figures = figures_of(endings)
    _print(endings, figures)
    if json_file:
        report = {"frames": figures, "endings": [_row(e) for e in endings]}
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _endings(pool: Executor, cases: list[Case]) -> Iterator[FrameEnding]:
    tasks = {stack: pool.submit(calibration, *stack) for stack in dict.fromkeys(case.stack for case in cases)}
    known = {stack: task.result() for stack, task in track(tasks.items(), "calibration")}
    searches = [pool.submit(ending, known[case.stack], case) for case in cases]
    for search in track(searches, f"{len(cases)} searches"):
        yield search.result()


def draw_case(stacks: Sequence[Stack], number: int, seed: int) -> Case:
    """Samples and calibrations in turn, all else at random."""
    rng = np.random.default_rng((seed, number))
    objective, step_um = stacks[number // len(FLAT_SAMPLES) % len(stacks)]
    sample, kind = FLAT_SAMPLES[number % len(FLAT_SAMPLES)], int(rng.integers(1000))
    case = Case(number, sample, kind, objective, step_um, int(rng.choice(MOST_TILES)), 0.0)
    return replace(case, focus_um=case.setting.draw_focus(rng))


def calibration(objective: str, step_um: float) -> Calibration:
    """From a stack as deep as the objective asks for, its focus between two planes."""
    case = Case(0, SAMPLE_OF_CALIBRATION, 0, objective, step_um, max(MOST_TILES), 0.0)
    instrument = case.setting.instrument
    seen = WholeFrames(replace(case, focus_um=CALIBRATION_FOCUS_UM * case.setting.scale))
    range_um, _ = stack_um(instrument)
    planes_um = np.arange(-range_um, range_um + step_um / 2, step_um)
    return calibration_by(seen.look, planes_um, instrument)[0]


def ending(known: Calibration, case: Case) -> FrameEnding:
    """One search, by itself."""
    seen = WholeFrames(case)
    search = posterior_search(seen, known)
    count, last = alone(posterior_steps(search, seen.look, lambda: case.focus_um, seen.dof_um))
    shape = _shape(search, seen.dof_um) if last.outcome == FOCUSED else ""
    return FrameEnding(case, count, last.error_um, last.sigma_um, last.outcome, shape)


def _shape(search: PosteriorSearch, dof_um: float) -> str:
    return geometry_of(search.decide().local, None, dof_um, "increasing").shape


@cache
def microscope(objective: str) -> SimulatedMicroscope:
    """One a process and objective; of no delays, for nothing here is timed."""
    optics = OBJECTIVES[objective]
    return open_simulated(
        RigConfig.model_validate(
            {
                "name": "frames",
                "objective": {
                    "name": objective,
                    "magnification": optics.magnification,
                    "na": optics.na,
                    "immersion_index": optics.immersion_index,
                },
                "camera": {"pixel_um": 6.5, "exposure_ms": 0.001},
                "stage": {"min_um": LIMITS_UM[0], "max_um": LIMITS_UM[1], "towards_sample": "increasing"},
                "microscope": {
                    "kind": "simulated",
                    "sample": SAMPLE_OF_CALIBRATION,
                    "width": FRAME_PX,
                    "height": FRAME_PX,
                    "velocity_um_per_s": 1e9,
                    "settling_ms": 0.0,
                },
            }
        )
    )


def figures_of(endings: list[FrameEnding]) -> dict[str, Any]:
    """As `of_answers`, in depths of field, and how many of the answers made another shape of the field."""
    told = [e for e in endings if e.outcome == FOCUSED]
    errors = of_answers(endings, "dof", lambda e: e.case.setting.instrument.depth_of_field_um)
    return errors | {"not_called_flat": sum(e.shape not in SHAPES_OF_FLAT for e in told)}


def _print(endings: list[FrameEnding], figures: dict[str, Any]) -> None:
    """A line a sample, one a calibration, one of all, and what was not focused."""
    table = Table(
        title=f"{len(endings)} searches on frames of {FRAME_PX}×{FRAME_PX}, start within ±60 µm at 10×/0.3, "
        "in other objectives as many axial units"
    )
    table.add_column("sample, or calibration")
    for name in _COLUMNS:
        table.add_column(name.replace("_", " "))
    for sample in sorted({e.case.sample for e in endings}):
        _add(table, sample, figures_of([e for e in endings if e.case.sample == sample]))
    for objective, step_um in dict.fromkeys(e.case.stack for e in endings):
        chosen = [e for e in endings if e.case.stack == (objective, step_um)]
        _add(table, f"{objective}, planes of {step_um:g} µm", figures_of(chosen))
    _add(table, "all", figures)
    console = Console(width=150)
    console.print(table)
    for e in endings:
        if e.outcome != FOCUSED:
            console.print(f"{e.case}: {e.outcome}", highlight=False)


def _add(table: Table, name: str, figures: dict[str, Any]) -> None:
    table.add_row(name, *(shown(figures[column]) for column in _COLUMNS))


def _row(ending: FrameEnding) -> dict[str, Any]:
    row = asdict(ending)
    return finite(row.pop("case") | row)
