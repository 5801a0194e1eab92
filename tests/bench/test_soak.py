"""A soak of minutes: the drift is the same for all policies, and the figures say what a reader relies on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import soak
from bench.drifting import Drift, Kind


def test_the_same_seed_drifts_the_same_way_at_the_stated_speed() -> None:
    drift = Drift.seeded(8.0, 1.0, 5.0, seed=3)
    again = Drift.seeded(8.0, 1.0, 5.0, seed=3)
    other = Drift.seeded(8.0, 1.0, 5.0, seed=4)
    np.testing.assert_array_equal(drift.focus_um, again.focus_um)
    assert not np.array_equal(drift.focus_um, other.focus_um)
    per_min = np.abs(np.subtract(drift.focus_um[60:], drift.focus_um[:-60]))
    assert np.median(per_min) == pytest.approx(1.0, abs=0.1)
    steps = np.abs(np.diff(drift.focus_um)) > 4
    assert 2 <= steps.sum() <= 20
    assert drift.empty.any()


def test_a_short_soak_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "INTERVALS_S", (120.0, 300.0))
    file = tmp_path / "soak.json"
    soak.run_soak(soak.Soak(0.5, 1.0, 5.0, "cells", 1, 0.5), tmp_path, file)
    figures = json.loads(file.read_text(encoding="utf-8"))
    hold, none, interval = figures["policies"]
    assert [p["name"] for p in figures["policies"]] == ["hold", "none", "interval"]
    assert set(hold) == {"name", "rms_dof", "p95_dof", "in_focus", "exposures_per_hour", "interval_s"}
    assert none["exposures_per_hour"] == 0
    assert hold["rms_dof"] < 0.25 < none["rms_dof"]
    assert hold["in_focus"] > 0.95
    assert interval["exposures_per_hour"] > 30
    assert abs(figures["fd_growth"]) <= 2
    assert len(figures["rss_mb"]) == len(figures["fds"]) >= 4
    with Image.open(tmp_path / "soak.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 100


@pytest.mark.parametrize(
    ("kind", "rates"),
    [
        ("constant", [6.0, 6.0, 6.0]),
        ("late", [0.0, 6.0, 6.0]),
        ("reversals", [6.0, -6.0, 6.0]),
        ("sine", [6.0, 6.0, 6.0]),
    ],
)
def test_a_drift_changes_as_it_is_asked_to(kind: Kind, rates: list[float]) -> None:
    drift = Drift.seeded(3.0, 6.0, 0.0, seed=1, kind=kind)
    begun = [float(drift.focus_um[at + 61] - drift.focus_um[at + 1]) for at in (0, 3600, 7200)]
    assert begun == pytest.approx(rates, abs=0.5)
    assert np.abs(np.diff(drift.focus_um)).max() < 0.2, "no steps were asked for"


def test_the_hold_keeps_focus_at_each_rate_and_says_locked_only_then(tmp_path: Path) -> None:
    """In the empty moment the drift comes not quite to the hold's reach, and is followed through it."""
    file = tmp_path / "rates.json"
    soak.run_rates(soak.Soak(0.25, 0.0, 0.0, "cells", 1, 0.4, drift="constant"), [-6.0, 12.0], file)
    rates = json.loads(file.read_text(encoding="utf-8"))["rates"]
    assert [at["velocity_um_per_min"] for at in rates] == [-6.0, 12.0]
    for at in rates:
        assert at["in_focus"] > 0.98
        assert at["settled"] > 0.99
        # The empty moment lasts two of the fifteen minutes, and after a failed check only a good one locks again.
        assert at["locked"] > 1 - (120 + 60 + 20) / 900
        assert at["mistaken"] < 0.01
