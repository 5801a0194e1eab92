"""The lock: when it checks, when it follows, and that once lost it never chases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from focusd.autofocus.lock import Check, Follow, Lock, LockSettings, Wait
from focusd.autofocus.tracking import DriftModel

SETTINGS = LockSettings(excursion_um=4.0, min_interval_s=20.0, max_interval_s=900.0, reach_um=30.0, retries=4)
MODEL = DriftModel(velocity_um_per_s=1 / 60, step_um=5.0)


def locked(
    settings: LockSettings = SETTINGS, velocity_um_per_s: float = 0.0, checks: int = 10
) -> tuple[Lock, float]:
    """A lock after good checks, and the time of the last one."""
    lock = Lock(settings, MODEL)
    for number in range(checks):
        lock.checked(number * 60.0, number * 60.0 * velocity_um_per_s, 0.3)
    assert lock.state == "locked"
    return lock, (checks - 1) * 60.0


def run(
    lock: Lock, now_s: float, until_s: float, z_um: float, fails: bool
) -> tuple[list[float], list[float], float]:
    """Obey until a time; times of checks, targets of moves, where the stage ends."""
    checks, moves = [], []
    while now_s < until_s:
        decision = lock.decide(now_s, z_um)
        if isinstance(decision, Check):
            checks.append(now_s)
            if fails:
                lock.failed(now_s, "an empty field")
            else:
                lock.checked(now_s, z_um, 0.3)
        elif isinstance(decision, Follow):
            moves.append(decision.z_um)
            z_um = decision.z_um
        else:
            now_s += max(decision.seconds, 1e-3)
    return checks, moves, z_um


def test_it_begins_with_a_check_and_locks_when_a_second_agrees() -> None:
    lock = Lock(SETTINGS, MODEL)
    assert lock.decide(5.0, 0.0) == Check()
    lock.checked(5.0, 2.0, 0.3)
    assert (lock.state, lock.decide(6.0, 2.0)) == ("acquiring", Wait(19.0))
    lock.checked(25.0, 2.1, 0.3)
    assert (lock.state, lock.reason) == ("locked", "")


@settings(max_examples=15, deadline=None)
@given(
    excursion_um=st.floats(0.2, 20.0),
    low_s=st.floats(1.0, 100.0),
    factor=st.floats(1.5, 20.0),
    velocity=st.floats(-3.0, 3.0),
)
def test_checks_keep_their_intervals(
    excursion_um: float, low_s: float, factor: float, velocity: float
) -> None:
    high_s = low_s * factor
    limits = replace(SETTINGS, excursion_um=excursion_um, min_interval_s=low_s, max_interval_s=high_s)
    lock, last_s = locked(limits, velocity / 60)
    checks, _, _ = run(lock, last_s, last_s + 6 * high_s, velocity / 60 * last_s, fails=False)
    gaps = np.diff([last_s, *checks])
    assert len(gaps) >= 5
    assert gaps.min() >= low_s * (1 - 1e-6)
    assert gaps.max() <= high_s * (1 + 1e-6) + 0.01


def test_a_check_comes_before_the_focus_may_have_left_the_allowed_excursion() -> None:
    lock, last_s = locked()
    checks, _, z_um = run(lock, last_s, last_s + 3000, 0.0, fails=False)
    due_s = checks[0]
    lock, _ = locked()
    assert lock.decide(due_s - 5, z_um) != Check()
    two_sigma_um = 2 * float(lock.tracker.sigma_um(due_s))
    assert 0.7 * SETTINGS.excursion_um < two_sigma_um <= SETTINGS.excursion_um


def test_a_better_known_rig_is_checked_less_often() -> None:
    calm, last_s = locked(checks=30)
    late = run(calm, last_s, last_s + 900, 0.0, fails=False)[0]
    tight, last_s = locked(replace(SETTINGS, excursion_um=1.5), checks=30)
    often = run(tight, last_s, last_s + 900, 0.0, fails=False)[0]
    assert len(late) < len(often) / 2


@settings(max_examples=30)
@given(velocity=st.floats(0.3, 3.0), down=st.booleans())
def test_a_steady_drift_is_followed_without_light(velocity: float, down: bool) -> None:
    um_per_s = (-velocity if down else velocity) / 60
    lock, last_s = locked(velocity_um_per_s=um_per_s)
    z_um = um_per_s * last_s
    decision = lock.decide(last_s + 1, z_um)
    assert isinstance(decision, Wait | Follow)
    due_s = last_s + 19
    checks, moves, z_um = run(lock, last_s, due_s, z_um, fails=False)
    assert not checks
    assert abs(z_um - um_per_s * due_s) <= SETTINGS.excursion_um / 8 + 0.3
    assert np.all(np.diff(moves) * np.sign(um_per_s) > 0)


def test_failures_lose_the_lock_which_then_rests_retries_ever_more_rarely_and_gives_up() -> None:
    lock, last_s = locked(velocity_um_per_s=2 / 60)
    states = []
    checks: list[float] = []
    now_s, z_um = last_s, 2 / 60 * last_s
    while not math.isinf(getattr(decision := lock.decide(now_s, z_um), "seconds", 0.0)):
        if isinstance(decision, Check):
            checks.append(now_s)
            lock.failed(now_s, "an empty field")
            states.append(lock.state)
        elif isinstance(decision, Follow):
            assert lock.state == "locked", "a lost lock never moves"
            z_um = decision.z_um
        else:
            now_s += max(decision.seconds, 1e-3)
    assert states == ["locked", "locked", *["lost"] * (SETTINGS.retries + 1)]
    pauses = np.diff(checks)
    assert (pauses[1:] >= pauses[:-1] * 1.9).all(), "each pause is about twice the last"
    assert lock.reason.startswith("an empty field; 7 checks in a row")


@given(z_um=st.floats(-100, 100), ahead_s=st.floats(0, 1e5))
def test_a_lost_lock_never_follows(z_um: float, ahead_s: float) -> None:
    lock, last_s = locked(velocity_um_per_s=3 / 60)
    for _ in range(3):
        lock.failed(last_s, "an empty field")
    assert lock.state == "lost"
    assert not isinstance(lock.decide(last_s + ahead_s, z_um), Follow)


def test_what_is_hopeless_is_not_tried_again() -> None:
    lock, last_s = locked()
    lock.failed(last_s, "the camera did not answer", hopeless=True)
    assert lock.state == "lost"
    assert lock.decide(last_s + 1e6, 0.0) == Wait(math.inf)


def test_one_good_check_does_not_bring_a_lost_lock_back_two_do() -> None:
    lock, last_s = locked()
    for _ in range(3):
        lock.failed(last_s, "an empty field")
    states = []
    for after_s in (100, 200):
        lock.checked(last_s + after_s, 9.0, 0.3)
        states.append(lock.state)
    assert states == ["acquiring", "locked"]
    assert abs(lock.tracker.focus_um(last_s + 200) - 9.0) < 0.3, "what was known before is forgotten"


def test_one_failure_does_not_lose_a_lock() -> None:
    lock, last_s = locked()
    lock.failed(last_s + 60, "an empty field")
    assert lock.state == "locked"
    assert lock.decide(last_s + 60 + SETTINGS.min_interval_s, 0.0) == Check()


def test_after_somebody_else_used_the_stage_it_measures_before_it_moves() -> None:
    lock, last_s = locked()
    lock.disturbed(last_s + 1, "a move job of ann")
    assert lock.decide(last_s + 1, 50.0) == Check()
    assert "a move job of ann" in lock.reason


def test_only_a_focus_within_reach_is_followed() -> None:
    lock = Lock(SETTINGS, MODEL)
    assert lock.accepts(0.0, 80.0), "where it begins is the client's choice"
    lock, last_s = locked()
    assert lock.accepts(last_s, 29.0)
    assert not lock.accepts(last_s, -31.0)


def test_a_frame_that_looks_unlike_the_others_brings_the_next_check_forward() -> None:
    lock, last_s = locked()
    now_s = last_s + SETTINGS.min_interval_s + 1
    assert isinstance(lock.decide(now_s, 0.0), Wait)
    lock.frame(now_s, dropped=True)
    assert lock.decide(now_s, 0.0) == Check()


def test_quiet_frames_put_the_next_check_off() -> None:
    def due_s(frames: bool) -> float:
        lock, last_s = locked(checks=20)
        now_s = last_s
        while not isinstance(lock.decide(now_s, lock.tracker.focus_um(now_s)), Check):
            now_s += 10
            if frames:
                lock.frame(now_s, dropped=False)
        return now_s - last_s

    assert due_s(frames=True) > 1.2 * due_s(frames=False)


def test_a_lock_that_could_not_check_for_long_is_one_no_more() -> None:
    lock, last_s = locked()
    lock.decide(last_s + 3 * 3600, 0.0)
    assert lock.state == "acquiring"
    assert lock.reason == "too uncertain where the focus is"
