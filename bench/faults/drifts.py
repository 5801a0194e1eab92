"""The hold at constant drifts, with a step an hour: the soak's own run, at each rate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import anyio
from rich.console import Console
from rich.table import Table

from bench import soak

RATES_UM_PER_MIN = (0.0, 0.5, 1.0, 3.0, 6.0, 10.0, 20.0)
STEP_UM = 5.0
IN_FOCUS = 0.98
"""Of the time within half a depth of field, the first minute included."""


def run_drifts(hours: float, seed: int, console: Console) -> list[dict[str, Any]]:
    """Hold at each rate for so many simulated hours; print and return the figures."""
    rows = [_held(rate, hours, seed) for rate in RATES_UM_PER_MIN]
    table = Table(
        "µm/min", "in focus", "RMS, DOF", "exposures/h", title=f"the hold, {hours:g} h at each drift"
    )
    for row in rows:
        figures = f"{row['in_focus']:.2%}", f"{row['rms_dof']:.3f}", f"{row['exposures_per_hour']:.0f}"
        table.add_row(f"{row['um_per_min']:g}", *figures)
    console.print(table)
    return rows


def _held(um_per_min: float, hours: float, seed: int) -> dict[str, Any]:
    held = soak.Soak(hours, um_per_min, STEP_UM, "cells", seed, None)
    figures = anyio.run(soak._policy, held, lambda bench: soak._hold(bench, []), {})
    return {"um_per_min": um_per_min, **asdict(figures), "ok": figures.in_focus >= IN_FOCUS}
