"""One search on a rig: expose where the search says, until it is satisfied, and move to the focus."""

from __future__ import annotations

from typing import Any

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from focusd.autofocus.focus import Focus, LocalMap, Search
from focusd.errors import FocusdError
from focusd.service.budget import Budget
from focusd.service.jobs import Report
from focusd.service.observer import Observer, summary
from focusd.sharpness.spectra import Region


class Refocus:
    """A search for the focus, from where the stage stands.

    Args:
        search: decides.
        exposure_ms: of the camera.
        roi: (y, x, height, width) in pixels: the part of the field that has to be sharp; None: all of it.
        report: receives `focus.progress` after each exposure.
    """

    def __init__(
        self,
        observer: Observer,
        search: Search,
        budget: Budget,
        *,
        exposure_ms: float,
        roi: Region | None,
        report: Report,
    ) -> None:
        self._observer = observer
        self._search = search
        self._budget = budget
        self._exposure_ms = exposure_ms
        self._roi = roi
        self._report = report

    async def run(self) -> dict[str, Any]:
        """Bring the sample into focus and stay there; the stage goes back to its start on any error.

        Raises:
            NoSampleError, SaturatedError, NoConvergenceError, BudgetError, and what the hardware raises. All hold
            in `data` what was spent, and the exposures.
        """
        async with self._observer.operation() as start_um:
            try:
                focus = await self._find()
                z_um = await self._observer.move_to(focus.z_um)
            except FocusdError as error:
                error.data.update(self._spent())
                raise
        return _found(start_um, focus, z_um) | self._spent()

    async def _find(self) -> Focus:
        """Expose and score until the search is satisfied."""
        await self._expose(None)
        while (z_um := await to_thread.run_sync(self._search.next_z_um)) is not None:
            await self._expose(z_um)
        return await to_thread.run_sync(self._search.decide)

    async def _expose(self, z_um: float | None) -> None:
        """One exposure at z, or where the stage stands."""
        count = len(self._search.observations)
        self._budget.check(count, self._observer.stopwatch.elapsed_s, self._exposure_ms)
        observation = await self._observer.observe(z_um, self._roi)
        await to_thread.run_sync(self._search.add, observation)
        progress = {"exposure": count + 1, "of": self._budget.exposures}
        self._report("focus.progress", summary(observation) | progress)

    def _spent(self) -> dict[str, Any]:
        """Exposures, dose and time so far, and every probe."""
        observations = self._search.observations
        stopwatch = self._observer.stopwatch
        return {
            "exposures": len(observations),
            "dose_ms": len(observations) * self._exposure_ms,
            "seconds": stopwatch.elapsed_s,
            "seconds_by_stage": stopwatch.split(),
            "probes": [summary(o) for o in observations],
        }


def _found(start_um: float, focus: Focus, z_um: float) -> dict[str, Any]:
    return {
        "outcome": "focused",
        "message": focus.message,
        "z_start_um": start_um,
        "focus_um": focus.z_um,
        "z_found_um": z_um,
        "shift_um": focus.z_um - start_um,
        "sigma_um": focus.sigma_um,
        "local": _listed(focus.local),
    }


def _listed(local: LocalMap) -> dict[str, Any]:
    """The map as JSON holds it, null where nothing is known."""
    return {
        "focus_um": _with_nulls(local.focus_um),
        "sigma_um": _with_nulls(local.sigma_um),
        "y_px": local.y_px.tolist(),
        "x_px": local.x_px.tolist(),
    }


def _with_nulls(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(v) else float(v) for v in row] for row in values]
