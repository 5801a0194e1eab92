"""What an operation may spend."""

from __future__ import annotations

from dataclasses import dataclass

from focusd.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """Limits of one refocus; None: no limit.

    A device that stalls is no matter of the budget: each call has its deadline (daemon/rig.py).

    Attributes:
        exposures: at most.
        seconds: after which no further exposure is begun.
        dose_ms: exposure time in all, at most.
    """

    exposures: int
    seconds: float | None = None
    dose_ms: float | None = None

    def check(self, exposures: int, elapsed_s: float, exposure_ms: float, dose_ms: float) -> None:
        """Refuse one more exposure that the budget does not hold.

        Raises:
            BudgetError: names what is spent.
        """
        if exposures >= self.exposures:
            raise BudgetError(
                f"{exposures} exposures do not tell the focus well enough; allow more of them, expose longer, or "
                "bring the sample closer to focus"
            )
        if self.seconds is not None and elapsed_s >= self.seconds:
            raise BudgetError(
                f"the focus is not known well enough after {elapsed_s:.1f} s and {exposures} exposures; allow more time"
            )
        if self.dose_ms is not None and dose_ms + exposure_ms > self.dose_ms:
            raise BudgetError(
                f"one more exposure of {exposure_ms:g} ms would exceed the dose of {self.dose_ms:g} ms; allow more"
            )
