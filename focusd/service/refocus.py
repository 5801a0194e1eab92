"""One run of the published search on a rig: probe until the scores are convex, match, move."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusd.autofocus.calibration import Calibration
from focusd.autofocus.observation import Observation, tiles_with_structure
from focusd.autofocus.published import Interval, first_interval, next_probe
from focusd.autofocus.shift import Shift, locate
from focusd.config import AutofocusConfig, StageConfig
from focusd.errors import BudgetError, NoConvergenceError, NoSampleError
from focusd.service.jobs import Report
from focusd.service.observer import Observer, summary
from focusd.sharpness.scorer import Region

MAX_MISFIT = 0.2
"""Largest RMS distance of the scores from the curve, in units of the curve's rise, that is still an answer."""


class Refocus:
    """A search for the focus, from where the stage stands.

    Args:
        roi: (y, x, height, width) in pixels: the part of the field that has to be sharp; None: all of it.
        budget: exposures at most.
        report: receives `focus.progress` after each exposure.
    """

    def __init__(
        self,
        observer: Observer,
        calibration: Calibration,
        stage: StageConfig,
        config: AutofocusConfig,
        *,
        roi: Region | None,
        budget: int,
        report: Report,
    ) -> None:
        self._observer = observer
        self._calibration = calibration
        self._limits_um = (stage.min_um, stage.max_um)
        self._away_is_low = stage.towards_sample == "increasing"
        self._threshold = config.structure_threshold
        self._roi = roi
        self._budget = budget
        self._report = report
        self.observations: list[Observation] = []

    async def run(self) -> dict[str, Any]:
        """Bring the sample into focus and stay there; the stage goes back to its start on any error.

        Raises:
            NoSampleError, SaturatedError, NoConvergenceError, BudgetError, and what the hardware raises.
        """
        began_s = time.monotonic()
        async with self._observer.operation() as start_um:
            interval = first_interval(start_um, self._calibration, self._limits_um)
            await self._probe(interval)
            shift = self._decide()
            z_um = await self._observer.rig.move_to(shift.focus_um)
        return self._result(interval, shift, z_um) | {"seconds": time.monotonic() - began_s}

    async def _probe(self, interval: Interval) -> None:
        """Expose and score until the search is satisfied."""
        while (z_um := self._next_z_um(interval)) is not None:
            if len(self.observations) >= self._budget:
                raise BudgetError(
                    f"{self._budget} exposures show no minimum of the blurriness; allow more exposures, or bring the "
                    "sample closer to focus",
                    probes=self.probes,
                )
            observation = await self._observer.observe(z_um if self.observations else None, self._roi)
            self.observations.append(observation)
            count = {"exposure": len(self.observations), "of": self._budget}
            self._report("focus.progress", summary(observation) | count)

    def _next_z_um(self, interval: Interval) -> float | None:
        seen = self._seen() if self.observations else None
        probes = [(o.z_um, o.mean_b(seen)) for o in self.observations if seen is not None]
        return next_probe(interval, probes, self._away_is_low)

    def _seen(self) -> NDArray[np.bool_]:
        """Tiles that count. One empty frame is forgiven: far out of focus a sample may show nothing."""
        seen = tiles_with_structure(self.observations, self._threshold)
        if seen.any():
            return seen
        if len(self.observations) >= 3:
            raise NoSampleError(
                "the field holds nothing to focus on; move to a textured field, or raise the exposure",
                probes=self.probes,
            )
        return np.ones_like(seen)

    def _decide(self) -> Shift:
        """The focus, or an error that says why there is none."""
        shift = locate(self.observations, self._calibration, self._seen(), self._limits_um)
        if shift.at_edge:
            raise NoConvergenceError(
                "the focus lies beyond the calibrated range or the stage's limits; bring the sample closer to focus",
                probes=self.probes,
            )
        if shift.misfit > MAX_MISFIT * float(np.ptp(self._calibration.b)):
            raise NoConvergenceError(
                f"the scores do not follow the calibration curve (RMS misfit {shift.misfit:.2f}); the field may hold "
                "several depths: choose a region of interest, or calibrate on a more similar sample",
                probes=self.probes,
            )
        if shift.sigma_um > self._calibration.fwhm_um / 4:
            raise NoConvergenceError(
                f"the scores fit no focus clearly (σ = {shift.sigma_um:.1f} µm); try another field or exposure",
                probes=self.probes,
            )
        return shift

    @property
    def probes(self) -> list[dict[str, Any]]:
        """All exposures so far, in order."""
        return [summary(o) for o in self.observations]

    def _result(self, interval: Interval, shift: Shift, z_um: float) -> dict[str, Any]:
        return {
            "outcome": "focused",
            "message": f"the search was clipped to the {interval.clipped}" if interval.clipped else "",
            "clipped": bool(interval.clipped),
            "z_start_um": interval.start_um,
            "z_found_um": z_um,
            "shift_um": z_um - interval.start_um,
            "sigma_um": shift.sigma_um,
            "local_um": [[None if math.isnan(z) else z for z in row] for row in shift.local_um.tolist()],
            "exposures": len(self.observations),
            "probes": self.probes,
        }
