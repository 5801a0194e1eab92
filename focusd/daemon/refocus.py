"""One search on a rig: expose where the search says, until it is satisfied, and move to the focus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup, TaskStatus

from focusd.daemon.budget import Budget
from focusd.daemon.jobs import Report
from focusd.daemon.observer import Observer, summary
from focusd.daemon.stages import stages
from focusd.errors import BudgetError, FocusdError, OutOfRangeError
from focusd.focus.focus import Focus, Search, Surface, surface_of
from focusd.focus.geometry import Direction, Geometry, describe, geometry_of
from focusd.focus.observation import Observation
from focusd.microscope.protocol import Frame
from focusd.optics.bands import BlockSpectra
from focusd.scoring.spectra import Region

Found = tuple[Focus, Geometry]

NEAR_DOF = 0.05
"""A probe may be so far from where it was asked for, when the stage waits there already: its own z counts."""
NEAR_SIGMA = 0.25
"""So near to the focus, in σ, the stage is not sent again."""


@dataclass(frozen=True)
class Field:
    """What a local map needs to be read.

    Attributes:
        pixel_um: a pixel in the sample; None: not known.
        dof_um: depth of field.
        towards_sample: which way of z brings objective and sample closer.
        surface: of a field that is not flat, what is brought into focus.
    """

    pixel_um: float | None
    dof_um: float
    towards_sample: Direction
    surface: Surface


class Refocus:
    """A search for the focus, from where the stage stands.

    Args:
        search: decides.
        field: how its map of the field is read.
        limits_um: the stage goes nowhere else.
        exposure_ms: of the camera.
        roi: (y, x, height, width) in pixels: the part of the field that has to be sharp; None: all of it.
        report: receives `focus.progress` after each exposure.
    """

    def __init__(
        self,
        observer: Observer,
        search: Search,
        budget: Budget,
        field: Field,
        *,
        limits_um: tuple[float, float],
        exposure_ms: float,
        roi: Region | None,
        report: Report,
    ) -> None:
        self._observer = observer
        self._search = search
        self._budget = budget
        self._field = field
        self._limits_um = limits_um
        self._exposure_ms = exposure_ms
        self._roi = roi
        self._report = report
        self._turn = anyio.Lock()
        """Exposures are added in their order."""

    async def run(self) -> dict[str, Any]:
        """Bring the sample into focus and stay there; the stage goes back to its start on any error.

        Raises:
            NoSampleError, SaturatedError, NoConvergenceError, BudgetError, and what the hardware raises. All hold
            in `data` what was spent, and the exposures.
        """
        async with self._observer.operation() as start_um:
            try:
                focus, geometry = await self._find(start_um)
                target_um, sigma_um = surface_of(focus, geometry, self._field.surface)
                self._require_inside(target_um)
                z_um = await self._observer.move_to(target_um, NEAR_SIGMA * sigma_um)
            except FocusdError as error:
                error.data.update(self._spent())
                raise
        return {
            "outcome": "focused",
            "message": "; ".join(filter(None, (focus.message, _warning(geometry)))),
            "z_start_um": start_um,
            "focus_um": target_um,
            "z_found_um": z_um,
            "shift_um": z_um - start_um,
            "sigma_um": sigma_um,
            "geometry": describe(focus.local, geometry, self._field.pixel_um),
            **self._spent(),
        }

    def _require_inside(self, target_um: float) -> None:
        low_um, high_um = self._limits_um
        if not low_um <= target_um <= high_um:
            raise OutOfRangeError(
                f"the focus, at {target_um:.2f} µm, lies beyond what this search may use, "
                f"{low_um:.1f} to {high_um:.1f} µm; the stage does not go there"
            )

    async def _find(self, start_um: float) -> Found:
        """Expose and score until the search is satisfied."""
        wanted = await self._judged(await self._opened(start_um))
        while isinstance(wanted, float):
            try:
                self._check_budget()
            except BudgetError:
                if self._search.is_usable:
                    return await to_thread.run_sync(self._found)
                raise
            near_um = NEAR_DOF * self._field.dof_um
            wanted = await self._judged(await self._observer.expose(wanted, near_um))
        return wanted

    async def _opened(self, start_um: float) -> Frame:
        """Expose where the search begins, whatever the frames show; all but the last, which is returned, are scored
        meanwhile. Nothing is exposed before light and readout of the frame before it have been checked, and the one
        before that has been scored."""
        planes_um = self._affordable(self._search.opening_um(start_um))
        frames: list[Frame] = []
        async with stages() as scoring:

            async def taken(frame: Frame) -> None:
                frames.append(frame)
                if len(frames) < len(planes_um):
                    await self._observer.check(frame)
                    await scoring.start(self._add, frame)

            await self._observer.sweep(planes_um, taken)
        return frames[-1]

    async def _add(self, frame: Frame, *, task_status: TaskStatus[None]) -> None:
        async with self._turn:
            task_status.started()
            observation = await self._observer.look(frame, self._roi, only=self._search.telling_tiles())
            self._search.add(observation)
        self._tell(observation)

    async def _judged(self, frame: Frame) -> float | Found:
        """The z that is wanted after a frame, or what was found.

        As soon as the search says where it will most likely want the stage, from a quarter of the spectra if they tell
        it, the stage moves there. Nothing is exposed there before the search has decided so.
        """
        async with stages() as moving:
            if self._search.observations:
                observation = await self._taken(frame, moving)
            else:
                observation = await self._observer.look(frame, self._roi)
            self._search.add(observation)
            self._tell(observation)  # also where it is the last one of a search that fails
            return await to_thread.run_sync(self._judge)

    async def _taken(self, frame: Frame, moving: TaskGroup) -> Observation:
        """All that a frame tells: its score, and at the same time the spectra."""
        foresee = partial(self._search.likely_um, frame.z_um)
        some, likely_um = await self._observer.glimpse(frame, self._roi, foresee, thinned=True)
        if likely_um is not None:
            moving.start_soon(self._observer.move_to, likely_um)
        blocks: list[BlockSpectra] = []

        async def complete() -> None:
            blocks.append(await self._completed(frame, some, likely_um, moving))

        async with stages() as completing:
            completing.start_soon(complete)
            scored = await self._observer.look(frame, self._roi, some, self._search.telling_tiles())
        return replace(scored, blocks=blocks[0])

    async def _completed(
        self, frame: Frame, some: BlockSpectra, likely_um: float | None, moving: TaskGroup
    ) -> BlockSpectra:
        """All the spectra; if they tell where to move and a quarter of them did not, the stage moves."""

        def foresee(spectra: BlockSpectra) -> float | None:
            return self._search.likely_um(frame.z_um, spectra) if likely_um is None else None

        spectra, focus_um = await self._observer.glimpse(frame, self._roi, foresee, known=some)
        if focus_um is not None:
            moving.start_soon(self._observer.move_to, focus_um)
        return spectra

    def _judge(self) -> float | Found:
        """What the search makes of the exposures so far."""
        z_um = self._search.next_z_um()
        return self._found() if z_um is None else float(z_um)

    def _found(self) -> Found:
        focus, field = self._search.decide(), self._field
        return focus, geometry_of(focus.local, field.pixel_um, field.dof_um, field.towards_sample)

    def _tell(self, observation: Observation) -> None:
        progress = {"exposure": len(self._search.observations), "of": self._budget.exposures}
        self._report("focus.progress", summary(observation) | progress)

    def _check_budget(self, ahead: int = 0) -> None:
        """Refuse one more exposure, after those taken and some that are still to be taken before it."""
        exposures = len(self._search.observations) + ahead
        elapsed_s = self._observer.stopwatch.elapsed_s + ahead * self._exposure_ms / 1000
        dose_ms = self._dose_ms + ahead * self._exposure_ms
        try:
            self._budget.check(exposures, elapsed_s, self._exposure_ms, dose_ms)
        except BudgetError as error:
            known = self._search.so_far()
            raise BudgetError(error.message + self._known_in_words(known), **known) from None

    def _known_in_words(self, known: dict[str, float]) -> str:
        """What the search knows by now of the focus."""
        return _in_words(known) or (f"; {told}" if (told := self._search.whereabouts) else "")

    def _affordable(self, planes_um: list[float]) -> list[float]:
        """As many of the first planes as the budget holds.

        Raises:
            BudgetError: it holds none.
        """
        self._check_budget()
        count = 1
        while count < len(planes_um) and self._can_afford_after(count):
            count += 1
        return planes_um[:count]

    def _can_afford_after(self, ahead: int) -> bool:
        try:
            self._check_budget(ahead)
        except BudgetError:  # to be raised once those before have been scored
            return False
        return True

    @property
    def _dose_ms(self) -> float:
        return self._observer.stopwatch.exposures * self._exposure_ms

    def _spent(self) -> dict[str, Any]:
        """Exposures, dose and time so far, and every probe."""
        observations = self._search.observations
        stopwatch = self._observer.stopwatch
        return {
            "exposures": len(observations),
            "dose_ms": self._dose_ms,
            "seconds": stopwatch.elapsed_s,
            "seconds_by_stage": stopwatch.split(),
            "probes": [summary(o) for o in observations],
        }


def _in_words(known: dict[str, float]) -> str:
    """What a search that has to end knows by then."""
    if not known:
        return ""
    so_far = f"; so far it is {known['focus_um']:.2f} ± {known['sigma_um']:.2f} µm"
    return f"{so_far}, and ± {known['target_um']:.2f} µm is asked for (target_um)"


def _warning(geometry: Geometry) -> str:
    """The field's shape in words, where one z cannot bring all of it into focus."""
    return geometry.reason if geometry.shape in ("tilted", "stepped", "thick") else ""
