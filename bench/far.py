"""`python -m bench far`: searches that begin beyond the calibrated range, and look over all of the stage's limits.

Each starts 100 to 300 µm from the focus at 10×/0.3, on either side, in other objectives as many axial units; the stage
may go to ±400 µm. What counts is how many are focused, in how many exposures, and whether any is silently wrong: off by
more than a depth of field, or reported where there is nothing to focus on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.released import TEXTURE, one_crop
from bench.rig import Rig
from bench.runs import calibrate_all, workers
from bench.searching import FOCUSED, NAN, Ending, engine, searched
from bench.setting import OBJECTIVES, Setting, seen_in
from bench.synthetic import Image, held_out_objects

LIMITS_UM = (-400.0, 400.0)
"""Of the stage at 10×/0.3."""
NEAREST_UM, FARTHEST_UM = 100.0, 300.0
"""From start to focus, at 10×/0.3."""
FEW = 12
"""Exposures, in which most searches are to end."""

_FAR = Setting(reach_um=FARTHEST_UM)
GROUPS: dict[str, Setting] = {
    **{name: replace(_FAR, objective=name) for name in OBJECTIVES},
    "2,000 e⁻": replace(_FAR, electrons=2000.0),
    "500 e⁻": replace(_FAR, electrons=500.0),
    "sparse": replace(_FAR, scene="sparse"),
    "sparse, 500 e⁻": replace(_FAR, scene="sparse", electrons=500.0),
    "empty": replace(_FAR, scene="empty"),
    "empty, 500 e⁻": replace(_FAR, scene="empty", electrons=500.0),
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Far:
    """One search.

    Attributes:
        distance_um: of the focus from the start.
    """

    distance_um: float
    ending: Ending


def run_far(textures: Path | None, runs: int, seed: int, json_file: Path | None) -> None:
    """Measure each group, print the table, write the JSON.

    Args:
        runs: of each group.
    """
    objects = held_out_objects(textures, runs, seed, leave_out=(TEXTURE,))
    with workers() as (pool, folder):
        calibrate_all(pool, folder, list(GROUPS.values()), one_crop(TEXTURE, seed))
        rows = [
            row_of(name, _group(pool, folder, name, setting, objects, runs, seed))
            for name, setting in GROUPS.items()
        ]
    _print(rows)
    if json_file:
        json_file.write_text(json.dumps({"groups": rows}, indent=1) + "\n", encoding="utf-8")


def _group(
    pool: Executor, folder: Path, name: str, setting: Setting, objects: list[Image], runs: int, seed: int
) -> list[Far]:
    tasks = [
        pool.submit(far_search, setting, objects[k % len(objects)], folder, (seed, k)) for k in range(runs)
    ]
    return [task.result() for task in track(tasks, description=name)]


def far_search(setting: Setting, texture: Image, folder: Path, seed: tuple[int, int]) -> Far:
    """One search; everything random follows from the seed."""
    rng = np.random.default_rng(seed)
    light = seen_in(setting.scene, texture, rng)
    focus_um = float(rng.choice((-1, 1)) * rng.uniform(NEAREST_UM, FARTHEST_UM)) * setting.scale
    rig = Rig(setting, light, focus_um, seed=seed[1])
    name = f"{setting.objective}, {setting.optics}"
    limits_um = (LIMITS_UM[0] * setting.scale, LIMITS_UM[1] * setting.scale)
    run = engine(folder, name, setting.instrument, limits_um).refocus(0.0, far=True)
    return Far(focus_um, searched(run, rig.frame, lambda: NAN if setting.scene == "empty" else rig.focus_um))


def row_of(name: str, found: Sequence[Far]) -> Row:
    """The figures of one group, nothing left out."""
    endings = [far.ending for far in found]
    focused = [e for e in endings if e.outcome == FOCUSED]
    exposures = [e.exposures for e in endings]
    dof = [abs(e.error_um) / e.dof_um for e in focused if np.isfinite(e.error_um)]
    outcomes = [e.outcome for e in endings]
    return {
        "name": name,
        "n": len(found),
        "focused": len(focused),
        "in_few": sum(e.exposures <= FEW for e in focused),
        "median_dof": float(np.median(dof)) if dof else None,
        "p95_dof": float(np.quantile(dof, 0.95)) if dof else None,
        "worst_dof": max(dof, default=None),
        "silent": sum(e.is_silent for e in endings),
        "images": float(np.mean(exposures)),
        "most_images": max(exposures),
        "outcomes": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
    }


def _print(rows: list[Row]) -> None:
    table = Table(
        "start", "runs", f"focused in {FEW}", "silent", "images", "most", "error (DOF)", "p95", "outcomes"
    )
    for row in rows:
        table.add_row(
            row["name"],
            str(row["n"]),
            f"{row['in_few'] / row['n']:.1%}",
            str(row["silent"]),
            f"{row['images']:.1f}",
            str(row["most_images"]),
            *("–" if row[key] is None else f"{row[key]:.3f}" for key in ("median_dof", "p95_dof")),
            ", ".join(f"{outcome} {count}" for outcome, count in row["outcomes"].items()),
        )
    Console().print(table)
