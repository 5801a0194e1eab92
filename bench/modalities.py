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
from bench.runs import CALIBRATION_FOCUS_UM, CALIBRATION_PLANES_UM, engine_of, workers
from bench.searching import Ending, calibrated, searched
from bench.setting import Setting
from bench.tables import finite, shown
from bench.transmitted import Light, TransmittedLight
from focusd.errors import FocusdError

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
        curve_um: the ends of its curve; None: it was refused.
        origin_um: where it has its focus, from the plane of the sample: light in phase moves the sharpest plane.
        refused: why.
    """

    curve_um: tuple[float, float] | None
    origin_um: float
    refused: str = ""


Searched = tuple[tuple[Light, Light], Ending]
"""A pair of those above, and how a search ended; its error is from the plane that the calibration takes for focus."""


def run_modalities(runs: int, seed: int, json_file: Path | None) -> None:
    """Measure, print the table, write the JSON."""
    with workers() as (pool, folder):
        lights = list(dict.fromkeys(first for first, _ in PAIRS))
        tasks = {light: pool.submit(calibrate_on, light, folder) for light in lights}
        known = {light: task.result() for light, task in track(tasks.items(), "calibration")}
        searches = list(_searches(pool, folder, known, runs, seed))
    rows = [_row(pair, known[pair[0]], [end for of, end in searches if of == pair]) for pair in PAIRS]
    _print(rows)
    if json_file:
        json_file.write_text(json.dumps({"modalities": rows}, indent=1) + "\n", encoding="utf-8")


def calibrate_on(light: Light, folder: Path) -> Known:
    """As the product calibrates; the sample lies between two planes."""
    sample = TransmittedLight(light, SAMPLE_OF_CALIBRATION, 0, CALIBRATION_FOCUS_UM)
    run = engine_of(sample.setting, folder).calibrate(0.0, planes_um=CALIBRATION_PLANES_UM.tolist())
    try:
        found = calibrated(run, sample.frame)
    except FocusdError as error:
        return Known(None, float("nan"), error.message)
    curve_um = found.curve.z_um
    return Known((curve_um[0], curve_um[-1]), found.z_focus_um - CALIBRATION_FOCUS_UM)


def _searches(
    pool: Executor, folder: Path, known: dict[Light, Known], runs: int, seed: int
) -> Iterator[Searched]:
    tasks = [
        (pair, pool.submit(ending_of, pair, folder, known[pair[0]].origin_um, number, seed))
        for pair in PAIRS
        if known[pair[0]].curve_um
        for number in range(runs)
    ]
    for pair, task in track(tasks, f"{len(tasks)} searches"):
        yield pair, task.result()


def ending_of(pair: tuple[Light, Light], folder: Path, origin_um: float, number: int, seed: int) -> Ending:
    """How one search ended; samples in turn, all else at random."""
    rng = np.random.default_rng((seed, number))
    light = pair[1].times(float(np.exp(rng.uniform(*np.log(STRENGTHS)))))
    sample, focus_um = FLAT_SAMPLES[number % len(FLAT_SAMPLES)], float(rng.uniform(-REACH_UM, REACH_UM))
    seen = TransmittedLight(light, sample, int(rng.integers(1000)), focus_um)
    run = engine_of(Setting(optics=pair[0].name), folder).refocus(0.0)
    return searched(run, seen.frame, lambda: focus_um + origin_um)


def _row(pair: tuple[Light, Light], known: Known, endings: list[Ending]) -> dict[str, Any]:
    about = {
        "calibrated": pair[0].name,
        "searched": pair[1].name,
        "origin_um": known.origin_um,
        "curve_um": list(known.curve_um) if known.curve_um else None,
        "refused": known.refused,
    }
    return finite(about | figures_of(endings))


def figures_of(endings: list[Ending]) -> dict[str, Any]:
    """As `of_answers`, in µm, and how many were silent failures."""
    return of_answers(endings, "um", lambda _: 1.0) | {"silent": sum(e.is_silent for e in endings)}


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
