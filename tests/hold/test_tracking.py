"""The drift estimate: honest about itself, quick after a step, and a change of sharpness told from noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusd.hold.tracking import DriftModel, DriftTracker, SharpnessWatch

MODEL = DriftModel(velocity_um_per_s=10 / 60, step_um=5.0)

gaps_s = st.lists(st.floats(0.0, 3600.0), min_size=1, max_size=30)
places_um = st.floats(-1000.0, 1000.0)
sigmas_um = st.floats(0.05, 10.0)


def tracked(
    velocity_um_per_s: float, checks: int, sigma_um: float, seed: int, every_s: float = 120.0
) -> DriftTracker:
    """A steady drift, checked at even intervals with noise."""
    rng, tracker = np.random.default_rng(seed), DriftTracker(MODEL)
    for number in range(checks):
        time_s = number * every_s
        tracker.check(time_s, velocity_um_per_s * time_s + rng.normal(0, sigma_um), sigma_um)
    return tracker


@given(gaps=gaps_s, data=st.data())
def test_the_uncertainty_stays_a_finite_covariance_whatever_comes(
    gaps: list[float], data: st.DataObject
) -> None:
    tracker, time_s = DriftTracker(MODEL), 0.0
    tracker.check(0.0, 0.0, 1.0)
    for gap_s in gaps:
        time_s += gap_s
        event = data.draw(st.sampled_from(["check", "quiet", "surprised"]))
        if event == "check":
            tracker.check(time_s, data.draw(places_um), data.draw(sigmas_um))
        elif event == "quiet":
            tracker.quiet(time_s, data.draw(sigmas_um))
        else:
            tracker.surprised(time_s)
        assert tracker.estimate is not None
        covariance = tracker.estimate.covariance
        assert np.isfinite(tracker.estimate.mean).all()
        assert (np.linalg.eigvalsh(covariance).min(1) >= -1e-9 * np.trace(covariance, axis1=1, axis2=2)).all()
        assert tracker.estimate.weight.sum() == pytest.approx(1.0)
        assert 0 <= tracker.estimate.step_chance <= 1


@given(ahead_s=st.lists(st.floats(0.0, 7200.0), min_size=2, max_size=20), sigma_um=sigmas_um)
def test_without_checks_the_uncertainty_only_grows(ahead_s: list[float], sigma_um: float) -> None:
    tracker = DriftTracker(MODEL)
    tracker.check(0.0, 3.0, sigma_um)
    sigmas = tracker.sigma_um(np.sort(ahead_s))
    assert (np.diff(sigmas) >= -1e-9).all()
    assert sigmas[0] >= sigma_um * (1 - 1e-9)


@settings(max_examples=30)
@given(velocity=st.floats(-30.0, 30.0), seed=st.integers(0, 1000))
def test_a_steady_drift_is_learnt_and_foretold(velocity: float, seed: int) -> None:
    tracker = tracked(velocity / 60, checks=20, sigma_um=0.3, seed=seed)
    end_s = 19 * 120.0
    assert 60 * tracker.velocity_um_per_s == pytest.approx(velocity, abs=0.5)
    assert tracker.focus_um(end_s + 300) == pytest.approx(velocity / 60 * (end_s + 300), abs=3.0)


def test_the_stated_uncertainty_covers_the_errors_it_makes() -> None:
    """Over many drifts of the model's own kind, steps left out: two sigma hold in about 95 % of all cases."""
    inside = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        velocity = rng.normal(0, MODEL.velocity_um_per_s)
        tracker = tracked(velocity, checks=5, sigma_um=0.5, seed=seed)
        time_s = 4 * 120.0 + 120
        error_um = tracker.focus_um(time_s) - velocity * time_s
        inside.append(abs(error_um) <= 2 * tracker.sigma_um(time_s))
    assert np.mean(inside) >= 0.93


@settings(max_examples=30)
@given(step_um=st.floats(5.0, 25.0), up=st.booleans(), seed=st.integers(0, 1000))
def test_a_step_is_found_by_one_check_and_told_from_a_turn_by_another(
    step_um: float, up: bool, seed: int
) -> None:
    tracker = tracked(1 / 60, checks=12, sigma_um=0.3, seed=seed)
    before = tracker.velocity_um_per_s
    time_s, step_um = 12 * 120.0, step_um if up else -step_um
    tracker.check(time_s, time_s / 60 + step_um, 0.3)
    assert tracker.focus_um(time_s) == pytest.approx(time_s / 60 + step_um, abs=1.0)
    time_s += 60.0
    tracker.check(time_s, time_s / 60 + step_um, 0.3)
    assert abs(60 * (tracker.velocity_um_per_s - before)) < 0.5, "its velocity is not taken for the step's"


def test_a_calm_rig_is_found_out_and_asked_less_often() -> None:
    rng = np.random.default_rng(1)
    calm, lively = DriftTracker(MODEL), DriftTracker(MODEL)
    velocity = place_um = 0.0
    for number in range(40):
        velocity += rng.normal(0, 1 / 60)
        place_um += velocity * 120.0
        calm.check(number * 120.0, rng.normal(0, 0.1), 0.1)
        lively.check(number * 120.0, place_um, 0.1)
    ahead_s = 39 * 120.0 + 600
    assert calm.sigma_um(ahead_s) < lively.sigma_um(ahead_s) / 1.5


def test_sharp_frames_bound_the_uncertainty_and_a_blurred_one_opens_it() -> None:
    sigmas = {}
    for kind in ("none", "quiet", "surprised"):
        tracker = tracked(0.0, checks=10, sigma_um=0.3, seed=1)
        now_s = 9 * 120.0 + 900
        if kind == "quiet":
            tracker.quiet(now_s, 0.5)
        elif kind == "surprised":
            tracker.surprised(now_s)
        sigmas[kind] = float(tracker.sigma_um(now_s))
    assert sigmas["quiet"] < sigmas["none"] < sigmas["surprised"]
    assert sigmas["surprised"] > MODEL.step_um / 2


def test_a_thousand_sharp_frames_claim_no_more_than_one() -> None:
    tracker = tracked(0.0, checks=10, sigma_um=0.5, seed=1)
    for number in range(1000):
        tracker.quiet(9 * 120.0 + 900 + number, 0.5)
    assert tracker.estimate is not None
    assert (tracker.estimate.covariance[:, 0, 0] >= 0.5**2 * (1 - 1e-9)).all()


def test_a_turn_is_learnt_within_a_few_checks_even_where_each_looks_like_a_step() -> None:
    tracker = tracked(1 / 60, checks=30, sigma_um=0.3, seed=1)
    time_s = 29 * 120.0
    turned_um = time_s / 60
    for _ in range(6):
        time_s += 200.0
        turned_um -= 200 / 60
        tracker.surprised(time_s)
        tracker.check(time_s, turned_um, 0.3)
    assert 60 * tracker.velocity_um_per_s == pytest.approx(-1.0, abs=0.4)


@given(noise=st.floats(0.0, 0.01), seed=st.integers(0, 1000))
def test_a_loss_of_sharpness_is_told_from_the_noise_of_the_field(noise: float, seed: int) -> None:
    rng, watch = np.random.default_rng(seed), SharpnessWatch()
    assert not any(watch.is_drop(3.0 * (1 + rng.normal(0, noise))) for _ in range(30))
    assert watch.is_drop(3.0 * 0.8)
    assert watch.is_trusted


def test_a_slow_loss_between_two_checks_is_not_got_used_to() -> None:
    watch = SharpnessWatch()
    assert any(watch.is_drop(3.0 * (1 - 0.002 * number)) for number in range(60))


def test_a_step_right_after_a_check_is_seen_by_the_first_frame() -> None:
    watch = SharpnessWatch()
    watch.is_drop(3.0)
    watch.checked(stepped=0.1)
    assert watch.is_drop(2.5)


def test_a_drop_that_was_no_step_means_another_field_to_begin_anew_with() -> None:
    watch = SharpnessWatch()
    watch.is_drop(3.0)
    assert watch.is_drop(2.0)
    watch.checked(stepped=0.1)
    assert not watch.is_drop(2.0)
    assert watch.is_drop(1.5)


def test_frames_that_showed_no_step_are_not_trusted_again() -> None:
    watch = SharpnessWatch()
    for _ in range(4):
        watch.is_drop(3.0)
    assert watch.is_trusted
    watch.checked(stepped=0.1)
    watch.is_drop(3.0)
    watch.checked(stepped=1.2)
    assert not watch.is_trusted
    watch.is_drop(2.0)
    watch.checked(stepped=1.2)
    assert watch.is_trusted, "a step that they did show speaks for them"


def test_a_step_too_small_to_be_seen_proves_nothing() -> None:
    watch = SharpnessWatch()
    for _ in range(4):
        watch.is_drop(3.0)
    watch.checked(stepped=0.6)
    assert watch.is_trusted


@pytest.mark.parametrize(("noise", "is_trusted"), [(0.03, True), (0.2, False)])
def test_frames_are_trusted_as_far_as_their_noise_allows(noise: float, is_trusted: bool) -> None:
    rng, watch = np.random.default_rng(1), SharpnessWatch()
    drops = []
    for _ in range(100):
        drops.append(watch.is_drop(3.0 * (1 + rng.normal(0, noise))))
        if drops[-1]:
            watch.checked(stepped=0.1)
    assert sum(drops[15:]) <= 3, "noise is no loss of sharpness"
    assert watch.is_trusted is is_trusted
    assert watch.seen >= 1.0


def test_nothing_is_foretold_before_the_first_check() -> None:
    with pytest.raises(ValueError, match="nothing has been measured"):
        DriftTracker(MODEL).focus_um(0.0)


@settings(max_examples=20, deadline=None)
@given(velocity=st.floats(-20.0, 20.0), rest_s=st.floats(600.0, 3600.0), seed=st.integers(0, 1000))
def test_a_drift_that_starts_after_a_rest_is_learnt_in_a_few_checks(
    velocity: float, rest_s: float, seed: int
) -> None:
    rng, tracker = np.random.default_rng(seed), DriftTracker(MODEL)
    for time_s in np.linspace(0.0, rest_s, 12):
        tracker.check(float(time_s), rng.normal(0, 0.3), 0.3)
    for number in range(1, 9):
        since_s = 20.0 * number
        tracker.surprised(rest_s + since_s)
        tracker.check(rest_s + since_s, velocity / 60 * since_s + rng.normal(0, 0.3), 0.3)
    assert 60 * tracker.velocity_um_per_s == pytest.approx(velocity, abs=3.0)
    assert tracker.focus_um(rest_s + 190) == pytest.approx(velocity / 60 * 190, abs=2.5)
