"""Holding focus, decided: when a check is worth its exposures, when to follow without light, when to stop trusting.

Nobody can know beforehand how a rig drifts. So checks begin seconds apart, and a drift is trusted for as long again as
it has been watched, and no longer than σ allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from focusd.hold.tracking import DriftModel, DriftTracker

State = Literal["acquiring", "locked", "lost"]

_LOCK_AFTER = 2
"""Good checks that make a lock: the second one tells the velocity."""
_LOST_AFTER = 3
"""Failed checks in a row that lose it."""
_SOONEST_S = 4.0
"""Between the first two checks."""
_TRUSTED = 1.0
"""A drift is trusted for so many times as long as it has been watched: intervals grow by no more than this and one."""
_BURST = 8
"""Checks that may follow one another sooner than `min_interval_s`."""
_RETRY_S = 60.0
"""A failed check is tried again after the interval before it, or after so long."""
_RETRY_SHARE = 1 / 4
"""Of the time in which a drift comes to the reach: so soon a check is tried again while the drift is within it."""
_EARLY = 0.9
"""Share of the allowed excursion at which a check is due: it takes time itself."""
_GROWN = 1.3
"""A check is not worth its exposures before the uncertainty has grown to so much of what the last one left."""
_DEADBAND = 1 / 8
"""Share of the allowed excursion that the stage does not follow, so that it rests most of the time."""
_SEEN = 0.3
"""Share of the allowed excursion within which a frame as sharp as in focus leaves the focus, as a σ."""
_STEP = 0.5
"""A focus so far from where it was expected, in parts of the allowed excursion, is another one."""
_AHEAD = 200
"""Moments looked at between the smallest and the largest interval."""
_PRIOR_WIDTH = 1.25
"""A check's prior, in σ of the tracker."""


@dataclass(frozen=True)
class LockSettings:
    """What to hold, and how tightly.

    Attributes:
        excursion_um: a check is due before |drift| + 2σ exceeds it.
        min_interval_s: between checks in the long run.
        max_interval_s: between checks.
        reach_um: how far from where the focus is expected a check may look for it.
        retries: checks made while lost, before an operator has to look.
    """

    excursion_um: float
    min_interval_s: float
    max_interval_s: float
    reach_um: float
    retries: int


@dataclass(frozen=True)
class Check:
    """Measure the focus now."""


@dataclass(frozen=True)
class Follow:
    """Move to where the focus is expected; costs no light."""

    z_um: float


@dataclass(frozen=True)
class Wait:
    """Nothing is due before so many seconds from now; infinite: nothing ever, unless something happens."""

    seconds: float


Decision = Check | Follow | Wait


@dataclass(frozen=True)
class Expected:
    """What a check starts from.

    Attributes:
        prior: focus and σ; None: not known.
        within_um: lowest and highest z at which it may expose, besides the stage's limits.
    """

    prior: tuple[float, float] | None
    within_um: tuple[float, float]


class Lock:
    """The decisions of a hold. Time is given, never asked for.

    Attributes:
        tracker: the estimate of the focus.
    """

    def __init__(self, settings: LockSettings, model: DriftModel) -> None:
        self._settings = settings
        self._model = model
        self._pace = _Pace(settings.min_interval_s)
        self._soonest_s = min(_SOONEST_S, settings.min_interval_s)
        self._last_s = self._seen_s = -math.inf
        self._begin("no check has been made yet")

    def _begin(self, reason: str) -> None:
        self.tracker = DriftTracker(self._model)
        self._reason = reason
        self._good = self._failures = 0
        self._is_lost = self._gave_up = False
        self._began_s = math.inf
        self._interval_s = self._soonest_s
        self._left_um = 0.0

    def standing(self, now_s: float, z_um: float | None) -> tuple[State, str]:
        """The state at this moment, and why it is not locked: empty if it is.

        Locked is said while |drift| + 2σ is within what is allowed, and at no other time.

        Args:
            z_um: where the stage stands; None: not known.
        """
        if self._is_lost:
            return "lost", self._reason
        if self._is_known(now_s, z_um):
            return "locked", ""
        is_explained = self._good < _LOCK_AFTER or self._failures
        return "acquiring", self._reason if is_explained else "too uncertain where the focus is"

    def _is_known(self, now_s: float, z_um: float | None) -> bool:
        """Whether the sample is known to be in focus; after a check that failed, only the next good one tells."""
        if self._good < _LOCK_AFTER or self._failures or z_um is None:
            return False
        return abs(self._drift_um(now_s, z_um)) + 2 * self._sigma_um(now_s) <= self._settings.excursion_um

    def decide(self, now_s: float, z_um: float) -> Decision:
        """What to do now.

        Args:
            z_um: where the stage stands.
        """
        check_s = self.check_due_s()
        if now_s >= check_s:
            return Check()
        if self._is_lost or self.tracker.estimate is None or now_s > self._seen_s + self._unseen_s:
            return Wait(check_s - now_s)  # the stage rests until a check has found the focus again
        if abs(self._drift_um(now_s, z_um)) > self._deadband_um:
            return Follow(self.tracker.focus_um(now_s))
        return Wait(min(check_s - now_s, self._follow_due_s(now_s, z_um)))

    def expected(self, now_s: float, z_um: float) -> Expected:
        """What a check starts from, and how far it may go: a hold corrects drift, it does not go searching.

        Where nothing is known, as at first or after somebody has moved the stage, a check looks around where the stage
        stands. The focus is expected no further from there than the hold's reach, however long it has not been seen.

        The prior is wider than what is believed: the check's result is to be news to the tracker, not its own echo.
        """
        reach_um = self._settings.reach_um
        if self.tracker.estimate is None:
            return Expected(None, (z_um - reach_um, z_um + reach_um))
        focus_um = self.tracker.focus_um(now_s)
        near_um = min(max(focus_um, z_um - reach_um), z_um + reach_um)
        sigma_um = _PRIOR_WIDTH * self._sigma_um(now_s) + abs(focus_um - near_um)
        return Expected((near_um, sigma_um), (near_um - reach_um, near_um + reach_um))

    def stepped(self, now_s: float, focus_um: float) -> float:
        """How far a focus that a check has found is from where it was expected, in parts of the allowed excursion."""
        if self.tracker.estimate is None:
            return math.inf
        return abs(focus_um - self.tracker.focus_um(now_s)) / self._settings.excursion_um

    def checked(self, now_s: float, focus_um: float, sigma_um: float) -> None:
        """A check has found the focus."""
        if self._is_lost:
            self._begin("found again, to be confirmed by a second check")
        elif self._good == 0:
            self._reason = "found once, to be confirmed by a second check"
        if self._good:
            self._interval_s = now_s - self._last_s
        self._began_s = min(self._began_s, now_s)
        self._spend(now_s)
        self._failures = 0
        self._seen_s = now_s
        self.tracker.check(now_s, focus_um, sigma_um)
        self._left_um = self._sigma_um(now_s)
        self._good += 1

    def refocused(self, now_s: float, focus_um: float, sigma_um: float, by: str) -> None:
        """Somebody else's refocus of what is held is as good as a check; one that found it elsewhere begins anew."""
        if self._is_lost or self.stepped(now_s, focus_um) > _STEP:
            self.disturbed(by)
        self.checked(now_s, focus_um, sigma_um)
        if self._good < _LOCK_AFTER:
            self._reason = f"{by} has found the focus, to be confirmed by a check"

    def failed(self, now_s: float, reason: str, hopeless: bool = False, suspect: bool = False) -> None:
        """A check, or a move to follow, has failed.

        Args:
            hopeless: trying again would not help before an operator has looked.
            suspect: no drift explains it, so that the stage rests at once; a later check may find that it has passed.
        """
        self._spend(now_s)
        self._failures += 1
        self._reason = reason
        self._is_lost = self._is_lost or hopeless or suspect or self._failures >= _LOST_AFTER
        if hopeless:
            self._gave_up, self._reason = True, f"{reason}; then release and hold again"
        elif self._failures >= _LOST_AFTER + self._settings.retries:
            self._gave_up = True
            self._reason = f"{reason}; {self._failures} checks in a row have failed: release and hold again"

    def disturbed(self, by: str) -> None:
        """Somebody else used the stage: what was known of the focus may be of another place."""
        self._begin(f"{by} has used the stage since the last check")
        self._last_s = -math.inf

    def frame(self, now_s: float, dropped: bool, seen: float = 1.0) -> None:
        """A frame of the held field was as sharp as in focus, or less.

        Args:
            seen: how far out of focus frames are seen to be, relative to those in good light.
        """
        if self.tracker.estimate is None:
            return
        if dropped:
            self.tracker.surprised(now_s)
        else:
            self._seen_s = now_s
            self.tracker.quiet(now_s, _SEEN * seen * self._settings.excursion_um)

    def check_due_s(self) -> float:
        """When the next check is due; infinite: never."""
        if self._gave_up:
            return math.inf
        if self._failures:
            return self._last_s + self._retry_pause_s
        earliest_s = max(self._last_s + self._soonest_s, self._pace.ready_s())
        return earliest_s if self._good < _LOCK_AFTER else max(earliest_s, self._uncertain_s())

    @property
    def _retry_pause_s(self) -> float:
        """After a check that failed: ever longer, but short while the stage rests and a drift that goes on is in reach.

        The stage rests where the drift has come to the reach, and a check looks as far again: a sample that comes back
        meanwhile is found, if it is looked for before it has drifted past that.
        """
        pause_s = min(self._interval_s, _RETRY_S) * 2.0 ** (self._failures - 1)
        rests_s = self._seen_s + self._unseen_s if self.tracker.estimate is not None else math.inf
        if self._last_s + pause_s > rests_s and self._last_s < rests_s + self._unseen_s:
            pause_s = min(pause_s, max(_RETRY_SHARE * self._unseen_s, self._settings.min_interval_s))
        return min(pause_s, self._settings.max_interval_s)

    def _uncertain_s(self) -> float:
        """When |drift| + 2σ, as far as following cannot help it, exceeds what is allowed."""
        settings = self._settings
        watched_s = self._last_s - self._began_s
        followed_s = self._seen_s - self._last_s + self._unseen_s / 2
        longest_s = min(max(self._soonest_s, _TRUSTED * watched_s), settings.max_interval_s, followed_s)
        times_s = self._last_s + np.linspace(self._soonest_s, longest_s, _AHEAD)
        allowed_um = max(_EARLY * settings.excursion_um - self._deadband_um, 2 * _GROWN * self._left_um)
        beyond = np.flatnonzero(2 * self.tracker.sigma_um(times_s) > allowed_um)
        return float(times_s[beyond[0]] if len(beyond) else times_s[-1])

    @property
    def _unseen_s(self) -> float:
        """How long after the focus was seen last, by a check or a sharp frame, the drift comes to the hold's reach.

        So long it is followed, should checks fail meanwhile: had the drift ended, the next check would still find the
        focus. A check is due in half that time: had the drift turned round, it would find it too.
        """
        speed = abs(self.tracker.velocity_um_per_s)
        return self._settings.reach_um / speed if speed else math.inf

    def _spend(self, now_s: float) -> None:
        self._last_s = now_s
        self._pace.spend(now_s)

    @property
    def _deadband_um(self) -> float:
        return _DEADBAND * self._settings.excursion_um

    def _sigma_um(self, time_s: float) -> float:
        return float(self.tracker.sigma_um(time_s))

    def _drift_um(self, time_s: float, z_um: float) -> float:
        return self.tracker.focus_um(time_s) - z_um

    def _follow_due_s(self, now_s: float, z_um: float) -> float:
        """Seconds until the stage has to follow."""
        velocity = self.tracker.velocity_um_per_s
        if velocity == 0:
            return math.inf
        ahead_um = self._drift_um(now_s, z_um) * math.copysign(1, velocity)
        return (self._deadband_um - ahead_um) / abs(velocity)


class _Pace:
    """Bounds the light of checks: one in each interval, but for a burst now and then."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._free, self._at_s = float(_BURST), -math.inf

    def spend(self, now_s: float) -> None:
        """A check is made."""
        regained = (now_s - self._at_s) / self._interval_s
        self._free, self._at_s = min(self._free + regained, float(_BURST)) - 1, now_s

    def ready_s(self) -> float:
        """When there may be one more."""
        return self._at_s + max(0.0, 1 - self._free) * self._interval_s
