"""From scores to the position of the focus."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.focus.calibration import Calibration
from focusd.focus.shift import locate
from focusd.focus.stack import calibrate
from tests.focus.exposures import Observe

LIMITS = (-1000.0, 1000.0)
ALL = np.ones((3, 4), dtype=bool)


def test_three_planes_give_the_focus_without_a_grid_quantum(
    calibration: Calibration, observe: Observe
) -> None:
    for focus_um in (-33.21, 0.07, 12.345, 58.9):
        shift = locate([observe(z, focus_um) for z in (0.0, -40.0, 40.0)], calibration, ALL, LIMITS)
        assert shift.focus_um == pytest.approx(focus_um, abs=0.1)
        assert shift.sigma_um < 3
        assert not shift.at_edge


def test_two_planes_give_the_sign(calibration: Calibration, observe: Observe) -> None:
    for focus_um in (-40.0, 40.0):
        shift = locate([observe(z, focus_um) for z in (0.0, 20.0)], calibration, ALL, LIMITS)
        assert shift.focus_um == pytest.approx(focus_um, abs=0.2)


def test_one_plane_leaves_the_sign_open_and_says_so(calibration: Calibration, observe: Observe) -> None:
    assert locate([observe(0.0, 40.0)], calibration, ALL, LIMITS).sigma_um > 30


def test_local_map_follows_a_tilt(calibration: Calibration, observe: Observe) -> None:
    plane = np.linspace(-6, 6, 4)[None, :].repeat(3, 0) + 20
    shift = locate([observe(z, plane) for z in (0.0, -60.0, 60.0)], calibration, ALL, LIMITS)
    assert shift.local.focus_um == pytest.approx(plane, abs=0.2)
    assert shift.focus_um == pytest.approx(20, abs=0.2)


def test_tiles_without_structure_do_not_count(calibration: Calibration, observe: Observe) -> None:
    seen = ALL.copy()
    seen[0, 0] = False
    exposures = [observe(z, 25.0) for z in (0.0, -60.0, 60.0)]
    for exposure in exposures:
        exposure.b[0, 0] = 0.9
    shift = locate(exposures, calibration, seen, LIMITS)
    assert shift.focus_um == pytest.approx(25.0, abs=0.2)
    assert np.isnan(shift.local.focus_um[0, 0])


def test_focus_beyond_the_limits_is_told(calibration: Calibration, observe: Observe) -> None:
    assert locate([observe(z, 60.0) for z in (0.0, 20.0)], calibration, ALL, (-50.0, 50.0)).at_edge


def test_contradicting_scores_widen_sigma(calibration: Calibration, observe: Observe) -> None:
    good = [observe(z, 10.0) for z in (0.0, -60.0, 60.0)]
    bad = [*good[:2], dataclasses.replace(good[2], b=good[2].b + 0.3)]
    assert (
        locate(bad, calibration, ALL, LIMITS).sigma_um > 3 * locate(good, calibration, ALL, LIMITS).sigma_um
    )


@given(focus_um=st.floats(-60, 60), start_um=st.floats(-500, 500))
def test_the_origin_of_z_does_not_matter(focus_um: float, start_um: float) -> None:
    from tests.focus.exposures import exposure

    calibration, _ = calibrate([exposure(z) for z in np.arange(-100, 101, 4.0)], {}, 0.5)
    probes = [exposure(start_um + dz, start_um + focus_um) for dz in (0.0, -80.0, 80.0)]
    shift = locate(probes, calibration, ALL, (-2000.0, 2000.0))
    assert shift.focus_um - start_um == pytest.approx(focus_um, abs=0.3)
