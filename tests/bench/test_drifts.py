"""The hold at constant drifts, one of them and for minutes: each rate gets its figures and its verdict."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from bench import soak
from bench.faults import drifts


def test_a_hold_without_drift_stays_in_focus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifts, "RATES_UM_PER_MIN", (0.0,))
    (row,) = drifts.run_drifts(0.1, 3, Console(quiet=True))
    assert row["ok"]
    assert row["um_per_min"] == 0.0
    assert row["exposures_per_hour"] > 0


def test_a_hold_that_loses_the_focus_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(*_: object) -> soak.Figures:
        return replace(soak.Figures("hold", 0.1, 0.1, 1.0, 10.0), in_focus=0.5)

    monkeypatch.setattr(soak, "_policy", lost)
    rows = drifts.run_drifts(1.0, 1, Console(quiet=True))
    assert [row["um_per_min"] for row in rows] == [0.0, 0.5, 1.0, 3.0, 6.0, 10.0, 20.0]
    assert not any(row["ok"] for row in rows)
