"""Tables of the accuracy bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.mix import Drawn
from bench.searching import FOCUSED, Ending

Rows = Sequence[Mapping[str, Any]]

_SETTING = ("objective", "optics", "electrons", "scene", "start_um", "fields")
_FIGURES = ("median_um", "mean_um", "sd_um", "p95_um", "median_dof", "gross_failures", "silent_failures")
_BRIEF = (
    "setting",
    "images_mean",
    "outcomes",
    "median_um",
    "p95_um",
    "within_2_sigma",
    "most_sigmas",
    "worst_run",
    "gross_failures",
    "silent_failures",
    "silent_runs",
)


def print_errors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tables of errors, one a setting; returns the rows."""
    for group in _by_setting(rows):
        Console(width=150).print(_errors(group))
    return rows


def print_searches(reached: Rows, searches: Rows, released: Rows) -> None:
    """What was reached when, what the search does by itself, and the released protocol."""
    console = Console(width=150)
    console.print(_plain("images until half of the runs, and 95 %, stay within 0.1 depth of field", reached))
    brief = [{name: row[name] for name in _BRIEF} for row in searches]
    console.print(_plain("the posterior search by itself, at most 8 images", brief))
    console.print(
        _plain("the paper's released protocol (its figure: 0.30 ± 0.16 µm after 3 images)", released)
    )


def _by_setting(rows: Rows) -> list[list[Mapping[str, Any]]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in _SETTING), []).append(row)
    return list(groups.values())


def _errors(rows: Rows) -> Table:
    """One setting: errors by strategy and number of images."""
    title = ", ".join(f"{name} {rows[0][name]}" for name in _SETTING if rows[0].get(name) is not None)
    table = Table(title=f"{title}; n = {rows[0]['n']}")
    table.add_column("strategy")
    for name in ("images", *_FIGURES, "bound_um", "bound / median"):
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows:
        figures = [row["images"], *(row[name] for name in _FIGURES), row["bound_um"], efficiency(row)]
        table.add_row(row.get("planes", row["strategy"]), *map(shown, figures))
    return table


def efficiency(row: Mapping[str, Any]) -> float | None:
    """Bound over median error."""
    bound, median = row["bound_um"], row["median_um"]
    return bound / median if bound and median else None


def _plain(title: str, rows: Rows) -> Table:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(shown(value) for value in row.values()))
    return table


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}


def row_of(ending: Ending) -> dict[str, Any]:
    """For JSON: how one run ended."""
    return finite(
        {
            "exposures": ending.exposures,
            "error_um": ending.error_um,
            "sigma_um": ending.sigma_um,
            "outcome": ending.outcome,
        }
    )


def shown(value: object) -> str:
    """In a cell of a table."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "–"
    return "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def print_endings(drawn: Sequence[Drawn]) -> None:
    """How the searches ended, by scene; and each silent failure, so that it can be run again."""
    table = Table(title=f"{len(drawn)} searches that end by themselves, start within ±100 µm, 200 … 8,000 e⁻")
    for name in ("scene", "runs", "outcomes", "images", "median µm", "gross, focused or not", "silent"):
        table.add_column(name)
    for scene in dict.fromkeys(each.setting.scene for each in drawn):
        table.add_row(scene, *_scene([each.ending for each in drawn if each.setting.scene == scene]))
    console = Console(width=150)
    console.print(table)
    for each in drawn:
        if (end := each.ending).is_silent:
            console.print(
                f"run {each.seed}: {each.setting}: off by {end.error_um:.2f} µm, σ {end.sigma_um:.2f} µm"
            )


def _scene(endings: Sequence[Ending]) -> list[str]:
    outcomes = [e.outcome for e in endings]
    error_um = [abs(e.error_um) for e in endings if e.outcome == FOCUSED and np.isfinite(e.error_um)]
    return [
        str(len(endings)),
        ", ".join(f"{o} {outcomes.count(o)}" for o in sorted(set(outcomes))),
        f"{np.mean([e.exposures for e in endings]):.1f}",
        f"{np.median(error_um):.3f}" if error_um else "–",
        str(sum(e.is_gross for e in endings)),
        str(sum(e.is_silent for e in endings)),
    ]
