"""What the server asks of the rig."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from focusd.daemon.jobs import Report
from focusd.daemon.slidemap import SlideMap
from focusd.protocol.messages import JsonObject
from focusd.storage.calibrations import Calibrations


class Operations(Protocol):
    """A rig's operations."""

    slide: SlideMap
    """Its focus map: answers at once, whatever runs."""
    calibrations: Calibrations
    """What is kept of them: likewise."""

    async def calibrate(
        self,
        *,
        range_um: float | None,
        step_um: float | None,
        planes_um: list[float] | None,
        report: Report,
    ) -> JsonObject:
        """Take a calibration stack and store its curve."""
        ...

    async def refocus(
        self,
        *,
        roi: tuple[int, int, int, int] | None,
        strategy: str | None,
        max_exposures: int | None,
        max_seconds: float | None,
        max_dose_ms: float | None,
        target_um: float | None,
        prior: tuple[float, float] | None,
        surface: Literal["mean", "median", "nearest"] | None,
        report: Report,
    ) -> JsonObject:
        """Bring the sample into focus."""
        ...

    async def move(self, *, z_um: float, report: Report) -> JsonObject:
        """Move the stage to an absolute z."""
        ...

    async def score(
        self, *, pixels: NDArray[np.unsignedinteger], roi: tuple[int, int, int, int] | None
    ) -> JsonObject:
        """The scores of a client's frame."""
        ...

    async def state(self) -> JsonObject:
        """Where the rig stands. Must answer while a job runs and after a fault."""
        ...
