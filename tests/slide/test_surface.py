"""A surface through measured positions: what it says elsewhere, and how sure it is."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusd.slide.surface import MOST, Array, Surface, fit_surface

SIGMA_UM = 0.2
HALF_UM = 10_000.0


def slide(seed: int, bow_um: float) -> tuple[Array, Array, Array, Array]:
    """Positions on a tilted, bowed slide: measured (n = 60) and others, each as (xy, true z)."""
    rng = np.random.default_rng(seed)
    tilt = rng.normal(0, 0.002, 2)
    waves, phases, heights = rng.normal(0, 1 / 8000, (6, 2)), rng.uniform(0, 6.3, 6), rng.normal(0, bow_um, 6)
    measured, others = rng.uniform(-HALF_UM, HALF_UM, (2, 60, 2))

    def z(xy: Array) -> Array:
        return np.asarray(500 + xy @ tilt + (heights * np.cos(xy @ waves.T + phases)).sum(1) / np.sqrt(3))

    return measured, z(measured), others, z(others)


def fitted(seed: int, count: int, bow_um: float) -> tuple[Surface, Array, Array]:
    """The surface through the first positions, measured with noise; and others with their true z."""
    xy, z, others, truth = slide(seed, bow_um)
    noise = np.random.default_rng(seed).normal(0, SIGMA_UM, count)
    return fit_surface(xy[:count], z[:count] + noise, np.full(count, SIGMA_UM)), others, truth


def all_of(xy_um: Array, z_um: Array, sigma_um: Array) -> Surface:
    """The surface through all positions, whether they agree or not."""
    return Surface(xy_um, z_um, sigma_um, np.ones(len(z_um), np.bool_))


def pulls(count: int, bow_um: float) -> Array:
    """Errors in units of the stated uncertainty, over 30 slides."""
    values = []
    for seed in range(30):
        surface, others, truth = fitted(seed, count, bow_um)
        z, sigma = surface.predict(others)
        values.append((z - truth) / sigma)
    return np.abs(np.concatenate(values))


@pytest.mark.parametrize("bow_um", [0.0, 2.0, 8.0])
@pytest.mark.parametrize("count", [1, 2, 4, 9, 20])
def test_the_uncertainty_holds_from_the_first_position_on(count: int, bow_um: float) -> None:
    off = pulls(count, bow_um)

    assert np.mean(off < 2) > 0.92
    assert np.mean(off < 4) > 0.98


def test_on_a_level_slide_a_few_positions_are_enough() -> None:
    surface, others, truth = fitted(1, 9, 0.0)
    z, sigma = surface.predict(others)

    assert np.sqrt(np.mean((z - truth) ** 2)) < 0.4
    assert np.median(sigma) < 0.5


def test_the_slopes_are_told_in_mrad() -> None:
    xy, *_ = slide(1, 0.0)
    surface = fit_surface(xy[:20], 500 + xy[:20] @ [0.002, -0.001], np.full(20, SIGMA_UM))
    slopes, sigma = surface.slopes()

    assert slopes == pytest.approx([2.0, -1.0], abs=0.05)
    assert (sigma < 0.2).all()


def test_the_uncertainty_grows_away_from_the_positions() -> None:
    surface, *_ = fitted(2, 12, 2.0)
    away_um = np.array([[0.0, 2e4], [0.0, 5e4], [0.0, 2e5]])

    sigma = surface.predict(np.vstack([surface.xy_um[:1], away_um]))[1]

    assert (np.diff(sigma) > 0).all()
    assert sigma[0] < 2 * SIGMA_UM


@pytest.mark.parametrize("off_um", [-40.0, 15.0, 300.0])
@pytest.mark.parametrize("count", [8, 15])
def test_one_bad_position_is_left_out_and_changes_nothing(count: int, off_um: float) -> None:
    xy, z, others, _ = slide(3, 2.0)
    bad = z[:count].copy()
    bad[2] += off_um
    sigma = np.full(count, SIGMA_UM)
    good = np.arange(count) != 2

    surface = fit_surface(xy[:count], bad, sigma)
    without = fit_surface(xy[:count][good], z[:count][good], sigma[good])

    assert (surface.kept == good).all()
    np.testing.assert_allclose(surface.predict(others), without.predict(others))


def test_few_positions_cannot_tell_which_is_bad_and_none_is_then_trusted() -> None:
    xy, z, others, _ = slide(3, 0.0)
    bad = z[:5].copy()
    bad[2] += 30.0
    sigma = np.full(5, SIGMA_UM)

    surface = fit_surface(xy[:5], bad, sigma)

    assert surface.kept.all()
    assert (2 * surface.predict(others)[1] > 4.0).all(), "beyond half the depth of field of a 10×/0.3"
    assert np.median(fit_surface(xy[:5], z[:5], sigma).predict(others)[1]) < 1.0, "it is the bad one's doing"


def test_what_the_others_expect_is_what_they_say_alone() -> None:
    surface, *_ = fitted(4, 15, 2.0)
    expected, sigma = surface.expected

    for i in range(15):
        others = np.arange(15) != i
        alone = all_of(surface.xy_um[others], surface.z_um[others], surface.sigma_um[others])
        mean, spread = alone.predict(surface.xy_um[i : i + 1])
        # The plane is centred on other positions, so its prior is not quite the same.
        assert expected[i] == pytest.approx(mean[0], abs=0.05 * sigma[i])
        assert sigma[i] == pytest.approx(np.hypot(spread[0] / alone.widening, SIGMA_UM), rel=0.05)


def test_the_next_position_is_where_it_tells_most() -> None:
    rng = np.random.default_rng(5)
    measured = rng.uniform([-10e3, -10e3], [-2e3, 10e3], (12, 2))
    surface = fit_surface(measured, rng.normal(0, 1, 12), np.full(12, SIGMA_UM))
    candidates = np.array([measured[0] + 50, *[[x, y] for x in (6e3, 8e3, 1e4) for y in (-2e3, 0, 2e3)]])

    best = surface.best_of(candidates)

    assert best != 0, "beside a measured one nothing new is found"
    left_um2 = []
    for candidate in candidates:
        z = surface.predict(candidate[None])[0]
        more = all_of(np.vstack([measured, candidate]), np.append(surface.z_um, z), np.full(13, SIGMA_UM))
        left_um2.append(float((more.predict(candidates)[1] ** 2).sum()))
    assert left_um2[best] < 1.1 * min(left_um2), "as found by trying them all"


places = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
positions = st.tuples(places, st.floats(-1e6, 1e6), st.floats(1e-300, 1e4))


@settings(deadline=None)
@given(measured=st.lists(positions, min_size=1, max_size=12), asked=st.lists(places, min_size=1, max_size=5))
def test_any_positions_give_finite_numbers(
    measured: list[tuple[tuple[float, float], float, float]], asked: list[tuple[float, float]]
) -> None:
    xy, z, sigma = (np.array(values, np.float64) for values in zip(*measured, strict=True))
    surface = fit_surface(xy, z, sigma)

    predicted, uncertain = surface.predict(np.array(asked))

    assert np.isfinite(predicted).all()
    assert np.isfinite(uncertain).all()
    assert (uncertain >= 0).all()
    assert 0 <= surface.best_of(np.array(asked)) < len(asked)
    assert surface.kept.sum() >= len(z) - len(z) // 7


def dense(seed: int, count: int, bow_um: float) -> tuple[Array, Array, Array, Array]:
    """Positions measured with noise on a bowed slide, and 60 others with their true z."""
    rng = np.random.default_rng(seed)
    waves, phases, heights = rng.normal(0, 1 / 8000, (6, 2)), rng.uniform(0, 6.3, 6), rng.normal(0, bow_um, 6)
    xy = rng.uniform(-HALF_UM, HALF_UM, (count + 60, 2))
    z = 500 + xy @ rng.normal(0, 0.002, 2) + (heights * np.cos(xy @ waves.T + phases)).sum(1) / np.sqrt(3)
    return xy[:count], z[:count] + rng.normal(0, SIGMA_UM, count), xy[count:], z[count:]


@pytest.mark.parametrize("bow_um", [0.0, 8.0])
def test_a_thousand_positions_are_told_as_well_as_a_hundred(bow_um: float) -> None:
    off, spread = [], []
    for seed in range(2):
        xy, z, others, truth = dense(seed, 1000, bow_um)
        surface = fit_surface(xy, z, np.full(1000, SIGMA_UM))
        predicted, sigma = surface.predict(others)
        off.append(np.abs(predicted - truth) / sigma)
        spread.append(sigma)
        assert surface.used.sum() <= MOST
        assert surface.kept.mean() > 0.98
    assert np.mean(np.concatenate(off) < 2) > 0.92
    assert np.mean(np.concatenate(off) < 4) > 0.98
    assert np.median(np.concatenate(spread)) < SIGMA_UM


def test_of_a_thousand_positions_the_bad_ones_are_found_whether_or_not_they_make_the_surface() -> None:
    xy, z, *_ = dense(1, 1000, 2.0)
    bad = np.arange(1000) % 50 == 7
    surface = fit_surface(xy, z + 40.0 * bad, np.full(1000, SIGMA_UM))
    assert (surface.kept == ~bad).mean() > 0.98
    assert not surface.kept[bad].any()


def test_a_thousand_positions_that_contradict_each_other_are_soon_known_to_say_nothing() -> None:
    rng = np.random.default_rng(2)
    xy, z = rng.uniform(-HALF_UM, HALF_UM, (1000, 2)), rng.uniform(-100, 100, 1000)
    began_s = time.process_time()
    surface = fit_surface(xy, z, np.full(1000, 0.05))
    _, sigma = surface.predict(xy[:1])
    assert time.process_time() - began_s < 5.0, "inverting for each position that is left out takes minutes"
    assert surface.kept.all()
    assert sigma[0] > 20.0


def test_what_was_measured_last_makes_a_difference_on_a_full_map() -> None:
    xy, z, others, truth = dense(3, 1000, 8.0)
    full = fit_surface(xy, z, np.full(1000, SIGMA_UM))
    place = int(np.argmax(full.predict(others)[1]))
    before = full.predict(others[[place]])[1][0]

    more = fit_surface(
        np.vstack([xy[1:], others[[place]]]), np.append(z[1:], truth[place]), np.full(1000, SIGMA_UM)
    )

    assert more.predict(others[[place]])[1][0] < before
