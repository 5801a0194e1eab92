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
from bench.runs import CALIBRATION_FOCUS_UM, workers
from bench.searching import FOCUSED, Ending, FrameAt, calibrated, engine, searched
from bench.setting import LIMITS_UM, OBJECTIVES, Setting
from bench.tables import finite, row_of, shown
from focusd.autofocus import Autofocus
from focusd.config import RigConfig
from focusd.focus.frame import Frame
from focusd.focus.planes import stack_um
from focusd.microscope.samples import SAMPLES
from focusd.microscope.simulated import SimulatedMicroscope, open_simulated

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


Searched = tuple[Case, Ending]


def run_frames(runs: int, quick: bool, seed: int, json_file: Path | None) -> None:
    """Measure, print the table, write the JSON."""
    stacks = (USUAL[0], COARSE) if quick else (*USUAL, COARSE)
    cases = [draw_case(stacks, number, seed) for number in range(runs)]
    with workers() as (pool, folder):
        searches = list(_searches(pool, folder, cases))
    figures = figures_of([end for _, end in searches])
    _print(searches, figures)
    if json_file:
        report = {"frames": figures, "endings": [_row(case, end) for case, end in searches]}
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _searches(pool: Executor, folder: Path, cases: list[Case]) -> Iterator[Searched]:
    stacks = dict.fromkeys(case.stack for case in cases)
    tasks = [pool.submit(calibrate_on, *stack, folder) for stack in stacks]
    for task in track(tasks, "calibration"):
        task.result()
    endings = [(case, pool.submit(ending_of, case, folder)) for case in cases]
    for case, ending in track(endings, f"{len(cases)} searches"):
        yield case, ending.result()


def draw_case(stacks: Sequence[Stack], number: int, seed: int) -> Case:
    """Samples and calibrations in turn, all else at random."""
    rng = np.random.default_rng((seed, number))
    objective, step_um = stacks[number // len(FLAT_SAMPLES) % len(stacks)]
    sample, kind = FLAT_SAMPLES[number % len(FLAT_SAMPLES)], int(rng.integers(1000))
    case = Case(number, sample, kind, objective, step_um, int(rng.choice(MOST_TILES)), 0.0)
    return replace(case, focus_um=case.setting.draw_focus(rng))


def calibrate_on(objective: str, step_um: float, folder: Path) -> None:
    """Take a stack as deep as the objective asks for, its focus between two planes."""
    case = Case(0, SAMPLE_OF_CALIBRATION, 0, objective, step_um, max(MOST_TILES), 0.0)
    case = replace(case, focus_um=CALIBRATION_FOCUS_UM * case.setting.scale)
    calibrated(_engine(case, folder).calibrate(0.0, step_um=step_um), _frames_of(case))


def ending_of(case: Case, folder: Path) -> Ending:
    """How one search ended."""
    return searched(_engine(case, folder).refocus(0.0), _frames_of(case), lambda: case.focus_um)


def _engine(case: Case, folder: Path) -> Autofocus:
    name = f"{case.objective}, planes of {case.step_um:g} µm"
    return engine(folder, name, case.setting.instrument, LIMITS_UM, case.tiles)


def _frames_of(case: Case) -> FrameAt:
    """The frames of a simulated microscope."""
    seen = microscope(case.objective)
    seen.set_scene(case.sample, case.seed, case.focus_um)

    def frame_at(z_um: float) -> Frame:
        seen.move_to(z_um)
        return seen.snap()

    return frame_at


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


def figures_of(endings: list[Ending]) -> dict[str, Any]:
    """As `of_answers`, in depths of field, and how many of the answers made another shape of the field."""
    errors = of_answers(endings, "dof", lambda e: e.dof_um)
    return errors | {
        "not_called_flat": sum(e.outcome == FOCUSED and e.shape not in SHAPES_OF_FLAT for e in endings)
    }


def _print(searches: list[Searched], figures: dict[str, Any]) -> None:
    """A line a sample, one a calibration, one of all, and what was not focused."""
    table = Table(
        title=f"{len(searches)} searches on frames of {FRAME_PX}×{FRAME_PX}, start within ±60 µm at 10×/0.3, "
        "in other objectives as many axial units"
    )
    table.add_column("sample, or calibration")
    for name in _COLUMNS:
        table.add_column(name.replace("_", " "))
    for sample in sorted({case.sample for case, _ in searches}):
        _add(table, sample, figures_of([end for case, end in searches if case.sample == sample]))
    for stack in dict.fromkeys(case.stack for case, _ in searches):
        chosen = [end for case, end in searches if case.stack == stack]
        _add(table, f"{stack[0]}, planes of {stack[1]:g} µm", figures_of(chosen))
    _add(table, "all", figures)
    console = Console(width=150)
    console.print(table)
    for case, end in searches:
        if end.outcome != FOCUSED:
            console.print(f"{case}: {end.outcome}", highlight=False)


def _add(table: Table, name: str, figures: dict[str, Any]) -> None:
    table.add_row(name, *(shown(figures[column]) for column in _COLUMNS))


def _row(case: Case, ending: Ending) -> dict[str, Any]:
    return finite(asdict(case)) | row_of(ending) | {"shape": ending.shape}
