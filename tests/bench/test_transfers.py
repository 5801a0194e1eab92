"""Interpolated transfer functions are those of the pupil; the rig's scenes are what they say."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.rig import Rig
from bench.setting import OBJECTIVES, Setting, few_beads
from bench.transfers import exact_transfer, transfer


@pytest.mark.parametrize("objective", ["10x/0.3", "60x/1.4 oil"])
@pytest.mark.parametrize("units", [0.03, -1.77])
def test_interpolation_changes_nothing(objective: str, units: float) -> None:
    setting = Setting(objective)
    z_um = units * setting.instrument.axial_unit_um
    exact = exact_transfer(OBJECTIVES[objective], "aberrated", z_um)
    assert float((transfer(setting, z_um) - exact).abs().max()) < 2e-6


def texture() -> np.ndarray:
    return np.random.default_rng(0).random((512, 512)).astype(np.float32)


def contrast(frame: np.ndarray, columns: slice) -> float:
    part = frame[:, columns].astype(float)
    return float(part.std() / part.mean())


def test_a_tilted_field_is_sharp_where_the_plane_cuts_it() -> None:
    setting = Setting(scene="tilted")
    level, tilted = (
        Rig(s, texture(), 0.0, seed=1).expose(2.5) for s in (replace(setting, scene="plain"), setting)
    )
    left, right = slice(0, 128), slice(384, 512)
    assert contrast(tilted, right) > 1.1 * contrast(level, right)
    assert contrast(tilted, left) < 0.9 * contrast(level, left)


def test_a_drifting_focus_has_moved_by_each_further_exposure() -> None:
    rig = Rig(Setting(scene="drifting"), texture(), 5.0, seed=1, drift_um=0.5)
    for expected_um in (5.0, 5.5, 6.0):
        rig.expose(0.0)
        assert rig.focus_um == expected_um


def test_a_sparse_field_is_almost_empty() -> None:
    beads = few_beads(np.random.default_rng(1))
    assert 10 < (beads > 0).sum() < 0.002 * beads.size
    assert beads.max() <= 1


def test_light_that_bleaches_and_flickers_is_another_at_each_exposure() -> None:
    def levels(**light: Any) -> list[float]:
        rig = Rig(Setting(scene="flickering"), texture(), 0.0, seed=1, **light)
        return [float(rig.expose(0.0).mean()) for _ in range(3)]

    steady, bleaching, flickering = levels(), levels(bleaching=0.1), levels(flicker=0.1)
    assert np.ptp(steady) < 0.002 * steady[0]
    assert bleaching[2] / bleaching[0] == pytest.approx(0.81, rel=0.01)
    assert np.ptp(flickering) > 0.02 * flickering[0]
