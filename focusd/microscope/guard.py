"""The one way to move z: a guard that decides, and a stage that obeys it (docs/explanation/safety.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from focusd.config import StageConfig
from focusd.errors import HardwareError, TravelLimitError
from focusd.microscope.protocol import Microscope

_MOST_STEPS = 2.0**53
"""Of a move: shorter ones are none, as far as a float can tell."""
_ROUNDING_UM = 1e-6
"""Play that is less is what floats leave of none."""


@dataclass(frozen=True)
class RunUp:
    """The last way to each z, on which the stage's backlash is taken up, so that all are reached from one side.

    Attributes:
        way: 1: with z increasing; -1: with z decreasing.
        length_um: no less than the backlash; 0: each z is reached from wherever the stage stands.
    """

    way: Literal[1, -1]
    length_um: float

    @property
    def opposite(self) -> Literal[1, -1]:
        """The other way."""
        return -1 if self.way == 1 else 1

    @classmethod
    def of(cls, stage: StageConfig) -> RunUp:
        """Towards the sample: the stage turns round further away from it, and never nearer to it than was asked."""
        return cls(1 if stage.towards_sample == "increasing" else -1, stage.backlash_um)


class _Play:
    """How much of the backlash may still have to be taken up before the stage follows its motor along the run-up.

    Where the stage was before is not known, so that all of it may have to be at first.
    """

    def __init__(self, run_up: RunUp, tolerance_um: float) -> None:
        self._run_up = run_up
        self._tolerance_um = tolerance_um
        self._sent_um = math.nan
        self._loose_um = run_up.length_um

    def sent(self, z_um: float) -> None:
        """The stage is sent to a z."""
        if not math.isnan(self._sent_um):
            self._loose_um = self._after(z_um - self._sent_um)
        self._sent_um = z_um

    def turn_um(self, from_um: float, to_um: float) -> float | None:
        """Where to turn round on the way, so that its last part takes up all play; None: the straight way does."""
        if not abs(from_um - self._sent_um) <= self._tolerance_um:  # also true at first
            self._sent_um, self._loose_um = from_um, self._run_up.length_um
        if self._after(to_um - self._sent_um) <= _ROUNDING_UM:
            return None
        return to_um - self._run_up.way * self._run_up.length_um

    def _after(self, way_um: float) -> float:
        return min(max(self._loose_um - self._run_up.way * way_um, 0.0), self._run_up.length_um)


@dataclass
class _Operation:
    """Where one operation began, and the length of the path it has asked for since."""

    start_um: float
    travelled_um: float = 0.0


class StageGuard:
    """Decides which z may be commanded. It touches no hardware.

    A plan is the absolute z to command one after the other: all inside the limits, none further than `max_step_um`
    from the one before. There may be many of them, so that they are made one by one. Where the stage has backlash, a
    plan goes beyond and comes back, as far as the limits leave room for it, so that each z is reached from one side.
    """

    def __init__(self, limits: StageConfig) -> None:
        self._limits = limits
        self._operation: _Operation | None = None
        self._play = _Play(RunUp.of(limits), limits.tolerance_um)

    def begin_operation(self, start_um: float, run_up: RunUp | None = None) -> None:
        """Start to count the travel anew. What others did with the stage before is not known.

        Args:
            start_um: where the stage stands, the operation's home.
            run_up: from which side each z is reached; None: as configured.
        """
        self._operation = _Operation(start_um)
        self._play = _Play(run_up or RunUp.of(self._limits), self._limits.tolerance_um)

    def plan(self, from_um: float, to_um: float) -> Iterator[float]:
        """The way to a z, counted into the operation's travel. A first move begins an operation if none has.

        Raises:
            TravelLimitError: the z is no number or outside the limits, the stage already stands outside them, or
                the operation's travel would be spent.
        """
        self._require_reachable(from_um, to_um)
        operation = self._operation or _Operation(from_um)
        way = self._way(from_um, to_um)
        path_um = sum(abs(b - a) for a, b in pairwise(way))
        operation.travelled_um = self._spent_um(operation.travelled_um + path_um)
        self._operation = operation
        return self._waypoints(way)

    def plan_return(self, from_um: float) -> Iterator[float] | None:
        """The way back to where the operation began; None if it has moved nothing.

        It costs no travel, so that a spent budget never keeps the stage from coming home.

        Raises:
            TravelLimitError: the stage stands outside the limits.
        """
        if self._operation is None or self._operation.travelled_um == 0:
            return None
        # A stage at its limit may read back slightly outside it.
        home_um = self._clip(self._operation.start_um)
        self._require_reachable(from_um, home_um)
        return self._waypoints(self._way(from_um, home_um))

    def _require_reachable(self, from_um: float, to_um: float) -> None:
        low, high, slack = self._limits.min_um, self._limits.max_um, self._limits.tolerance_um
        limits = {"min_um": low, "max_um": high}
        if not math.isfinite(to_um):
            raise TravelLimitError(f"z = {to_um} is not a position; ask for a finite z in µm", **limits)
        if not low <= to_um <= high:
            name = "min_um" if to_um < low else "max_um"
            raise TravelLimitError(
                f"z = {to_um:.3f} µm is beyond stage.{name}: the limits are {low:g} … {high:g} µm",
                z_um=to_um,
                limit=name,
                **limits,
            )
        if not low - slack <= from_um <= high + slack:
            raise TravelLimitError(
                f"the stage stands at {from_um:.3f} µm, outside its limits {low:g} … {high:g} µm: bring it "
                "inside by hand, or correct stage.min_um and stage.max_um",
                position_um=from_um,
                **limits,
            )

    def _spent_um(self, path_um: float) -> float:
        """The operation's path, if it is allowed to be so long."""
        if path_um > self._limits.max_travel_um:
            raise TravelLimitError(
                f"the move would bring the path of this operation to {path_um:.1f} µm; stage.max_travel_um allows "
                f"{self._limits.max_travel_um:g} µm: start nearer to focus, or raise it",
                limit="max_travel_um",
                max_travel_um=self._limits.max_travel_um,
            )
        return path_um

    def _way(self, from_um: float, to_um: float) -> tuple[float, ...]:
        """The way as its corners: straight, or beyond and back, as far as the limits leave room to go beyond."""
        turn_um = self._play.turn_um(from_um, to_um)
        if turn_um is None:
            return from_um, to_um
        turn_um = self._clip(turn_um)
        lies_between = min(from_um, to_um) <= turn_um <= max(from_um, to_um)
        return (from_um, to_um) if lies_between else (from_um, turn_um, to_um)

    def _waypoints(self, way: tuple[float, ...]) -> Iterator[float]:
        for from_um, to_um in pairwise(way):
            for z_um in self._steps(from_um, to_um):
                self._play.sent(z_um)
                yield z_um

    def _steps(self, from_um: float, to_um: float) -> Iterator[float]:
        way_um = to_um - from_um
        steps = math.ceil(min(abs(way_um) / self._limits.max_step_um, _MOST_STEPS))
        for number in range(1, steps):
            yield self._clip(from_um + way_um * (number / steps))
        yield self._clip(to_um)

    def _clip(self, z_um: float) -> float:
        return min(max(z_um, self._limits.min_um), self._limits.max_um)


class GuardedStage:
    """The z stage as the rest of focusd sees it; the only caller of `Microscope.move_to`. Calls block."""

    def __init__(self, microscope: Microscope, limits: StageConfig) -> None:
        self._microscope = microscope
        self._tolerance_um = limits.tolerance_um
        self._guard = StageGuard(limits)

    def begin_operation(self, run_up: RunUp | None = None) -> float:
        """Start to count the travel anew; returns the z to which `return_to_start` will come back.

        Args:
            run_up: from which side each z is reached in this operation; None: as configured.

        Raises:
            HardwareError: the stage failed.
        """
        start_um = self.position_um()
        self._guard.begin_operation(start_um, run_up)
        return start_um

    def position_um(self) -> float:
        """Where the stage says it is.

        Raises:
            HardwareError: the stage failed.
        """
        return self._microscope.position_um()

    def move_to(self, z_um: float) -> float:
        """Move to an absolute z, in several steps where the way is long; returns the z read back.

        Raises:
            TravelLimitError: the guard refuses; nothing was moved.
            HardwareError: the stage failed, or reads back too far from where it was sent.
        """
        return list(self.steps_to(z_um))[-1]

    def return_to_start(self) -> float:
        """Move back to where the operation began; returns the z read back.

        Raises:
            TravelLimitError: the stage stands outside its limits.
            HardwareError: as for `move_to`.
        """
        return list(self.steps_to_start())[-1]

    def steps_to(self, z_um: float) -> Iterator[float]:
        """`move_to` one step at a time: each `next` moves once and returns the z read back.

        A caller who lets the rest go leaves the stage where it is.
        """
        here_um = self.position_um()
        yield from self._follow(self._guard.plan(here_um, z_um))

    def steps_to_start(self) -> Iterator[float]:
        """`return_to_start` one step at a time; where the stage stands if there is no way to go."""
        here_um = self.position_um()
        plan = self._guard.plan_return(here_um)
        yield from (here_um,) if plan is None else self._follow(plan)

    def _follow(self, plan: Iterator[float]) -> Iterator[float]:
        for z_um in plan:
            self._microscope.move_to(z_um)
            yield self._require_arrival(z_um, self.position_um())

    def _require_arrival(self, sent_um: float, read_um: float) -> float:
        if not abs(read_um - sent_um) <= self._tolerance_um:  # also true of NaN
            raise HardwareError(
                f"the stage was sent to {sent_um:.3f} µm and reads back {read_um:.3f} µm (stage.tolerance_um is "
                f"{self._tolerance_um:g} µm): check that it is free to move, homed, and neither limited by its "
                "controller nor driven by another program",
                sent_um=sent_um,
                read_um=read_um,
            )
        return read_um
