"""From which side the stage comes: at the answer, from the same side as at the exposure that verified it.

A stage with backlash, and one that reports its arrival too early, stand to the side that they come from. The last
exposure has seen that offset, so that an answer approached from the same side is right, whatever the offset is.
"""

from __future__ import annotations

import math


class Approach:
    """The moves of one operation, as far as the side matters from which the stage has come.

    Args:
        start_um: where the stage stands at first; it is not known from which side it came there.
    """

    def __init__(self, start_um: float) -> None:
        self._at_um = start_um
        self._way = self._way_exposed = 0.0
        self._has_turned = False

    def sent(self, z_um: float) -> None:
        """The stage is sent to a z."""
        if z_um != self._at_um:
            self._way = math.copysign(1.0, z_um - self._at_um)
            self._has_turned = self._has_turned or self._way != self._way_exposed
        self._at_um = z_um

    def exposed(self) -> None:
        """An exposure is made where the stage stands."""
        self._way_exposed, self._has_turned = self._way, False

    def first_um(self, z_um: float, by_um: float) -> float | None:
        """Where to go before a z, so that it is approached as at the last exposure; None: straight there.

        Args:
            by_um: how far to go beyond; more than the backlash.
        """
        if not self._way_exposed:
            return None
        goes_on = z_um == self._at_um or math.copysign(1.0, z_um - self._at_um) == self._way_exposed
        return None if goes_on and not self._has_turned else z_um - self._way_exposed * by_um
