"""Holding focus, decided: when a check is worth its exposures, when to follow without light, when to stop trusting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from focusd.autofocus.tracking import DriftModel, DriftTracker

State = Literal["acquiring", "locked", "lost"]

_LOCK_AFTER = 2
"""Good checks in a row that make a lock: the second one tells the velocity."""
_LOST_AFTER = 3
"""Failed checks in a row that lose it."""
_GROWN = 1.3
"""A check is not worth its exposures before the uncertainty has grown to so much of what the last one left."""
_DOUBT = 3.0
"""A lock ends when 2σ exceeds so many times what is allowed."""
_DEADBAND = 1 / 8
"""Share of the allowed excursion that the stage does not follow, so that it rests most of the time."""
_SEEN = 0.3
"""Share of the allowed excursion within which a frame as sharp as in focus leaves the focus, as a σ."""
_AHEAD = 400
"""Moments looked at between the smallest and the largest interval."""


_PRIOR_WIDTH = 3.0
"""A check's prior, in σ of the tracker."""


@dataclass(frozen=True)
class LockSettings:
    """What to hold, and how tightly.

    Attributes:
        excursion_um: a check is due before |drift| + 2σ exceeds it.
        min_interval_s, max_interval_s: between checks.
        reach_um: a focus found further than this from where it was expected is not followed.
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


class Lock:
    """The state of a hold. Time is given, never asked for.

    Attributes:
        state: acquiring until checks agree, then locked; lost after failures: then the stage rests where it is.
        reason: why it is not locked; empty if it is.
        tracker: the estimate of the focus.
    """

    def __init__(self, settings: LockSettings, model: DriftModel) -> None:
        self._settings = settings
        self._model = model
        self._last_s = -math.inf
        self._failures = 0
        self._gave_up = False
        self._left_um = 0.0
        self._begin("no check has been made yet")

    def _begin(self, reason: str) -> None:
        self.tracker = DriftTracker(self._model)
        self.state: State = "acquiring"
        self.reason = reason
        self._good = 0

    def decide(self, now_s: float, z_um: float) -> Decision:
        """What to do now.

        Args:
            z_um: where the stage stands.
        """
        self._doubt(now_s)
        check_s = self._check_due_s()
        if now_s >= check_s:
            return Check()
        if self.state != "locked":
            return Wait(check_s - now_s)
        if abs(self._drift_um(now_s, z_um)) > self._deadband_um:
            return Follow(self.tracker.focus_um(now_s))
        return Wait(min(check_s - now_s, self._follow_due_s(now_s, z_um)))

    def accepts(self, now_s: float, focus_um: float) -> bool:
        """Whether a focus that a check has found may be followed: a hold corrects drift, it does not go searching."""
        if self.tracker.estimate is None:
            return True
        return abs(focus_um - self.tracker.focus_um(now_s)) <= self._settings.reach_um

    def expected(self, now_s: float) -> tuple[float, float] | None:
        """Focus and σ for a check to start from; None where nothing is known.

        Wider than what is believed: the check's result is to be news to the tracker, not its own echo.
        """
        if self.tracker.estimate is None:
            return None
        return self.tracker.focus_um(now_s), _PRIOR_WIDTH * float(self.tracker.sigma_um(now_s))

    def is_step(self, now_s: float, focus_um: float) -> bool:
        """Whether a focus that a check has found is further off than the lock would have allowed to drift."""
        if self.tracker.estimate is None:
            return True
        return abs(focus_um - self.tracker.focus_um(now_s)) > self._settings.excursion_um / 2

    def checked(self, now_s: float, focus_um: float, sigma_um: float) -> None:
        """A check has found the focus."""
        if self.state == "lost":
            self._begin("found again, to be confirmed")
        self._last_s, self._failures = now_s, 0
        self.tracker.check(now_s, focus_um, sigma_um)
        self._left_um = float(self.tracker.sigma_um(now_s))
        self._good += 1
        if self._good >= _LOCK_AFTER:
            self.state, self.reason = "locked", ""

    def refocused(self, now_s: float, focus_um: float, sigma_um: float, by: str) -> None:
        """Somebody else's refocus of what is held is as good as a check; one that found it elsewhere begins anew."""
        if self.state == "lost" or self.is_step(now_s, focus_um):
            self.disturbed(now_s, by)
            self.reason = f"{by} has found the focus, to be confirmed"
        self.checked(now_s, focus_um, sigma_um)

    def failed(self, now_s: float, reason: str, hopeless: bool = False) -> None:
        """A check, or a move to follow, has failed.

        Args:
            hopeless: trying again would not help before an operator has looked.
        """
        self._last_s = now_s
        self._failures += 1
        self._good = 0
        self.reason = reason
        self._gave_up = self._gave_up or hopeless
        if hopeless or self._failures >= _LOST_AFTER or self.tracker.estimate is None:
            self.state = "lost"
        if self._failures >= _LOST_AFTER + self._settings.retries:
            self._gave_up = True
            self.reason = f"{reason}; {self._failures} checks in a row have failed: release and hold again"

    def disturbed(self, now_s: float, by: str) -> None:
        """Somebody else used the stage: what was known of the focus may be of another place."""
        self._begin(f"{by} has used the stage since the last check")
        self._last_s = -math.inf
        self._failures, self._gave_up = 0, False

    def frame(self, now_s: float, dropped: bool) -> None:
        """A frame of the held field was as sharp as in focus, or less."""
        if self.tracker.estimate is None:
            return
        if dropped:
            self.tracker.surprised(now_s)
        else:
            self.tracker.quiet(now_s, _SEEN * self._settings.excursion_um)

    def _doubt(self, now_s: float) -> None:
        """No lock outlives what is known: after a surprise, or long without a check, the stage rests until the next."""
        if self.state == "locked" and 2 * self.tracker.sigma_um(now_s) > _DOUBT * self._allowed_um:
            self.state, self.reason, self._good = "acquiring", "too uncertain where the focus is", 0

    @property
    def _allowed_um(self) -> float:
        return max(self._settings.excursion_um, self._deadband_um + 2 * _GROWN * self._left_um)

    @property
    def _deadband_um(self) -> float:
        return _DEADBAND * self._settings.excursion_um

    def _drift_um(self, time_s: float, z_um: float) -> float:
        return self.tracker.focus_um(time_s) - z_um

    def _check_due_s(self) -> float:
        """When the next check is due."""
        settings = self._settings
        if self._gave_up:
            return math.inf
        if self._failures:
            pause_s = settings.min_interval_s * 2.0 ** (self._failures - 1)
            return self._last_s + min(pause_s, settings.max_interval_s)
        if self.state != "locked":
            return self._last_s + settings.min_interval_s
        return self._uncertain_s()

    def _uncertain_s(self) -> float:
        """When |drift| + 2σ, as far as following cannot help it, exceeds what is allowed."""
        settings = self._settings
        times_s = np.linspace(settings.min_interval_s, settings.max_interval_s, _AHEAD) + self._last_s
        excursion_um = self._deadband_um + 2 * self.tracker.sigma_um(times_s)
        beyond = np.flatnonzero(excursion_um > self._allowed_um)
        return float(times_s[beyond[0]] if len(beyond) else times_s[-1])

    def _follow_due_s(self, now_s: float, z_um: float) -> float:
        """Seconds until the stage has to follow."""
        velocity = self.tracker.velocity_um_per_s
        if velocity == 0:
            return math.inf
        ahead_um = self._drift_um(now_s, z_um) * math.copysign(1, velocity)
        return (self._deadband_um - ahead_um) / abs(velocity)
