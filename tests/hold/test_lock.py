"""The lock: when it checks, when it follows, and that once lost it never chases."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusd.hold.lock import Check, Expected, Follow, Lock, LockSettings, Wait
from focusd.hold.tracking import DriftModel

SETTINGS = LockSettings(excursion_um=4.0, min_interval_s=20.0, max_interval_s=900.0, reach_um=30.0, retries=4)
MODEL = DriftModel(velocity_um_per_s=10 / 60, step_um=5.0)


def allows(expected: Expected, z_um: float) -> bool:
    """Whether a check may expose there."""
    return expected.within_um[0] <= z_um <= expected.within_um[1]


def locked(
    settings: LockSettings = SETTINGS, velocity_um_per_s: float = 0.0, checks: int = 10
) -> tuple[Lock, float]:
    """A lock after good checks, and the time of the last one."""
    lock = Lock(settings, MODEL)
    for number in range(checks):
        lock.checked(number * 60.0, number * 60.0 * velocity_um_per_s, 0.3)
    last_s = (checks - 1) * 60.0
    assert lock.standing(last_s, last_s * velocity_um_per_s)[0] == "locked"
    return lock, last_s


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
    assert lock.standing(5.0, 0.0) == ("acquiring", "no check has been made yet")
    lock.checked(5.0, 2.0, 0.3)
    assert lock.standing(6.0, 2.0) == ("acquiring", "found once, to be confirmed by a second check")
    assert lock.decide(6.0, 2.0) == Wait(3.0)
    lock.checked(9.0, 2.1, 0.3)
    assert lock.standing(9.0, 2.1) == ("locked", "")


@settings(max_examples=15, deadline=None)
@given(
    excursion_um=st.floats(0.2, 20.0),
    low_s=st.floats(1.0, 100.0),
    factor=st.floats(1.5, 20.0),
    velocity=st.floats(-3.0, 3.0),
)
def test_checks_keep_their_intervals_but_for_a_burst(
    excursion_um: float, low_s: float, factor: float, velocity: float
) -> None:
    high_s = low_s * factor
    limits = replace(SETTINGS, excursion_um=excursion_um, min_interval_s=low_s, max_interval_s=high_s)
    lock, last_s = Lock(limits, MODEL), 0.0
    checks, _, _ = run(lock, last_s, last_s + 20 * high_s, velocity / 60 * last_s, fails=False)
    gaps = np.diff(checks)
    assert len(gaps) >= 15
    assert gaps.min() >= min(low_s, 4.0) * (1 - 1e-6)
    assert gaps.max() <= high_s * (1 + 1e-6) + 0.01
    assert checks[-1] - checks[0] >= (len(checks) - 8) * low_s - 1e-6


@pytest.mark.parametrize("velocity", [0.0, 0.5, -1.0, 3.0, -6.0, 10.0, -20.0, 20.0])
def test_checks_begin_seconds_apart_and_grow_apart_as_the_drift_is_learnt(velocity: float) -> None:
    world = World(velocity / 60)
    world.let_pass(7200)
    gaps = np.diff(world.checks)
    assert gaps[0] <= 5
    assert (gaps[1:] <= 2 * gaps[:-1] + 5).all(), "each at most about twice the one before"
    followed_um = abs(velocity) / 60 * gaps
    assert gaps[-3:].min() > 60 or followed_um[-3:].min() > 0.9 * SETTINGS.reach_um / 2
    assert followed_um.max() < 1.1 * SETTINGS.reach_um / 2, (
        "should the drift turn round, the next check finds it"
    )
    assert world.worst_um <= 4.0, "in focus all the time"
    assert world.locked_s > 7200 - 30


@pytest.mark.parametrize("velocity", [1.0, -6.0, 20.0])
def test_a_drift_that_begins_after_an_hour_of_rest_is_caught_when_frames_show_it(velocity: float) -> None:
    world = World(0.0, frame_s=30.0)
    world.let_pass(3600)
    world.velocity_um_per_s = velocity / 60
    world.let_pass(120)
    world.worst_um = 0.0
    world.let_pass(3600)
    assert world.worst_um <= 6.0
    assert abs(world.error_um) <= 4.0


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
    due_s = last_s + 19.0
    checks, moves, z_um = run(lock, last_s, due_s, z_um, fails=False)
    assert not checks
    assert abs(z_um - um_per_s * due_s) <= SETTINGS.excursion_um / 8 + 0.3
    assert np.all(np.diff(moves) * np.sign(um_per_s) > 0)


def test_failures_lose_the_lock_which_then_rests_retries_ever_more_rarely_and_gives_up() -> None:
    lock, last_s = locked(velocity_um_per_s=0.2 / 60)
    states = []
    checks: list[float] = []
    now_s, z_um = last_s, 0.2 / 60 * last_s
    while not math.isinf(getattr(decision := lock.decide(now_s, z_um), "seconds", 0.0)):
        if isinstance(decision, Check):
            checks.append(now_s)
            lock.failed(now_s, "an empty field")
            states.append(lock.standing(now_s, z_um)[0])
        elif isinstance(decision, Follow):
            assert lock.standing(now_s, z_um)[0] != "lost", "a lost lock never moves"
            z_um = decision.z_um
        else:
            now_s += max(decision.seconds, 1e-3)
    assert "lost" not in states[:2]
    assert states[2:] == ["lost"] * (SETTINGS.retries + 1)
    pauses = np.diff(checks)
    assert (pauses[1:] >= pauses[:-1] * 1.8).all() or pauses.max() == pytest.approx(900, abs=0.1)
    assert lock.standing(now_s, z_um)[1].startswith("an empty field; 7 checks in a row")


@given(z_um=st.floats(-100, 100), ahead_s=st.floats(0, 1e5))
def test_a_lost_lock_never_follows(z_um: float, ahead_s: float) -> None:
    lock, last_s = locked(velocity_um_per_s=3 / 60)
    for _ in range(3):
        lock.failed(last_s, "an empty field")
    assert lock.standing(last_s, z_um)[0] == "lost"
    assert not isinstance(lock.decide(last_s + ahead_s, z_um), Follow)


def test_what_is_hopeless_is_not_tried_again() -> None:
    lock, last_s = locked()
    lock.failed(last_s, "the camera did not answer", hopeless=True)
    assert lock.standing(last_s, 0.0) == ("lost", "the camera did not answer; then release and hold again")
    assert lock.decide(last_s + 1e6, 0.0) == Wait(math.inf)


def test_one_good_check_does_not_bring_a_lost_lock_back_two_do() -> None:
    lock, last_s = locked()
    for _ in range(3):
        lock.failed(last_s, "an empty field")
    lock.checked(last_s + 100, 9.0, 0.3)
    assert lock.standing(last_s + 100, 9.0)[0] == "acquiring"
    lock.checked(last_s + 104, 9.0, 0.3)
    assert lock.standing(last_s + 104, 9.0)[0] == "locked"
    assert abs(lock.tracker.focus_um(last_s + 104) - 9.0) < 0.3, "what was known before is forgotten"


def test_one_failure_does_not_lose_a_lock_but_what_is_not_known_is_not_called_locked() -> None:
    lock, last_s = locked()
    lock.failed(last_s + 60, "a flash")
    assert lock.standing(last_s + 60, 0.0) == ("acquiring", "a flash")
    assert lock.decide(last_s + 120, 0.0) == Check()
    lock.checked(last_s + 120, 0.0, 0.3)
    assert lock.standing(last_s + 120, 0.0) == ("locked", "")


def test_a_drift_that_nobody_sees_any_more_is_followed_no_further_than_the_reach() -> None:
    """Who goes on drives the stage to the sample when the drift has ended."""
    lock, last_s = locked(velocity_um_per_s=20 / 60)
    lock.failed(last_s + 5, "an empty field")
    z_um, furthest_um = 0.0, 0.0
    for later_s in range(6, 600):
        decision = lock.decide(last_s + later_s, z_um)
        if isinstance(decision, Follow):
            z_um = decision.z_um
        elif isinstance(decision, Check):
            lock.failed(last_s + later_s, "an empty field")
        furthest_um = max(furthest_um, abs(z_um - lock.tracker.focus_um(last_s)))
    assert 5.0 < furthest_um <= SETTINGS.reach_um + 1.0


@pytest.mark.parametrize("um_per_min", [6.0, 20.0, -20.0])
@pytest.mark.parametrize("empty_s", [50.0, 90.0, 120.0, 160.0])
def test_a_sample_that_comes_back_after_minutes_is_found_while_it_is_within_reach(
    um_per_min: float, empty_s: float
) -> None:
    """The stage rests at the reach, a check looks as far again: it has to be made before the drift has passed that."""
    speed = um_per_min / 60
    lock, last_s = locked(velocity_um_per_s=speed)
    now_s, z_um = last_s, speed * last_s
    while not (isinstance(decision := lock.decide(now_s, z_um), Check) and now_s > last_s + empty_s):
        if isinstance(decision, Check):
            lock.failed(now_s, "an empty field")
        elif isinstance(decision, Follow):
            z_um = decision.z_um
        else:
            now_s += max(decision.seconds, 1e-3)
    assert allows(lock.expected(now_s, z_um), speed * now_s)
    reached_s = SETTINGS.reach_um / abs(speed)
    if empty_s > reached_s:  # the stage rests, while the drift goes on
        assert now_s - last_s - empty_s <= max(reached_s / 4, SETTINGS.min_interval_s) + 1.0


@pytest.mark.parametrize("um_per_min", [1.0, 6.0, 20.0, -20.0])
def test_a_drift_that_turns_round_is_found_within_reach(um_per_min: float) -> None:
    """It is followed no further between two checks than half the reach: turned round, it lies within the reach."""
    lock, now_s = Lock(SETTINGS, MODEL), 0.0
    speed = um_per_min / 60
    for _ in range(40):
        lock.checked(now_s, speed * now_s, 0.2)
        due_s = lock.check_due_s()
        assert abs(speed) * (due_s - now_s) <= SETTINGS.reach_um / 2 + abs(speed) * SETTINGS.min_interval_s
        now_s = due_s


def test_three_failures_are_needed_at_the_very_beginning_too() -> None:
    lock = Lock(SETTINGS, MODEL)
    states = []
    for now_s in (0.0, 5.0, 20.0):
        lock.failed(now_s, "a flash")
        states.append(lock.standing(now_s, 0.0))
    assert states == [("acquiring", "a flash")] * 2 + [("lost", "a flash")]


def test_after_somebody_else_used_the_stage_it_measures_before_it_moves() -> None:
    lock, last_s = locked()
    lock.disturbed("a move job of ann")
    assert lock.decide(last_s + 1, 50.0) == Check()
    assert "a move job of ann" in lock.standing(last_s + 1, 50.0)[1]
    assert lock.expected(last_s + 1, 50.0).within_um == (20.0, 80.0), "it looks where the stage was left"


def test_a_check_looks_no_further_than_the_reach_from_where_the_focus_is_expected() -> None:
    lock = Lock(SETTINGS, MODEL)
    first = lock.expected(0.0, 80.0)
    assert first.prior is None
    assert first.within_um == (50.0, 110.0), "around where the stage stands"
    lock, last_s = locked()
    expected = lock.expected(last_s, 0.0)
    assert expected.prior is not None
    assert expected.within_um == pytest.approx((expected.prior[0] - 30, expected.prior[0] + 30))
    assert allows(expected, 29.0)
    assert not allows(expected, -31.0)


def test_however_long_a_lost_focus_has_drifted_it_is_expected_within_reach_of_the_stage() -> None:
    lock, last_s = locked(velocity_um_per_s=20 / 60)
    z_um = 20 / 60 * last_s
    for _ in range(3):
        lock.failed(last_s, "an empty field")
    expected = lock.expected(last_s + 3600, z_um)
    assert expected.prior is not None
    assert expected.prior[0] == pytest.approx(z_um + 30)
    assert expected.prior[1] > 1000, "it may well be further"


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
    assert lock.standing(last_s + 3 * 3600, 0.0) == ("acquiring", "too uncertain where the focus is")


def test_a_stage_that_stands_elsewhere_is_not_locked() -> None:
    lock, last_s = locked()
    assert lock.standing(last_s + 1, 3.9)[0] == "acquiring"
    assert lock.standing(last_s + 1, None)[0] == "acquiring"


@dataclass
class World:
    """A sample that drifts and a stage that obeys the lock; frames tell of an error of a third of the excursion."""

    velocity_um_per_s: float
    settings: LockSettings = SETTINGS
    frame_s: float = math.inf
    now_s: float = 0.0
    focus_um: float = 2.0
    z_um: float = 0.0
    worst_um: float = 0.0
    locked_s: float = 0.0
    checks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lock, self._random = Lock(self.settings, MODEL), np.random.default_rng(1)
        self._next_frame_s = self.frame_s

    @property
    def error_um(self) -> float:
        return self.z_um - self.focus_um

    def let_pass(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            decision = self.lock.decide(self.now_s, self.z_um)
            if isinstance(decision, Check):
                self._check()
            elif isinstance(decision, Follow):
                self.z_um = decision.z_um
            else:
                self._pass_s(min(max(decision.seconds, 0.05), 10.0))

    def _check(self) -> None:
        self.checks.append(self.now_s)
        found_um = self.focus_um + self._random.normal(0, 0.3)
        if not allows(self.lock.expected(self.now_s, self.z_um), found_um):
            self.lock.failed(self.now_s, "out of reach")
        else:
            self.z_um = found_um
            self.lock.checked(self.now_s, found_um, 0.3)

    def _pass_s(self, seconds: float) -> None:
        self.now_s += seconds
        self.focus_um += seconds * self.velocity_um_per_s
        self.worst_um = max(self.worst_um, abs(self.error_um) if self.checks else 0.0)
        is_locked = self.lock.standing(self.now_s, self.z_um)[0] == "locked"
        self.locked_s += seconds * is_locked
        if self.now_s >= self._next_frame_s:
            self._next_frame_s += self.frame_s
            self.lock.frame(self.now_s, abs(self.error_um) > self.settings.excursion_um / 3)


events = st.lists(
    st.tuples(
        st.sampled_from(
            ["found", "found", "found", "empty", "hopeless", "quiet", "dropped", "moved", "refocused"]
        ),
        st.floats(0.0, 600.0),
        st.floats(-20.0, 20.0),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(history=events, reach_um=st.floats(5.0, 50.0), retries=st.integers(0, 5))
def test_whatever_happens_the_lock_says_what_it_knows_and_stays_within_reach(
    history: list[tuple[str, float, float]], reach_um: float, retries: int
) -> None:
    """Drift histories and outcomes of checks at random, at the times that the lock itself asks for."""
    limits = replace(SETTINGS, reach_um=reach_um, retries=retries)
    lock, now_s, z_um, focus_um = Lock(limits, MODEL), 0.0, 0.0, 0.0
    in_a_row, checks, last_good_s, longest_s = 0, [], None, 0.0
    for outcome, seconds, velocity in history:
        for _ in range(30):
            state, reason = lock.standing(now_s, z_um)
            if state == "locked":
                known_um = abs(lock.tracker.focus_um(now_s) - z_um) + 2 * float(lock.tracker.sigma_um(now_s))
                assert known_um <= limits.excursion_um
            assert (state == "locked") == (reason == "")
            assert (state == "lost") == (in_a_row >= 3)
            decision = lock.decide(now_s, z_um)
            if not isinstance(decision, Follow):
                break
            assert state != "lost"
            assert abs(decision.z_um - lock.tracker.focus_um(now_s)) < 1e-9
            z_um = decision.z_um
        if isinstance(decision, Wait):
            assert decision.seconds >= 0
            step_s = min(decision.seconds, seconds)
            now_s, focus_um = now_s + step_s, focus_um + velocity / 60 * step_s
            if outcome in ("quiet", "dropped"):
                lock.frame(now_s, outcome == "dropped")
            elif outcome == "moved":
                z_um += velocity
                lock.disturbed("a move job")
                in_a_row, last_good_s = 0, None
            elif outcome == "refocused":
                elsewhere = in_a_row >= 3 or lock.stepped(now_s, focus_um) > 0.5
                z_um, in_a_row = focus_um, 0
                lock.refocused(now_s, focus_um, 0.3, "a refocus job")
                last_good_s, longest_s = now_s, (0.0 if elsewhere else longest_s)
            continue
        expected = lock.expected(now_s, z_um)
        if expected.within_um is not None:
            low_um, high_um = expected.within_um
            assert high_um - low_um == pytest.approx(2 * reach_um)
            assert low_um - 1e-9 <= z_um <= high_um + 1e-9, "where the stage stands is within reach of itself"
        if last_good_s is not None and in_a_row == 0:
            assert now_s - last_good_s <= limits.max_interval_s + max(seconds, 0.01)
        checks.append(now_s)
        assert now_s - checks[0] >= (len(checks) - 8 - retries - 3) * 4.0 - 1e-6
        if outcome in ("empty", "hopeless"):
            lock.failed(now_s, outcome, outcome == "hopeless")
            in_a_row = 100 if outcome == "hopeless" else in_a_row + 1
            if in_a_row >= 3 + retries:
                assert lock.decide(now_s + 1e7, z_um) == Wait(math.inf), "it has given up"
                return
        elif allows(expected, focus_um):
            z_um, in_a_row, last_good_s = focus_um, 0, now_s
            lock.checked(now_s, focus_um, 0.3)
        else:
            lock.failed(now_s, "out of reach")
            in_a_row += 1
            if in_a_row >= 3 + retries:
                return
