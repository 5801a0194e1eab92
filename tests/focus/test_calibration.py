"""From a stack to b_calib(z), and what it refuses."""

import dataclasses

import numpy as np
import pytest

from focusd.errors import CalibrationError, NoSampleError
from focusd.focus.calibration import Calibration
from focusd.focus.measurement import Measurement
from focusd.focus.planes import stack_um
from focusd.focus.stack import calibrate
from focusd.optics.instrument import Instrument
from tests.focus.exposures import Observe, exposure

PLANES = np.arange(-100, 101, 4.0)


def test_minimum_is_moved_to_the_origin_and_reported(observe: Observe) -> None:
    calibration, focus_um = calibrate([observe(500 + z, 505.5) for z in PLANES], {}, 0.5)
    assert focus_um == pytest.approx(505.5, abs=0.3)
    assert calibration.min_um == pytest.approx(-105.5, abs=0.3)
    assert calibration.r2 > 0.95
    assert 40 < calibration.fwhm_um < 200


def test_planes_may_come_in_any_order(observe: Observe) -> None:
    stack = [observe(z) for z in PLANES]
    assert calibrate(stack[::-1], {}, 0.5)[1] == calibrate(stack, {}, 0.5)[1]


def test_curve_passes_through_the_measured_points_and_is_constant_beyond(calibration: Calibration) -> None:
    assert calibration(calibration.z_um) == pytest.approx(calibration.b)
    assert calibration(np.array([1e4])) == pytest.approx(calibration.b[-1])


def test_axial_unit_follows_from_the_slope(calibration: Calibration) -> None:
    assert calibration.axial_unit_um == pytest.approx(0.0481 * 124, rel=0.25)


def test_another_instrument_is_refused_by_the_name_of_the_field(calibration: Calibration) -> None:
    calibration.check({"objective": "10x"})
    with pytest.raises(CalibrationError, match="objective was '10x', is '20x'"):
        calibration.check({"objective": "20x"})
    with pytest.raises(CalibrationError, match="binning"):
        calibration.check({"objective": "10x", "binning": 2})


def test_flat_scores_are_no_calibration(observe: Observe) -> None:
    rng = np.random.default_rng(1)
    stack = [observe(z) for z in PLANES]
    noise = [dataclasses.replace(o, b=rng.uniform(0, 1, o.b.shape)) for o in stack]
    with pytest.raises(CalibrationError, match="R²"):
        calibrate(noise, {}, 0.5)


def plateau(z_um: float, rng: np.random.Generator, focus_um: float = 0.0) -> Measurement:
    """As phase contrast looks: the score rises no further some axial units from the focus, and says anything there."""
    seen = exposure(z_um, focus_um)
    return (
        seen
        if abs(z_um - focus_um) <= 30.0
        else dataclasses.replace(seen, b=0 * seen.b + rng.uniform(0.1, 0.3))
    )


@pytest.mark.parametrize("focus_um", [0.0, 31.0])
def test_where_the_score_rises_no_further_the_curve_ends_and_the_spectra_go_on(focus_um: float) -> None:
    rng = np.random.default_rng(3)
    calibration, found_um = calibrate([plateau(z, rng, focus_um) for z in PLANES], {}, 0.5)
    assert found_um == pytest.approx(focus_um, abs=0.3)
    assert -45 < calibration.min_um < -20
    assert 20 < calibration.max_um < 45
    assert calibration.transfer.z_um == pytest.approx(PLANES - found_um)
    assert calibration.r2 > 0.9


def test_no_part_of_scores_that_say_nothing_passes_for_a_curve(observe: Observe) -> None:
    stack = [observe(z) for z in PLANES]
    for seed in range(100):
        rng = np.random.default_rng(seed)
        nothing = [dataclasses.replace(o, b=0 * o.b + rng.uniform(0, 1)) for o in stack]
        with pytest.raises(CalibrationError, match="R²"):
            calibrate(nothing, {}, 0.5)


def test_what_is_no_curve_says_which_range_the_objective_asks_for(observe: Observe) -> None:
    flat = [dataclasses.replace(o, b=0 * o.b + 0.4) for o in map(observe, PLANES)]
    objective = Instrument(magnification=40.0, na=0.75)
    with pytest.raises(CalibrationError, match="a range of about ±16 µm"):
        calibrate(flat, {}, 0.5, objective)


@pytest.mark.parametrize("vanishes", [True, False])
def test_a_sample_that_shows_nothing_at_its_focus_is_told_from_others(
    observe: Observe, vanishes: bool
) -> None:
    rng = np.random.default_rng(0)
    stack = [dataclasses.replace(o, b=0 * o.b + rng.uniform(0, 1)) for o in map(observe, PLANES)]
    if vanishes:
        nothing = stack[0].blocks.noise[..., None] + 0 * stack[0].blocks.power
        stack[25] = dataclasses.replace(
            stack[25], blocks=dataclasses.replace(stack[25].blocks, power=nothing)
        )
    with pytest.raises(CalibrationError) as refused:
        calibrate(stack, {}, 0.5)
    assert ("use phase contrast" in refused.value.message) == vanishes
    assert "a flat, textured, well exposed field" in refused.value.message


@pytest.mark.parametrize(
    ("instrument", "range_um", "step_um"),
    [
        (Instrument(magnification=10.0, na=0.3), 98.0, 3.9),
        (Instrument(magnification=40.0, na=0.75), 16.0, 0.63),
        (Instrument(magnification=60.0, na=1.4, immersion_index=1.515), 6.8, 0.27),
        (None, 98.0, 3.9),
    ],
)
def test_a_stack_is_as_deep_and_as_fine_as_the_objective_asks_for(
    instrument: Instrument | None, range_um: float, step_um: float
) -> None:
    assert stack_um(instrument) == (range_um, step_um)


def test_focus_at_the_edge_is_refused(observe: Observe) -> None:
    with pytest.raises(CalibrationError, match="edge of the stack"):
        calibrate([observe(z, 97.0) for z in PLANES], {}, 0.5)


def test_too_few_planes_are_refused(observe: Observe) -> None:
    with pytest.raises(CalibrationError, match="too few"):
        calibrate([observe(z) for z in (-8, -4, 0, 4, 8)], {}, 0.5)


def test_a_faint_sample_that_only_the_planes_near_its_focus_show_is_calibrated_on(observe: Observe) -> None:
    shown = {z_um: np.full((3, 4), 0.99 if abs(z_um) < 12 else 0.2) for z_um in PLANES}
    assert sum(bool((each > 0.5).all()) for each in shown.values()) < len(PLANES) / 2
    stack = [dataclasses.replace(observe(z), structure=shown[z]) for z in PLANES]
    calibration, focus_um = calibrate(stack, {}, 0.5)
    assert abs(focus_um) < 1.0
    assert calibration.reach_um > 20.0


def test_what_is_seen_by_chance_in_a_plane_or_two_is_no_sample(observe: Observe) -> None:
    stack = [
        dataclasses.replace(observe(z), structure=np.full((3, 4), 0.99 if number in (5, 40) else 0.2))
        for number, z in enumerate(PLANES)
    ]
    with pytest.raises(NoSampleError):
        calibrate(stack, {}, 0.5)


def test_empty_field_is_refused(observe: Observe) -> None:
    stack = [dataclasses.replace(observe(z), structure=np.zeros((3, 4))) for z in PLANES]
    with pytest.raises(NoSampleError):
        calibrate(stack, {}, 0.5)
