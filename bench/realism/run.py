"""`python -m bench realism`: the product's own calibrations and searches on instruments written apart from it."""

from __future__ import annotations

import json
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.realism.cases import GROUPS, Case, all_cases
from bench.realism.rig import Rig
from bench.realism.samples import Textures
from bench.runs import workers
from bench.searching import FOCUSED, NAN, Ending, calibrated, engine, searched
from bench.tables import finite, shown
from focusd.autofocus import Autofocus
from focusd.errors import FocusdError
from focusd.focus.planes import STACK_UNITS

REPORTING, TUNING = 20261, 77003
"""Of the seeds: what one of them draws the other never does."""
CALIBRATIONS = 2
"""Of each case, on different textures: a lucky one does not decide."""
START_UNITS = 10.0
"""How far from the focus a search may start, in λ·n/NA²: 60 µm at 10×/0.3."""
_LIMIT_UNITS = 50.0
_COLUMNS = (
    "n",
    "focused",
    "median_dof",
    "p95_dof",
    "ratio_median",
    "ratio_68",
    "ratio_95",
    "within_2_sigma",
    "silent",
    "images",
)

Figures = dict[str, Any]


@dataclass(frozen=True)
class Lot:
    """Cases to run, and how.

    Attributes:
        runs: searches of each case.
        seed: of the user; REPORTING or TUNING is added to it.
    """

    cases: list[Case]
    runs: int
    seed: tuple[int, int]
    is_tuning: bool
    calibrations: int


def run_realism(
    *,
    quick: bool,
    groups: list[str],
    names: list[str],
    runs: int | None,
    seed: int,
    tuning: bool,
    json_file: Path | None,
) -> None:
    """Calibrate and search, print the tables, write the JSON."""
    began_s = time.perf_counter()
    entropy = (TUNING if tuning else REPORTING, seed)
    cases = all_cases(np.random.default_rng(entropy), is_tuning=tuning)
    chosen = [
        case
        for case in cases
        if (not groups or case.group in groups)
        and (not names or case.name in names)
        and (not quick or names or case.is_quick)
    ]
    lot = Lot(chosen, runs or (6 if quick else 48), entropy, tuning, 1 if quick else CALIBRATIONS)
    with workers() as (pool, folder):
        endings = _run_all(pool, folder, lot)
    rows = [_row(case.name, case.group, endings[case]) for case in chosen]
    totals = [
        _row(group, group, [e for c in chosen if c.group == group for e in endings[c]]) for group in GROUPS
    ]
    totals = [row for row in totals if row["n"]]
    totals.append(_row("all", "all", [e for each in endings.values() for e in each]))
    _print("cases", rows)
    _print(f"groups, after {time.perf_counter() - began_s:.0f} s", totals)
    if json_file:
        json_file.write_text(json.dumps({"groups": totals, "cases": rows}, indent=1) + "\n", encoding="utf-8")


def _run_all(pool: Executor, folder: Path, lot: Lot) -> dict[Case, list[Ending]]:
    """All searches of a case and calibration go to one process, in turn: a rig learns from the searches before."""
    tasks = [
        (case, pool.submit(_series, case, lot, folder, number))
        for case in lot.cases
        for number in range(lot.calibrations)
    ]
    endings: dict[Case, list[Ending]] = {case: [] for case in lot.cases}
    for case, task in track(tasks, "calibrations and their searches"):
        endings[case] += task.result()
    return endings


def _series(case: Case, lot: Lot, folder: Path, number: int) -> list[Ending]:
    """How the searches with one calibration ended."""
    textures = Textures(is_tuning=lot.is_tuning)
    of_case = (*lot.seed, sum(ord(letter) * (k + 1) for k, letter in enumerate(case.name)), number)
    autofocus = _engine(case, folder, number)
    runs = range(number, lot.runs, lot.calibrations)
    try:
        calibrated(_calibration(case, autofocus), _rig(case, textures, of_case, None).frame)
    except FocusdError as error:
        return [Ending((), f"calibration: {error.outcome}", _dof_um(case)) for _ in runs]
    return [_searched(case, autofocus, textures, of_case, run) for run in runs]


def _engine(case: Case, folder: Path, number: int) -> Autofocus:
    instrument = case.calibrated.optics.configured
    limit_um = _LIMIT_UNITS * instrument.axial_unit_um
    place = folder / str(number)
    return engine(place, f"{case.group}, {case.name}"[:60], instrument, (-limit_um, limit_um))


def _calibration(case: Case, autofocus: Autofocus) -> Any:
    if case.planes is None:
        return autofocus.calibrate(0.0)
    reach_um = STACK_UNITS * case.calibrated.optics.axial_unit_um
    return autofocus.calibrate(0.0, planes_um=np.linspace(-reach_um, reach_um, case.planes).tolist())


def _searched(
    case: Case, autofocus: Autofocus, textures: Textures, of_case: tuple[int, ...], run_number: int
) -> Ending:
    rig = _rig(case, textures, of_case, run_number)
    run = autofocus.refocus(0.0)
    return searched(run, lambda z_um: rig.search_frame(run, z_um), lambda: rig.true_focus_um(run))


def _rig(case: Case, textures: Textures, of_case: tuple[int, ...], run_number: int | None) -> Rig:
    """Return the rig of the calibration, or that of a search; dust and pixels are the same in both."""
    is_calibration = run_number is None
    conditions = case.calibrated if is_calibration else case.searched
    rng = np.random.default_rng((*of_case, 0 if run_number is None else run_number + 1))
    dof_um = conditions.optics.configured.depth_of_field_um
    layers = textures.layers(rng, conditions.sample, dof_um, for_calibration=is_calibration)
    unit_um = case.calibrated.optics.axial_unit_um
    reach_um = (0.3 if is_calibration else START_UNITS) * unit_um
    return Rig(conditions, layers, float(rng.uniform(-reach_um, reach_um)), of_case[-1], rng)


def _dof_um(case: Case) -> float:
    return case.calibrated.optics.configured.depth_of_field_um


def _row(name: str, group: str, endings: list[Ending]) -> Figures:
    """Figures of some searches, nothing trimmed; errors are those of the answers given as focused."""
    told = [e for e in endings if e.outcome == FOCUSED]
    error_dof = np.array([abs(e.error_um) / e.dof_um for e in told])
    ratio = np.array([abs(e.error_um) / e.sigma_um for e in told])
    outcomes = [e.outcome for e in endings]
    tried = [e.exposures for e in endings if e.steps]
    return finite(
        {
            "name": name,
            "group": group,
            "n": len(endings),
            "focused": len(told) / max(1, len(endings)),
            "median_dof": _quantile(error_dof, 0.5),
            "p95_dof": _quantile(error_dof, 0.95),
            "median_um": _quantile(np.array([abs(e.error_um) for e in told]), 0.5),
            "ratio_median": _quantile(ratio, 0.5),
            "ratio_68": _quantile(ratio, 0.68),
            "ratio_95": _quantile(ratio, 0.95),
            "within_2_sigma": float((ratio <= 2).mean()) if told else NAN,
            "silent": sum(e.is_silent for e in endings),
            "images": float(np.mean(tried)) if tried else NAN,
            "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        }
    )


def _quantile(values: np.ndarray[Any, Any], level: float) -> float:
    return float(np.quantile(values, level, method="higher")) if len(values) else NAN


def _print(title: str, rows: list[Figures]) -> None:
    table = Table(title=title)
    for name in ("name", *_COLUMNS, "other outcomes"):
        table.add_column(name.replace("_", " "))
    for row in rows:
        others = ", ".join(f"{count} {what}" for what, count in row["outcomes"].items() if what != FOCUSED)
        table.add_row(row["name"], *(shown(row[name]) for name in _COLUMNS), others)
    Console(width=190).print(table)
