"""The published search: which plane next, when to stop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.focus.calibration import Calibration
from focusd.focus.published import (
    GOLDEN,
    Interval,
    PublishedSearch,
    first_interval,
    golden_section_point,
    is_convex,
    next_probe,
)
from tests.focus.exposures import exposure

FREE = (-1e4, 1e4)


def test_interval_is_two_fwhm_to_each_side_where_it_fits(calibration: Calibration) -> None:
    from dataclasses import replace

    narrow = replace(calibration, profile=replace(calibration.profile, width_um=10.0, power=1.0))
    interval = first_interval(7.0, narrow, FREE)
    assert (interval.low_um, interval.high_um) == pytest.approx((7 - 40, 7 + 40))
    assert interval.clipped == ""


def test_interval_is_clipped_to_the_calibrated_range_and_to_the_stage(calibration: Calibration) -> None:
    wide = first_interval(0.0, calibration, FREE)
    assert (wide.low_um, wide.high_um) == pytest.approx((calibration.min_um, calibration.max_um))
    assert wide.clipped == "calibrated range"
    tight = first_interval(0.0, calibration, (-50.0, 1e4))
    assert tight.low_um == -50.0
    assert tight.clipped == "calibrated range and stage limits"


def test_search_opens_with_the_start_and_the_end_away_from_the_sample() -> None:
    interval = Interval(0.0, -80.0, 80.0, "")
    assert next_probe(interval, [], away_is_low=True) == 0.0
    assert next_probe(interval, [(0.0, 0.3)], away_is_low=True) == -80.0
    assert next_probe(interval, [(0.0, 0.3)], away_is_low=False) == 80.0
    assert next_probe(interval, [(0.0, 0.3), (-80.0, 0.7)], away_is_low=True) == 80.0


def test_convex_scores_end_the_search() -> None:
    probes = [(0.0, 0.3), (-80.0, 0.9), (80.0, 0.5)]
    assert is_convex(probes)
    assert next_probe(Interval(0.0, -80.0, 80.0, ""), probes, away_is_low=True) is None


def test_scores_that_bend_down_or_not_at_all_call_for_a_golden_section_point() -> None:
    concave = [(0.0, 0.8), (-80.0, 0.9), (80.0, 0.2)]
    assert not is_convex(concave)
    assert not is_convex([(0.0, 0.5), (-80.0, 0.7), (80.0, 0.3)])
    z = next_probe(Interval(0.0, -80.0, 80.0, ""), concave, away_is_low=True)
    assert z == pytest.approx(80 - GOLDEN * 80)


def test_golden_section_takes_the_wider_side_of_the_lowest_score() -> None:
    assert golden_section_point([(0.0, 0.9), (10.0, 0.1), (40.0, 0.9)]) == pytest.approx(10 + GOLDEN * 30)
    assert golden_section_point([(0.0, 0.9)]) is None


scores = st.lists(st.floats(0, 1), min_size=60, max_size=60)


@given(scores=scores, start=st.floats(-100, 100), away_is_low=st.booleans(), low=st.floats(-150, -1))
def test_any_scores_end_the_search_inside_the_interval(
    scores: list[float], start: float, away_is_low: bool, low: float
) -> None:
    interval = Interval(start, start + low, start + 120.0, "")
    probes: list[tuple[float, float]] = []
    for b in scores:
        z = next_probe(interval, probes, away_is_low)
        if z is None:
            break
        assert interval.low_um <= z <= interval.high_um
        assert all(abs(z - other) > 0 for other, _ in probes)
        probes.append((z, b))
    assert len({round(z, 9) for z, _ in probes}) == len(probes)
    assert np.isfinite([z for z, _ in probes]).all()


@pytest.mark.parametrize("limits_um", [FREE, (0.0, 1e4)])
def test_the_opening_planes_are_known_before_the_first_score(
    calibration: Calibration, limits_um: tuple[float, float]
) -> None:
    search = PublishedSearch(calibration, limits_um, away_is_low=True, threshold=0.5)
    for z_um in (planes_um := search.opening_um(0.0)):
        search.add(exposure(z_um, 21.0))
        following_um = search.next_z_um()
        if len(search.measurements) < len(planes_um):
            assert following_um == planes_um[len(search.measurements)]
    assert len(set(planes_um)) == len(planes_um) >= 2
