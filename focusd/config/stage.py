"""The z stage and its limits."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from focusd.config.section import Finite, NonNegative, Positive, Section


class StageConfig(Section):
    """The z stage and the limits that no move may pass."""

    min_um: Finite
    """No move ever goes below."""
    max_um: Finite
    """No move ever goes above."""
    towards_sample: Literal["increasing", "decreasing"]
    """Which way of z brings objective and sample closer. It must be said: a wrong guess breaks objectives."""
    max_step_um: Positive = 300.0
    """Longer moves are split into steps of this."""
    max_travel_um: Positive = 3000.0
    """Total path of one operation."""
    tolerance_um: Positive = 0.5
    """A stage that reads back further than this from where it was sent is at fault."""
    backlash_um: NonNegative = 0.0
    """So far the stage goes beyond a z, away from the sample, and comes back, where it would else not reach it by a way
    towards the sample: more than its backlash, which `focusctl backlash` measures. 0: it goes straight."""
    timeout_s: Positive = 10.0
    """A hardware call that takes longer is a fault, after which focusd stands still."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_um >= self.max_um:
            raise ValueError(f"min_um {self.min_um} must be below max_um {self.max_um}")
        if self.backlash_um >= self.max_um - self.min_um:
            raise ValueError(
                f"backlash_um {self.backlash_um} leaves no z that the stage could come to from beyond"
            )
        return self
