"""A state machine over the guard: whatever is asked and whatever the stage does, it is never sent out of its limits,
never beyond a z on the sample's side, and an undisturbed stage with backlash comes to each z from one side.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Literal

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from focusd.config import StageConfig
from focusd.errors import HardwareError, TravelLimitError
from focusd.focus.frame import Frame
from focusd.microscope.guard import GuardedStage

STEPS = 50
within = st.floats(-0.1, 1.1)
"""A place as a share of the limits' width."""
anywhere = within | within | st.floats(allow_nan=True, allow_infinity=True).map(lambda share: share * 1e3)


class Stage:
    """A stage that obeys, fails, slips or lies; what it is commanded is kept.

    Args:
        play_um: its backlash.

    Attributes:
        optical_um: where the optics are, which its motor drags along.
    """

    camera_name = "none"

    def __init__(self, play_um: float = 0.0) -> None:
        self.z_um = self.optical_um = 0.0
        self._half_um = play_um / 2
        self.commanded: list[tuple[float, float]] = []
        self.fault = "none"

    def move_to(self, z_um: float) -> None:
        """Move, or not."""
        self.commanded.append((self.position_um(), z_um))
        if self.fault == "raises before":
            raise HardwareError("no power")
        self.drive(z_um + 5.0 if self.fault == "slips" else z_um)
        if self.fault == "raises after":
            raise HardwareError("no answer")

    def drive(self, z_um: float) -> None:
        """Turn the motor, which drags the optics along."""
        self.z_um = z_um
        self.optical_um = min(max(self.optical_um, z_um - self._half_um), z_um + self._half_um)

    def position_um(self) -> float:
        """Where it says it is."""
        return math.nan if self.fault == "lies" else self.z_um

    def snap(self) -> Frame:
        """There is no camera."""
        raise NotImplementedError

    def end_sequence(self) -> None:
        """There is no camera."""

    def stop(self) -> None:
        """Nothing to stop."""

    def close(self) -> None:
        """Nothing to close."""


class GuardMachine(RuleBasedStateMachine):
    """Operations, moves, cancelled moves, returns and faults in any order."""

    @initialize(
        low=st.floats(-100, 0),
        width=st.floats(0.1, 200),
        step=st.floats(0.5, 300),
        travel=st.floats(1, 1000),
        tolerance=st.floats(0.01, 2),
        play=st.just(0.0) | st.floats(0.02, 0.3) | st.floats(0.0, 0.9),
        towards=st.sampled_from(["increasing", "decreasing"]),
    )
    def build(
        self,
        low: float,
        width: float,
        step: float,
        travel: float,
        tolerance: float,
        play: float,
        towards: Literal["increasing", "decreasing"],
    ) -> None:
        self.limits = StageConfig(
            min_um=low,
            max_um=low + width,
            towards_sample=towards,
            backlash_um=play * width,
            max_step_um=step,
            max_travel_um=travel,
            tolerance_um=tolerance,
        )
        self.stage = Stage(self.limits.backlash_um)
        self.stage.drive(low + width / 2)
        self.sign = 1 if towards == "increasing" else -1
        self.is_undisturbed = True
        self.guarded = GuardedStage(self.stage, self.limits)

    @rule()
    def begin_operation(self) -> None:
        self.guarded.begin_operation()
        self.is_undisturbed = self.stage.fault == "none"

    def place_um(self, share: float) -> float:
        """A z from its share of the limits."""
        return self.limits.min_um + share * (self.limits.max_um - self.limits.min_um)

    @rule(share=anywhere)
    def move(self, share: float) -> None:
        z_um, before, from_um = self.place_um(share), len(self.stage.commanded), self.stage.z_um
        try:
            reached_um = self.guarded.move_to(z_um)
        except TravelLimitError:
            assert len(self.stage.commanded) == before, "a refused move moves nothing"
        except HardwareError:
            pass
        else:
            self.comes_from_one_side(z_um, from_um, before)
            assert abs(reached_um - z_um) <= self.limits.tolerance_um

    def comes_from_one_side(self, z_um: float, from_um: float, before: int) -> None:
        """The stage went no further towards the sample than it had to, and took up its play where there was room."""
        nearest = max(self.sign * z_um, self.sign * from_um) + self.limits.tolerance_um
        assert all(self.sign * to_um <= nearest for _, to_um in self.stage.commanded[before:])
        away_um = self.limits.min_um if self.sign == 1 else self.limits.max_um
        if self.is_undisturbed and self.sign * (z_um - away_um) >= self.limits.backlash_um:
            behind_um = self.sign * (z_um - self.stage.optical_um)
            assert abs(behind_um - self.limits.backlash_um / 2) < 1e-3, "it came from away from the sample"

    @rule(share=anywhere, steps=st.integers(0, 3))
    def move_and_be_cancelled(self, share: float, steps: int) -> None:
        with suppress(TravelLimitError, HardwareError):
            way = self.guarded.steps_to(self.place_um(share))
            for _ in range(steps):
                if next(way, None) is None:
                    break

    @rule()
    def return_to_start(self) -> None:
        with suppress(TravelLimitError, HardwareError):
            self.guarded.return_to_start()

    @rule(
        fault=st.sampled_from(
            ["none", "none", "none", "none", "raises before", "raises after", "slips", "lies"]
        )
    )
    def break_or_mend(self, fault: str) -> None:
        self.stage.fault = fault
        self.is_undisturbed = self.is_undisturbed and fault == "none"

    @rule(share=within)
    def somebody_turns_the_knob(self, share: float) -> None:
        self.stage.drive(self.place_um(share))
        self.is_undisturbed = False

    @invariant()
    def all_commands_were_inside(self) -> None:
        for from_um, to_um in getattr(self, "stage", Stage()).commanded:
            assert self.limits.min_um <= to_um <= self.limits.max_um
            reach_um = self.limits.max_step_um + 2 * self.limits.tolerance_um
            assert abs(to_um - from_um) <= reach_um + 1e-9, "one step is no longer than allowed"


def run_guard(steps: int, *, same: bool = False, shortest: bool = True) -> dict[str, int]:
    """Run the machine for about so many steps; raises AssertionError with the shortest way to a violation.

    Args:
        same: the same steps each time.
        shortest: of a violation the shortest way is looked for, which takes a minute; else the first one is told.
    """
    runs = max(1, math.ceil(steps / STEPS))
    commands: list[int] = []

    class Counting(GuardMachine):
        def teardown(self) -> None:
            commands.append(len(getattr(self, "stage", Stage()).commanded))

    given = settings(
        max_examples=runs,
        phases=list(Phase) if shortest else [Phase.generate],
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=same,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Counting, settings=given)
    return {"steps": len(commands) * STEPS, "commanded": sum(commands), "outside": 0}
