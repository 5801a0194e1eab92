"""`python -m bench accuracy`: section 3.3 of the paper, on textures that the network never saw, nothing trimmed.

Each run starts anywhere within a range, exposes 512×512 frames, and is judged after each number of images. Calibrated
on one other texture (gravel, 8,000 electrons, 101 planes within ±100 µm at 10×/0.3). The truth is the plane of the
highest Strehl ratio. Beside it the Cramér–Rao bound for an unknown object with the same photons, frames and probes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench.errors import Errors, exposures_to_reach
from bench.mix import Ending, run_mix
from bench.plan import FULL, IDEAL, MAIN, POSTERIOR, QUICK, Plan, Series
from bench.plots import draw_errors
from bench.recorded import run_recorded
from bench.released import TEXTURE, one_crop, run_released
from bench.runs import Run, calibrations, run_series, workers
from bench.searches import FOCUSED, Step, alone
from bench.setting import Setting
from bench.synthetic import Image, held_out_objects
from bench.tables import finite, print_endings, print_errors, print_searches

Row = dict[str, Any]


def run_accuracy(
    textures: Path | None,
    calibrate_on: Path | None,
    stacks: Path | None,
    quick: bool,
    runs: int | None,
    seed: int,
    out: Path,
    json_file: Path | None,
) -> None:
    """Measure, print the tables, draw the plot, write the JSON."""
    plan = QUICK if quick else FULL
    most = max(series.runs for series in plan.series)
    objects = held_out_objects(textures, most, seed, leave_out=(TEXTURE,))
    figures = (
        _mixed(objects, runs, seed) if runs else _planned(plan, objects, calibrate_on, stacks, seed, out)
    )
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _mixed(objects: list[Image], runs: int, seed: int) -> dict[str, list[Row]]:
    with workers() as pool:
        known = calibrations(pool, [MAIN, IDEAL], one_crop(TEXTURE, seed))
        endings = run_mix(pool, known, objects, runs, seed)
    print_endings(endings)
    return {"runs": [], "endings": [_ended(e) for e in endings]}


def _ended(ending: Ending) -> Row:
    return finite(asdict(ending) | {"silent": ending.silent})


def _planned(
    plan: Plan, objects: list[Image], calibrate_on: Path | None, stacks: Path | None, seed: int, out: Path
) -> dict[str, list[Row]]:
    rows: list[Row] = []
    reached: list[Row] = []
    searches: list[Row] = []
    with workers() as pool:
        known = calibrations(pool, [s.setting for s in plan.series], one_crop(TEXTURE, seed))
        for series in plan.series:
            done = run_series(pool, series, known, objects, max(plan.images), seed)
            rows += print_errors(series_rows(series, done, plan.images))
            reached += _reached(series, done)
            searches.append(_searches(series, done))
        released = run_released(pool, plan.released, seed)
    rows += print_errors(run_recorded(calibrate_on, stacks))
    print_searches(reached, searches, released)
    out.mkdir(parents=True, exist_ok=True)
    draw_errors(rows, out / "accuracy.png")
    Console().print(f"plot: {(out / 'accuracy.png').resolve()}", soft_wrap=True)
    return {"runs": rows, "reached": reached, "searches": searches, "released": released}


def series_rows(series: Series, runs: list[Run], images: tuple[int, ...]) -> list[Row]:
    """One row a strategy and number of images."""
    return [
        _about(series.setting, name, n) | _errors(series.setting, runs, name, n).figures()
        for name in series.strategies
        for n in images
    ]


def _about(setting: Setting, strategy: str, images: int) -> Row:
    return {
        "strategy": f"{strategy} warm" if setting.warm else strategy,
        "images": images,
        "objective": setting.objective,
        "optics": setting.optics,
        "start_um": round(setting.start_um, 2),
        "electrons": setting.electrons,
        "scene": setting.scene,
    }


def _errors(setting: Setting, runs: list[Run], strategy: str, images: int) -> Errors:
    steps = [run.traces[strategy][images - 1] for run in runs]
    bound_um = [run.bound_um[images - 1] for run in runs if run.bound_um] if strategy == POSTERIOR else []
    return Errors(
        np.array([_error_um(setting, step) for step in steps]),
        np.array([step.outcome == FOCUSED for step in steps]),
        setting.instrument.depth_of_field_um,
        bound_um,
    )


def _error_um(setting: Setting, step: Step) -> float:
    """An empty field has no focus to be near to."""
    return float("nan") if setting.scene == "empty" else step.error_um


def _reached(series: Series, runs: list[Run]) -> list[Row]:
    """After how many images half of the runs, and 95 % of them, stay within 0.1 depth of field."""
    rows = []
    limit_um = 0.1 * series.setting.instrument.depth_of_field_um
    for name in series.strategies:
        error_um = np.array([[_error_um(series.setting, s) for s in run.traces[name]] for run in runs])
        half, most = (exposures_to_reach(error_um, limit_um, share) for share in (0.5, 0.95))
        rows.append({"setting": str(series.setting), "strategy": name, "half": half, "most": most})
    return rows


def _searches(series: Series, runs: list[Run]) -> Row:
    """What the posterior search does by itself: images and error where it stops, and how it ends."""
    ends = [alone(iter(run.traces[POSTERIOR])) for run in runs]
    steps = [step for _, step in ends]
    errors = Errors(
        np.array([_error_um(series.setting, step) for step in steps]),
        np.array([step.outcome == FOCUSED for step in steps]),
        series.setting.instrument.depth_of_field_um,
    )
    outcomes = [step.outcome for step in steps]
    ratio = np.array([abs(s.error_um) / s.sigma_um if s.outcome == FOCUSED else 0.0 for s in steps])
    told = errors.reported
    return {
        "setting": str(series.setting),
        "images_mean": float(np.mean([count for count, _ in ends])),
        "outcomes": {o: outcomes.count(o) for o in sorted(set(outcomes))},
        "within_2_sigma": float((ratio[told] <= 2).mean()) if told.any() else None,
        "most_sigmas": float(ratio.max()),
        "worst_run": int(ratio.argmax()),
        "silent_runs": [k for k, s in enumerate(errors.silent) if s],
        **errors.figures(),
    }
