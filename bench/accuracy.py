"""`python -m bench accuracy`: section 3.3 of the paper, on textures that the network never saw, nothing trimmed.

Each run is the product's own, starts anywhere within a range and exposes 512×512 frames. It is judged after each number
of images by what it believes then; when it has ended it keeps its answer. Calibrated
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
from bench.mix import Drawn, run_mix
from bench.plan import FULL, IDEAL, MAIN, POSTERIOR, QUICK, Plan, Series
from bench.plots import draw_errors
from bench.recorded import run_recorded
from bench.released import TEXTURE, one_crop, run_released
from bench.runs import Run, calibrate_all, run_series, workers
from bench.searching import FOCUSED
from bench.setting import Setting
from bench.synthetic import Image, held_out_objects
from bench.tables import print_endings, print_errors, print_searches, row_of

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
    with workers() as (pool, folder):
        calibrate_all(pool, folder, [MAIN, IDEAL], one_crop(TEXTURE, seed))
        drawn = run_mix(pool, folder, objects, runs, seed)
    print_endings(drawn)
    return {"runs": [], "endings": [_ended(each) for each in drawn]}


def _ended(drawn: Drawn) -> Row:
    about = {"setting": asdict(drawn.setting), "seed": drawn.seed}
    return about | row_of(drawn.ending) | {"silent": drawn.ending.is_silent}


def _planned(
    plan: Plan, objects: list[Image], calibrate_on: Path | None, stacks: Path | None, seed: int, out: Path
) -> dict[str, list[Row]]:
    rows: list[Row] = []
    reached: list[Row] = []
    searches: list[Row] = []
    images = max(plan.images)
    with workers() as (pool, folder):
        calibrate_all(pool, folder, [s.setting for s in plan.series], one_crop(TEXTURE, seed))
        for series in plan.series:
            done = run_series(pool, folder, series, objects, images, seed)
            rows += print_errors(series_rows(series, done, plan.images))
            reached += _reached(series, done, images)
            searches.append(_searches(series, done))
        released = run_released(pool, folder, plan.released, seed)
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
    steps = [run.endings[strategy].after(images) for run in runs]
    bounded = [run.bound_um for run in runs if run.bound_um and strategy == POSTERIOR]
    return Errors(
        np.array([step.error_um for step in steps]),
        np.array([step.is_reported for step in steps]),
        setting.instrument.depth_of_field_um,
        [bound_um[min(images, len(bound_um)) - 1] for bound_um in bounded],
    )


def _reached(series: Series, runs: list[Run], images: int) -> list[Row]:
    """After how many images half of the runs, and 95 % of them, stay within 0.1 depth of field."""
    rows = []
    limit_um = 0.1 * series.setting.instrument.depth_of_field_um
    for name in series.strategies:
        ends = [run.endings[name] for run in runs]
        error_um = np.array([[end.after(n).error_um for n in range(1, images + 1)] for end in ends])
        half, most = (exposures_to_reach(error_um, limit_um, share) for share in (0.5, 0.95))
        rows.append({"setting": str(series.setting), "strategy": name, "half": half, "most": most})
    return rows


def _searches(series: Series, runs: list[Run]) -> Row:
    """What the posterior search does by itself: images and error where it stops, and how it ends."""
    ends = [run.endings[POSTERIOR] for run in runs]
    errors = Errors(
        np.array([end.error_um for end in ends]),
        np.array([end.outcome == FOCUSED for end in ends]),
        series.setting.instrument.depth_of_field_um,
    )
    outcomes = [end.outcome for end in ends]
    ratio = np.array([abs(e.error_um) / e.sigma_um if e.outcome == FOCUSED else 0.0 for e in ends])
    told = errors.reported
    return {
        "setting": str(series.setting),
        "images_mean": float(np.mean([end.exposures for end in ends])),
        "outcomes": {o: outcomes.count(o) for o in sorted(set(outcomes))},
        "within_2_sigma": float((ratio[told] <= 2).mean()) if told.any() else None,
        "most_sigmas": float(ratio.max()),
        "worst_run": int(ratio.argmax()),
        "silent_runs": [k for k, s in enumerate(errors.silent) if s],
        **errors.figures(),
    }
