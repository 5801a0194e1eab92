"""`python -m bench modalities`: stained and unstained samples in transmitted light, bright field and phase contrast.

The network was trained on fluorescence, reflected light and stained samples: on objects that a point spread function
blurs. Light that a sample shifts in phase is another matter, and what a calibration on one kind of sample is worth on
another kind, too. Nothing here may be surely wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.errors import of_answers
from bench.frames import FLAT_SAMPLES, SAMPLE_OF_CALIBRATION
from bench.runs import CALIBRATION_FOCUS_UM, CALIBRATION_PLANES_UM, calibration_by, workers
from bench.searches import FOCUSED, alone, posterior_search, posterior_steps
from bench.synthetic import INSTRUMENT
from bench.tables import finite, shown
from bench.transmitted import Light, TransmittedLight
from focusd.errors import FocusdError
from focusd.focus.calibration import Calibration

STAINED = Light("stained, bright field", density=1.5)
MIXED = Light("stained, some phase", density=1.0, phase=0.4)
PHASE_CONTRAST = Light("phase contrast", phase_contrast=True, phase=0.8)
UNSTAINED = Light("unstained, bright field", phase=0.8)
PAIRS = (
    (STAINED, STAINED),
    (MIXED, MIXED),
    (PHASE_CONTRAST, PHASE_CONTRAST),
    (UNSTAINED, UNSTAINED),
    (STAINED, MIXED),
    (STAINED, UNSTAINED),
)
"""What is calibrated, and what is searched."""
STRENGTHS = (0.4, 2.5)
"""A sample does so much of what the calibrated one does: anything in between."""
REACH_UM = 60.0
_COLUMNS = ("runs", "outcomes", "images_mean", "median_um", "p95_um", "max_um", "within_2_sigma", "silent")


@dataclass(frozen=True)
class Known:
    """What came of a calibration.

    Attributes:
        calibration: None: it was refused.
        origin_um: where it has its focus, from the plane of the sample: light in phase moves the sharpest plane.
        refused: why.
    """

    calibration: Calibration | None
    origin_um: float
    refused: str = ""


@dataclass(frozen=True)
class SearchEnding:
    """How one search ended.

    Attributes:
        error_um: from the plane that the calibration takes for the focus.
    """

    calibrated: str
    light: Light
    sample: str
    focus_um: float
    exposures: int
    error_um: float
    sigma_um: float
    outcome: str

    @property
    def is_silent(self) -> bool:
        """Whether a focus was reported that is more than a depth of field off."""
        return self.outcome == FOCUSED and not abs(self.error_um) <= INSTRUMENT.depth_of_field_um


def run_modalities(runs: int, seed: int, json_file: Path | None) -> None:
    """Measure, print the table, write the JSON."""
    with workers() as pool:
        lights = list(dict.fromkeys(calibrated for calibrated, _ in PAIRS))
        tasks = {light: pool.submit(calibrated_on, light) for light in lights}
        known = {light: task.result() for light, task in track(tasks.items(), "calibration")}
        searches = list(_searches(pool, known, runs, seed))
    rows = [_row(pair, known[pair[0]], searches) for pair in PAIRS]
    _print(rows)
    if json_file:
        json_file.write_text(json.dumps({"modalities": rows}, indent=1) + "\n", encoding="utf-8")


def calibrated_on(light: Light) -> Known:
    """As the daemon calibrates; the sample lies between two planes."""
    sample = TransmittedLight(light, SAMPLE_OF_CALIBRATION, 0, CALIBRATION_FOCUS_UM)
    try:
        calibration, focus_um = calibration_by(sample.look, CALIBRATION_PLANES_UM, sample.setting.instrument)
    except FocusdError as error:
        return Known(None, float("nan"), error.message)
    return Known(calibration, focus_um - CALIBRATION_FOCUS_UM)


def _searches(pool: Executor, known: dict[Light, Known], runs: int, seed: int) -> Iterator[SearchEnding]:
    tasks = [
        pool.submit(searched, (on, light), known[on], number, seed)
        for on, light in PAIRS
        if known[on].calibration
        for number in range(runs)
    ]
    for task in track(tasks, f"{len(tasks)} searches"):
        yield task.result()


def searched(pair: tuple[Light, Light], known: Known, number: int, seed: int) -> SearchEnding:
    """One search, by itself; samples in turn, all else at random."""
    assert known.calibration, "a refused calibration serves no search"
    rng = np.random.default_rng((seed, number))
    light = pair[1].times(float(np.exp(rng.uniform(*np.log(STRENGTHS)))))
    sample, focus_um = FLAT_SAMPLES[number % len(FLAT_SAMPLES)], float(rng.uniform(-REACH_UM, REACH_UM))
    seen = TransmittedLight(light, sample, int(rng.integers(1000)), focus_um)
    search = posterior_search(seen, known.calibration)
    truth_um = focus_um + known.origin_um
    count, last = alone(posterior_steps(search, seen.look, lambda: truth_um, seen.dof_um))
    return SearchEnding(
        pair[0].name, light, sample, focus_um, count, last.error_um, last.sigma_um, last.outcome
    )


def _row(pair: tuple[Light, Light], known: Known, searches: list[SearchEnding]) -> dict[str, Any]:
    chosen = [s for s in searches if (s.calibrated, s.light.name) == (pair[0].name, pair[1].name)]
    curve = known.calibration
    about = {
        "calibrated": pair[0].name,
        "searched": pair[1].name,
        "origin_um": known.origin_um,
        "curve_um": [curve.min_um, curve.max_um] if curve else None,
        "refused": known.refused,
    }
    return finite(about | figures_of(chosen))


def figures_of(searches: list[SearchEnding]) -> dict[str, Any]:
    """As `of_answers`, in µm, and how many were silent failures."""
    return of_answers(searches, "um", lambda _: 1.0) | {"silent": sum(s.is_silent for s in searches)}


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"10×/0.3, start within ±{REACH_UM:g} µm, errors in µm from the calibration's focus")
    for name in ("calibrated on", "curve µm", "origin µm", "searched", *_COLUMNS):
        table.add_column(name.replace("_", " "))
    for row in rows:
        curve = " to ".join(f"{end_um:.0f}" for end_um in row["curve_um"] or ()) or None
        about = (row["calibrated"], curve, row["origin_um"], row["searched"])
        table.add_row(*(shown(value) for value in about), *(shown(row[name]) for name in _COLUMNS))
    console = Console(width=170)
    console.print(table)
    for reason in dict.fromkeys(f"{row['calibrated']}: {row['refused']}" for row in rows if row["refused"]):
        console.print(reason, highlight=False)
