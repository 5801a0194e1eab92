"""How the focus is held."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from focusd.config.section import Positive, Section


class HoldConfig(Section):
    """How tightly the focus is held, and at which price in light."""

    fraction: Annotated[float, Field(gt=0, le=5)] = 0.5
    """Of the depth of field: a check is due before |drift| + 2σ exceeds it."""
    min_interval_s: Positive = 20.0
    """Between two checks in the long run; while the drift is learnt some may follow one another within seconds."""
    max_interval_s: Positive = 1800.0
    """At least one check in so many seconds."""
    drift_um_per_min: Positive = 10.0
    """Standard deviation of the drift as far as it is known before the first check; the hold learns what it is."""
    step_um: Positive = 5.0
    """Size of the steps to be expected, as of a medium change."""
    reach_um: Positive = 30.0
    """A check exposes no further than this from where the focus is expected."""
    retries: Annotated[int, Field(ge=0, le=1000)] = 10
    """Checks of a lost hold, ever further apart, before an operator has to look."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_interval_s >= self.max_interval_s:
            raise ValueError("min_interval_s must be below max_interval_s")
        return self
