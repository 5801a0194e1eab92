"""`python -m bench frames`: searches on whole camera frames, 2048×2048, of the simulator's samples.

The other figures are of 512×512 of one even texture. A whole frame holds more light, is scored on a few of its tiles,
and repeats what lies in it: of a lattice or of a few beads every block of it may show the same few lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.errors import Errors
from bench.runs import CALIBRATION_FOCUS_UM, STRUCTURE_THRESHOLD, workers
from bench.searches import FOCUSED, alone, posterior_search, posterior_steps
from bench.setting import Setting
from focusd.autofocus.calibration import Calibration, calibrate
from focusd.autofocus.geometry import geometry_of
from focusd.autofocus.observation import Observation
from focusd.autofocus.search import PosteriorSearch
from focusd.config import RigConfig
from focusd.microscope.samples import SAMPLES
from focusd.microscope.simulated import SimulatedMicroscope, open_simulated
from focusd.service.observer import observation_of
from focusd.sharpness.scorer import FocusMeasure, Scorer
from focusd.sharpness.weights import load_model

FRAME_PX = 2048
SAMPLE_OF_CALIBRATION = "gravel"
FLAT_SAMPLES = tuple(name for name in SAMPLES if name not in ("empty", SAMPLE_OF_CALIBRATION))
"""All of them lie in one plane."""
STEPS_UM = (2.0, 4.0)
"""Between the planes of a calibration: the default, and that of the example configurations."""
MOST_TILES = (4, 8, 16)
"""Of a frame, as the machine is slow or fast."""
SHAPES_OF_FLAT = ("flat", "unknown")
SETTING = Setting(optics="simulator's", scene="whole frame")


@dataclass(frozen=True)
class Case:
    """What one search meets.

    Attributes:
        seed: of the sample.
        step_um: between the planes of the calibration.
        tiles: to score of a frame, at most.
    """

    number: int
    sample: str
    seed: int
    step_um: float
    tiles: int
    focus_um: float


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

    limits_um = (-300.0, 300.0)
    setting = SETTING

    def __init__(self, case: Case) -> None:
        self._microscope = microscope()
        self._microscope.set_scene(case.sample, case.seed, case.focus_um)
        self._scorer = Scorer(load_model(), SETTING.instrument.sampling, max_tiles=case.tiles)
        self._first: FocusMeasure | None = None

    @property
    def dof_um(self) -> float:
        """Depth of field."""
        return SETTING.instrument.depth_of_field_um

    def look(self, z_um: float) -> Observation:
        """Scores and spectra of one exposure, of the same tiles each time."""
        self._microscope.move_to(z_um)
        measure = self._scorer.score(self._microscope.snap().pixels, like=self._first)
        self._first = self._first or measure
        return observation_of(z_um, measure)


def run_frames(runs: int, samples: tuple[str, ...], seed: int, json_file: Path | None) -> None:
    """Measure, print the table, write the JSON."""
    with workers() as pool:
        endings = list(_endings(pool, runs, samples, seed))
    figures = figures_of(endings)
    _print(endings, figures)
    if json_file:
        report = {"frames": figures, "endings": [_row(e) for e in endings]}
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _endings(pool: Executor, runs: int, samples: tuple[str, ...], seed: int) -> Iterator[FrameEnding]:
    tasks = {step_um: pool.submit(calibration, step_um) for step_um in STEPS_UM}
    known = {step_um: task.result() for step_um, task in track(tasks.items(), "calibration")}
    cases = [draw_case(samples, number, seed) for number in range(runs)]
    searches = [pool.submit(ending, known[case.step_um], case) for case in cases]
    for search in track(searches, description=f"{runs} searches"):
        yield search.result()


def draw_case(samples: tuple[str, ...], number: int, seed: int) -> Case:
    """Samples in turn, all else at random."""
    rng = np.random.default_rng((seed, number))
    return Case(
        number,
        samples[number % len(samples)],
        int(rng.integers(1000)),
        float(rng.choice(STEPS_UM)),
        int(rng.choice(MOST_TILES)),
        SETTING.draw_focus(rng),
    )


def calibration(step_um: float) -> Calibration:
    """From a stack over ±100 µm."""
    case = Case(0, SAMPLE_OF_CALIBRATION, 0, step_um, max(MOST_TILES), CALIBRATION_FOCUS_UM)
    seen = WholeFrames(case)
    stack = [seen.look(float(z_um)) for z_um in np.arange(-100.0, 100.1, step_um)]
    return calibrate(stack, {}, STRUCTURE_THRESHOLD, SETTING.instrument)[0]


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
def microscope() -> SimulatedMicroscope:
    """One a process; of no delays, for nothing here is timed."""
    return open_simulated(
        RigConfig.model_validate(
            {
                "name": "frames",
                "objective": {"name": "10x-0.3", "magnification": 10.0, "na": 0.3},
                "camera": {"pixel_um": 6.5, "exposure_ms": 0.001},
                "stage": {"min_um": -300.0, "max_um": 300.0, "towards_sample": "increasing"},
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
    """Of all searches; errors are those of the answers that were given as focused."""
    told = [e for e in endings if e.outcome == FOCUSED]
    errors = Errors(
        np.array([e.error_um for e in told]),
        np.ones(len(told), bool),
        SETTING.instrument.depth_of_field_um,
    )
    outcomes = [e.outcome for e in endings]
    return {
        "runs": len(endings),
        "images_mean": float(np.mean([e.exposures for e in endings])) if endings else None,
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        **errors.figures(),
        "max_um": errors.quantile_um(1.0),
        "within_2_sigma": float(np.mean([abs(e.error_um) <= 2 * e.sigma_um for e in told])) if told else None,
        "not_called_flat": sum(e.shape not in SHAPES_OF_FLAT for e in told),
    }


_COLUMNS = ("images_mean", "outcomes", "median_um", "p95_um", "max_um", "within_2_sigma", "not_called_flat")


def _print(endings: list[FrameEnding], figures: dict[str, Any]) -> None:
    """A line a sample, one of all, and what was not focused."""
    table = Table(title=f"{len(endings)} searches on frames of {FRAME_PX}×{FRAME_PX}, start within ±60 µm")
    table.add_column("sample")
    for name in ("runs", *_COLUMNS):
        table.add_column(name.replace("_", " "))
    for sample in sorted({e.case.sample for e in endings}):
        _add(table, sample, figures_of([e for e in endings if e.case.sample == sample]))
    for step_um in STEPS_UM:
        _add(
            table, f"planes of {step_um:g} µm", figures_of([e for e in endings if e.case.step_um == step_um])
        )
    _add(table, "all", figures)
    console = Console(width=150)
    console.print(table)
    for e in endings:
        if e.outcome != FOCUSED:
            console.print(f"{e.case}: {e.outcome}", highlight=False)


def _add(table: Table, sample: str, figures: dict[str, Any]) -> None:
    cells = (figures["runs"], *(figures[name] for name in _COLUMNS))
    table.add_row(sample, *map(_shown, cells))


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _row(ending: FrameEnding) -> dict[str, Any]:
    row = asdict(ending)
    row |= row.pop("case")
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
