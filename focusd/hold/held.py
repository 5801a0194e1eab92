"""What is known of one hold, from `engage` to `release`: what it has learnt, counted, and says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from focusd.hold.lock import Lock
from focusd.hold.tracking import SharpnessWatch
from focusd.protocol.requests import HoldParams
from focusd.protocol.results import RefocusResult
from focusd.protocol.states import Holding, HoldReport, LastCheck

_MOVED_UM = 0.01
"""Less is the noise of what the stage reads back."""
_THICKNESS_EXPOSURES = 3
"""Two exposures look alike whatever the extent of the sample."""


@dataclass(frozen=True)
class Refocused:
    """What somebody else's refocus of the held region has found, and when."""

    time_s: float
    focus_um: float
    sigma_um: float
    by: str


@dataclass
class Held:
    """One hold, from `engage` to `release`. Time is given, never asked for.

    Attributes:
        asked: who holds it, where on the sample, and with what.
        wall_s: what the wall clock was ahead of the hold's own.
        exposure_ms: of one exposure, for the dose.
        refocused: by somebody else, and not learnt from yet.
        rests_um: where the stage stood when the hold's own job began, while that runs.
        at_um: where the hold has last seen the stage.
        checks: that have ended, well or not; those that gave way are not counted.
        moves: of the stage to another place, those of the checks included.
        last_check: when it ended, and how.
        is_thin: whether a check has seen that sample and field are; until something disturbs the hold.
    """

    asked: HoldParams
    dof_um: float
    lock: Lock
    wall_s: float
    exposure_ms: float
    watch: SharpnessWatch = field(default_factory=SharpnessWatch)
    refocused: Refocused | None = None
    rests_um: float | None = None
    at_um: float | None = None
    exposures: int = 0
    checks: int = 0
    moves: int = 0
    last_check: LastCheck | None = None
    is_thin: bool = False

    def seen(self, z_um: float | None) -> None:
        """Count a move, if the stage has been brought to another place."""
        if z_um is not None and self.at_um is not None and abs(z_um - self.at_um) > _MOVED_UM:
            self.moves += 1
        self.at_um = z_um

    def ended(self, outcome: str, wall_s: float) -> None:
        """Count a check."""
        self.checks += 1
        self.last_check = LastCheck(time=_iso(wall_s), outcome=outcome)

    def checked(self, time_s: float, found: RefocusResult) -> None:
        """Learn from a check of its own."""
        self.is_thin |= found.exposures >= _THICKNESS_EXPOSURES and _looks_thin(found)
        self.watch.checked(self.lock.stepped(time_s, found.z_found_um))
        self.lock.checked(time_s, found.z_found_um, found.sigma_um)

    def learn(self) -> bool:
        """Take somebody else's refocus for a check: it has cost its light already. Returns whether there was one."""
        found, self.refocused = self.refocused, None
        if found is None:
            return False
        self.is_thin = False  # it may have been of another place
        self.watch.checked(self.lock.stepped(found.time_s, found.focus_um))
        self.lock.refocused(found.time_s, found.focus_um, found.sigma_um, found.by)
        return True

    def disturbed(self, by: str) -> None:
        """Begin anew: something has moved the stage, or changed the sample."""
        self.lock.disturbed(by)
        self.watch.restart()
        self.is_thin = False

    def learns_from(self, now_s: float, at_um: float | None, z_um: float | None) -> bool:
        """Whether a frame exposed at `at_um` shows the held focus: a plane of a stack or another place does not."""
        if self.lock.tracker.estimate is None or self.state(now_s, z_um) == "lost" or at_um is None:
            return False
        return bool(abs(at_um - self.lock.tracker.focus_um(now_s)) <= self.dof_um / 2)

    def frame(self, now_s: float, sharpness: float) -> bool:
        """Learn from a frame of the held focus. Returns whether it is less sharp than those before it."""
        dropped = self.watch.is_drop(sharpness)
        if dropped or self.watch.is_trusted:
            self.lock.frame(now_s, dropped, self.watch.seen)
        return dropped

    def state(self, now_s: float, z_um: float | None) -> str:
        """In one word, with the stage at `z_um`."""
        return self.lock.standing(now_s, self._resting_um(z_um))[0]

    def standing(self, now_s: float, z_um: float | None) -> Holding:
        """What stays the same until something happens."""
        due_s = self.lock.check_due_s()
        state, reason = self.lock.standing(now_s, self._resting_um(z_um))
        return Holding(
            state=state,
            reason=reason,
            client=self.asked.client,
            position=self.asked.position,
            checks=self.checks,
            last_check=self.last_check,
            next_check=_iso(self.wall_s + due_s) if math.isfinite(due_s) else None,
            moves=self.moves,
            exposures=self.exposures,
            dose_ms=self.exposures * self.exposure_ms,
        )

    def report(self, now_s: float, z_um: float | None) -> HoldReport:
        """The numbers of a drift event; those not known yet are None."""
        due_s = self.lock.check_due_s()
        return HoldReport(
            **dict(self.standing(now_s, z_um)),
            z_um=z_um,
            dof_um=self.dof_um,
            next_check_s=max(0.0, due_s - now_s) if math.isfinite(due_s) else None,
            **_estimate(self.lock, now_s, z_um),
        )

    def _resting_um(self, z_um: float | None) -> float | None:
        """Where the stage stands, but for the probes of a check."""
        return z_um if self.rests_um is None else self.rests_um


def _looks_thin(found: RefocusResult) -> bool:
    """Whether the field is thin as a whole, too: one that slopes looks thick there, though its blocks do not."""
    return not found.thickness_um and found.geometry.shape == "flat"


def _estimate(lock: Lock, now_s: float, z_um: float | None) -> dict[str, Any]:
    names = ("focus_um", "dz_um", "sigma_um", "velocity_um_per_min", "velocity_sigma_um_per_min")
    if lock.tracker.estimate is None:
        return dict.fromkeys(names, None)
    tracker = lock.tracker
    focus_um = tracker.focus_um(now_s)
    dz_um = None if z_um is None else focus_um - z_um
    velocities = (60 * tracker.velocity_um_per_s, 60 * tracker.velocity_sigma_um_per_s)
    return dict(zip(names, (focus_um, dz_um, float(tracker.sigma_um(now_s)), *velocities), strict=True))


def _iso(wall_s: float) -> str:
    """A time of the wall clock, as events have it."""
    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds")
