"""The posterior search: what it finds, what it refuses, and that nothing makes it leave its bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from focusd.errors import AmbiguousError, FocusdError, NoConvergenceError, NoSampleError, OutOfRangeError
from focusd.focus.calibration import Calibration
from focusd.focus.focus import Focus
from focusd.focus.knowledge import MIN_CERTAINTY
from focusd.focus.local import MAX_SIGMA_UNITS, local_map
from focusd.focus.measurement import Measurement, blocks_with_structure, tiles_with_structure
from focusd.focus.posterior import Prior
from focusd.focus.search import PosteriorSearch
from focusd.focus.stack import calibrate
from focusd.optics.bands import BlockSpectra
from tests.focus.exposures import BLOCK_PX, MODES, SPREAD, exposure

LIMITS_UM = (-150.0, 150.0)
TARGET_UM = 0.5
BUDGET = 8


def search_of(
    calibration: Calibration,
    *,
    limits_um: tuple[float, float] = LIMITS_UM,
    target_um: float = TARGET_UM,
    usable_um: float | None = None,
    verify: bool = True,
    prior: Prior | None = None,
) -> PosteriorSearch:
    return PosteriorSearch(
        calibration,
        limits_um,
        away_is_low=True,
        threshold=0.5,
        target_um=target_um,
        usable_um=usable_um,
        verify=verify,
        prior=prior,
    )


def on_more_tiles(seen: Measurement) -> Measurement:
    """The same even field, scored on 4×8 tiles."""
    b, sigma, structure = (np.full((4, 8), each.mean()) for each in (seen.b, seen.sigma, seen.structure))
    return replace(seen, b=b, sigma=sigma, structure=structure)


def run(search: PosteriorSearch, focus_um: float | NDArray[np.float64], start_um: float = 0.0) -> Focus:
    """Drive the search to its end on an ideal sample."""
    search.add(exposure(start_um, focus_um))
    while (z_um := search.next_z_um()) is not None:
        assert len(search.measurements) < BUDGET
        search.add(exposure(z_um, focus_um))
    return search.decide()


@pytest.mark.parametrize("focus_um", [-85.0, -31.4, -4.0, 0.0, 2.5, 17.0, 60.0, 90.0])
def test_the_focus_is_found_in_few_exposures(calibration: Calibration, focus_um: float) -> None:
    search = search_of(calibration)

    focus = run(search, focus_um)

    assert focus.z_um == pytest.approx(focus_um, abs=0.3)
    assert abs(focus.z_um - focus_um) <= 3 * focus.sigma_um
    assert focus.sigma_um <= TARGET_UM
    assert 2 <= len(search.measurements) <= 6


def test_it_ends_with_an_exposure_at_the_focus(calibration: Calibration) -> None:
    search = search_of(calibration)
    focus = run(search, 33.0)
    assert min(abs(o.z_um - focus.z_um) for o in search.measurements) < 3


def test_without_verification_two_planes_may_do(calibration: Calibration) -> None:
    search = search_of(calibration, target_um=2.0, verify=False)
    focus = run(search, 33.0)
    assert abs(focus.z_um - 33.0) <= 3 * focus.sigma_um <= 6.0
    assert len(search.measurements) == 2


def test_one_plane_never_does(calibration: Calibration) -> None:
    search = search_of(calibration, target_um=50.0, verify=False, prior=Prior(20.0, 0.1))
    for _ in range(3):
        search.add(exposure(0.0, 20.0))
        assert search.next_z_um() is not None
        with pytest.raises(NoConvergenceError):
            search.decide()


def test_a_warm_start_needs_no_more_than_a_cold_one(calibration: Calibration) -> None:
    cold, warm = search_of(calibration), search_of(calibration, prior=Prior(31.0, 3.0))
    run(cold, 33.0)
    focus = run(warm, 33.0)
    assert focus.z_um == pytest.approx(33.0, abs=0.3)
    assert len(warm.measurements) <= len(cold.measurements)


def test_without_a_budget_a_focus_that_is_of_use_is_better_than_none(calibration: Calibration) -> None:
    search, strict = (
        search_of(calibration, target_um=0.01, usable_um=2.0),
        search_of(calibration, target_um=0.01),
    )
    assert not search.is_usable, "before anything has been seen"
    for z_um in (0.0, 30.0, 20.0):
        for each in (search, strict):
            assert not each.is_usable, "not before it has been verified"
            each.add(exposure(z_um, 20.0))
    assert (search.satisfied, search.is_usable, strict.is_usable) == (False, True, False)
    focus = search.decide()
    assert focus.z_um == pytest.approx(20.0, abs=0.5)
    assert "the budget is spent" in focus.message
    assert 0.01 < focus.sigma_um <= focus.target_um == 2.0
    with pytest.raises(AmbiguousError):
        strict.decide()


def test_a_wrong_prior_is_overruled(calibration: Calibration) -> None:
    assert run(search_of(calibration, prior=Prior(-50.0, 2.0)), 33.0).z_um == pytest.approx(33.0, abs=0.3)


def test_an_empty_field_is_no_sample_after_three_exposures(calibration: Calibration) -> None:
    search = search_of(calibration)
    for number in range(3):
        seen = exposure(float(number), 5.0)
        search.add(
            Measurement(seen.z_um, seen.b, seen.sigma, 0 * seen.structure, seen.y_px, seen.x_px, seen.blocks)
        )
        if number < 2:
            assert search.next_z_um() is not None
    with pytest.raises(NoSampleError, match="nothing to focus on"):
        search.next_z_um()


def test_a_focus_that_cannot_be_reached_is_out_of_range(calibration: Calibration) -> None:
    search = search_of(calibration, limits_um=(-40.0, 40.0))
    with pytest.raises(
        OutOfRangeError, match=r"beyond the calibrated range or the stage's limits.*near 70"
    ) as told:
        run(search, 70.0)
    assert "start there" in told.value.message
    assert max(o.z_um for o in search.measurements) == pytest.approx(40.0, abs=0.5)


@pytest.mark.parametrize("verify", [False, True])
def test_a_focus_that_seems_beyond_reach_is_looked_for_before_it_is_refused(
    calibration: Calibration, verify: bool
) -> None:
    """A regular sample was once refused 9 µm from its focus: three spectra fitted the end of the range better."""
    search = search_of(calibration, verify=verify)
    with pytest.raises(OutOfRangeError, match="towards higher z"):
        run(search, 240.0)
    reached_um = max(o.z_um for o in search.measurements)
    assert reached_um == pytest.approx(100.0, abs=2.0), "the calibrated range's end"


@pytest.mark.parametrize("focus_um", [-112.0, 115.0])
def test_a_focus_beyond_the_range_of_the_start_is_found_from_planes_that_see_it(
    calibration: Calibration, focus_um: float
) -> None:
    search = search_of(calibration)
    assert run(search, focus_um).z_um == pytest.approx(focus_um, abs=0.5)


def test_the_local_map_shows_a_tilt(calibration: Calibration) -> None:
    tilted = 20.0 + np.linspace(-3, 3, 4)[None, :] + np.zeros((3, 1))

    focus = run(search_of(calibration), tilted)

    assert focus.local.focus_um == pytest.approx(tilted, abs=0.4)
    assert (np.abs(focus.local.focus_um - tilted) <= 4 * focus.local.sigma_um).all()


def test_a_weak_block_is_left_out_of_the_map(calibration: Calibration) -> None:
    def half_empty(z_um: float) -> Measurement:
        seen = exposure(z_um, 12.0)
        seen.blocks.power[0, 0] = seen.blocks.noise[0, 0]
        return seen

    search = search_of(calibration)
    search.add(half_empty(0.0))
    while (z_um := search.next_z_um()) is not None:
        search.add(half_empty(z_um))

    local = search.decide().local
    assert np.isnan(local.focus_um[0, 0])
    assert local.focus_um[1:] == pytest.approx(12.0, abs=0.3)


def test_a_block_that_hardly_knows_its_focus_is_left_out_of_the_map(calibration: Calibration) -> None:
    def faint_in_a_corner(z_um: float) -> Measurement:
        seen = exposure(z_um, 12.0, strength=100.0)
        signal = seen.blocks.power[0, 0] - seen.blocks.noise[0, 0]
        seen.blocks.power[0, 0] = seen.blocks.noise[0, 0] + 0.025 * signal
        return seen

    planes = [faint_in_a_corner(z_um) for z_um in (0.0, 6.0, 12.0)]
    local = local_map(planes, calibration, 12.0)
    assert blocks_with_structure(planes)[0, 0]
    assert np.isnan(local.focus_um[0, 0])
    assert (local.sigma_um[1:] <= MAX_SIGMA_UNITS * calibration.axial_unit_um).all()


def test_planes_that_show_different_objects_widen_sigma(calibration: Calibration) -> None:
    """The object's spectrum changes between frames: no transfer explains that, and σ has to say so."""
    same, changed = search_of(calibration), search_of(calibration)
    for number, z_um in enumerate((0.0, 15.0, 35.0)):
        seen = exposure(z_um, 30.0)
        same.add(seen)
        rng = np.random.default_rng(number)
        power = seen.blocks.power * np.exp(rng.normal(0, 1.0, MODES.shape))
        blocks = BlockSpectra(power, seen.blocks.noise, MODES, SPREAD, seen.y_px, seen.x_px, BLOCK_PX)
        changed.add(Measurement(z_um, seen.b, seen.sigma, seen.structure, seen.y_px, seen.x_px, blocks))
    assert changed.estimate.sigma_um > 3 * same.estimate.sigma_um


def test_a_field_that_nothing_explains_is_refused_after_six_exposures(calibration: Calibration) -> None:
    """As of phase objects, where a stained one was calibrated: bands rise and fall by turns."""
    search = search_of(calibration)

    def expose_until_refused(z_um: float | None) -> None:
        while z_um is not None:
            seen = exposure(z_um, 30.0)
            fringes = 0.05 + np.sin(1.5 * (z_um - 30.0) * np.linspace(0, 1, len(MODES)) ** 2) ** 2
            search.add(replace(seen, blocks=replace(seen.blocks, power=seen.blocks.power * fringes)))
            z_um = search.next_z_um()

    with pytest.raises(
        AmbiguousError, match="take it on a sample of this kind, with this objective and in this light"
    ):
        expose_until_refused(0.0)
    assert len(search.measurements) == 6


values = st.floats(0, 1.5)
powers = st.floats(1e-3, 1e9)


@st.composite
def measurements(draw: st.DrawFn, z_um: float) -> Measurement:
    """Any exposure: scores and spectra that need not belong together."""
    same = np.ones((1, 2))
    power = np.array(draw(st.lists(powers, min_size=4, max_size=4)))
    spread = np.exp(np.interp(np.arange(len(MODES)), np.linspace(0, len(MODES), 4), np.log(power)))
    blocks = BlockSpectra(
        spread * np.ones((1, 2, 1)), draw(powers) * same, MODES, SPREAD, same, same, BLOCK_PX
    )
    return Measurement(
        z_um,
        draw(values) * same,
        draw(st.floats(1e-3, 1.0)) * same,
        draw(st.floats(0, 1)) * same,
        same,
        same,
        blocks,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    start=st.floats(0, 1),
    limits=st.tuples(st.floats(-200, -5), st.floats(5, 200)),
    target_um=st.floats(0.05, 20),
    budget=st.integers(1, 6),
)
def test_whatever_it_sees_it_ends_inside_its_bounds(
    calibration: Calibration,
    data: st.DataObject,
    start: float,
    limits: tuple[float, float],
    target_um: float,
    budget: int,
) -> None:
    search = search_of(calibration, limits_um=limits, target_um=target_um)
    z_um: float | None = min(limits[0] + start * (limits[1] - limits[0]), limits[1])
    try:
        for _ in range(budget):
            assert z_um is not None
            assert limits[0] <= z_um <= limits[1]
            search.add(data.draw(measurements(z_um)))
            z_um = search.next_z_um()
            if z_um is None:
                break
        focus = search.decide()
    except FocusdError as error:
        outcome: str | None = error.outcome
    else:
        outcome = None
    if outcome is not None:
        assert outcome in ("no_sample", "out_of_range", "ambiguous", "hardware_error")
        return
    assert z_um is None
    assert focus.sigma_um <= target_um
    assert search.estimate.certainty >= MIN_CERTAINTY
    assert limits[0] <= focus.z_um <= limits[1]


@pytest.mark.parametrize("focus_um", [-31.4, 2.5, 60.0])
def test_what_it_says_is_likely_is_what_it_decides(calibration: Calibration, focus_um: float) -> None:
    search = search_of(calibration)
    z_um: float | None = 0.0
    told = 0
    while z_um is not None:
        seen = exposure(z_um, focus_um)
        likely_um = search.likely_um(z_um, seen.blocks)
        search.add(seen)
        z_um = search.next_z_um()
        if likely_um is not None:
            told += 1
            in_doubt = z_um is not None and search.is_verified
            expected_um = search.estimate.focus_um if z_um is None or in_doubt else z_um
            assert likely_um == pytest.approx(expected_um, abs=0.005 * calibration.axial_unit_um)
    assert told, "at the end it is known"


@pytest.mark.parametrize("focus_um", [-31.4, 2.5, 60.0])
def test_a_quarter_of_the_blocks_says_the_same_and_changes_nothing(
    calibration: Calibration, focus_um: float
) -> None:
    search = search_of(calibration)
    z_um: float | None = 0.0
    told = 0
    while z_um is not None:
        seen = exposure(z_um, focus_um)
        few_um, all_um = (search.likely_um(z_um, blocks) for blocks in (seen.blocks.thinned(), seen.blocks))
        if all_um is not None:
            told += 1
            assert few_um == pytest.approx(all_um, abs=0.1)
        search.add(seen)
        z_um = search.next_z_um()
    assert told
    assert search.estimate.focus_um == pytest.approx(focus_um, abs=0.1)


@pytest.mark.parametrize("focus_um", [-31.4, 4.0, 60.0])
def test_a_few_scored_tiles_tell_the_rest_of_a_field_that_shows_something_everywhere(
    calibration: Calibration, focus_um: float
) -> None:
    search = search_of(calibration)
    z_um: float | None = 0.0
    while z_um is not None:
        search.add(on_more_tiles(exposure(z_um, focus_um)).scored_on(search.telling_tiles()))
        z_um = search.next_z_um()
    assert [int(np.isfinite(o.b).sum()) for o in search.measurements[:3]] == [32, 8, 8]
    assert search.decide().z_um == pytest.approx(focus_um, abs=0.5)


def test_chosen_tiles_are_as_many_in_each_row_and_column_so_that_a_slope_does_not_count() -> None:
    search = search_of(calibrate([exposure(z) for z in np.arange(-100, 101, 4.0)], {}, 0.5)[0])
    assert search.telling_tiles() is None
    search.add(on_more_tiles(exposure(0.0, 31.4)))
    tiles = search.telling_tiles()
    assert tiles is not None
    assert set(tiles.sum(0)) == {1}
    assert set(tiles.sum(1)) == {2}


@pytest.mark.parametrize("empty", [(0, 0), (3, 5)])
def test_where_some_tiles_show_nothing_at_first_all_are_scored(
    calibration: Calibration, empty: tuple[int, int]
) -> None:
    seen = on_more_tiles(exposure(0.0, 31.4))
    seen.structure[empty] = 0.4
    search = search_of(calibration)
    search.add(seen)
    assert search.telling_tiles() is None


def test_of_a_field_of_few_tiles_all_are_scored(calibration: Calibration) -> None:
    search = search_of(calibration)
    search.add(exposure(0.0, 31.4))
    assert search.telling_tiles() is None, "three of twelve are too few"


def test_where_no_scored_tile_counts_all_scored_ones_do() -> None:
    few = np.zeros((3, 4), bool)
    few[1, 2] = True
    seen = exposure(0.0, 31.4).scored_on(few)
    assert seen.mean_b(~few) == seen.mean_b(few) == seen.b[1, 2]
    assert seen.mean_sigma(~few) == seen.sigma[1, 2]
    assert tiles_with_structure([exposure(0.0), seen], 0.5).all(), "who was not asked has no vote"


@pytest.mark.parametrize(
    ("away_is_low", "limits_um", "side"),
    [(True, LIMITS_UM, -1), (False, LIMITS_UM, 1), (True, (-3.0, 150.0), 1), (False, (-150.0, 3.0), -1)],
)
@pytest.mark.parametrize("focus_um", [2.5, 60.0])
def test_the_opening_is_away_from_the_sample_where_there_is_room(
    calibration: Calibration,
    away_is_low: bool,
    limits_um: tuple[float, float],
    side: int,
    focus_um: float,
) -> None:
    search = PosteriorSearch(calibration, limits_um, away_is_low=away_is_low, threshold=0.5, target_um=4.0)
    start_um, opening_um = search.opening_um(0.0)
    assert start_um == 0.0
    assert opening_um == pytest.approx(side * calibration.axial_unit_um)
    search.add(exposure(0.0, focus_um))
    assert search.next_z_um() == opening_um


def test_where_two_planes_may_do_the_first_score_decides_on_the_second(calibration: Calibration) -> None:
    asked = search_of(calibration, verify=False)
    assert asked.opening_um(0.0) == [0.0]
    asked.add(exposure(0.0, 60.0))
    assert asked.next_z_um() != search_of(calibration).opening_um(0.0)[1]


def test_a_focus_that_is_expected_is_exposed_last_so_that_no_move_comes_after_it(
    calibration: Calibration,
) -> None:
    search = search_of(calibration, prior=Prior(60.0, 0.5))
    beside_um, expected_um = search.opening_um(59.0)
    assert (beside_um, expected_um) == pytest.approx((60.0 - calibration.axial_unit_um, 60.0))
    for z_um in (beside_um, expected_um):
        search.add(exposure(z_um, 60.3))
    assert search.next_z_um() is None, "two exposures do, since the second one verifies what was expected"
    assert abs(search.decide().z_um - 60.3) < 0.3


def test_spectra_that_tell_too_little_alone_make_no_guess(calibration: Calibration) -> None:
    search = search_of(calibration)
    assert search.likely_um(0.0, exposure(0.0, 60.0).blocks) is None
    search.add(exposure(0.0, 60.0))
    assert search.likely_um(0.0, exposure(0.0, 60.0).blocks) is None


def test_a_calibration_too_coarse_for_the_opening_leaves_the_second_plane_to_the_first_score() -> None:
    """With planes 8 µm apart a search was refused after the opening that finds its focus without."""
    coarse = calibrate([exposure(z) for z in np.arange(-100, 101, 10.0)], {}, 0.5)[0]
    assert search_of(coarse).opening_um(0.0) == [0.0]
    assert run(search_of(coarse), 31.4).z_um == pytest.approx(31.4, abs=1.0)
