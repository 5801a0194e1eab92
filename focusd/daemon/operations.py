"""What focusd does to a rig on request: calibrate, refocus, move. However an operation ends but well, the stage
goes back to where it began.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from focusd.config import RigConfig, StageConfig
from focusd.daemon.budget import Budget
from focusd.daemon.calibrations import Calibrations
from focusd.daemon.jobs import Report
from focusd.daemon.observer import Observer, summary
from focusd.daemon.pipeline import take_stack
from focusd.daemon.refocus import Field, Refocus
from focusd.daemon.rig import Rig
from focusd.daemon.slidemap import SlideMap, map_files
from focusd.daemon.stack import rehearse
from focusd.daemon.store import CalibrationStore
from focusd.errors import FocusdError, NoSampleError, OutOfRangeError, RequestError
from focusd.focus.calibration import (
    Calibration,
    Fingerprint,
    calibrate,
    is_past_focus,
    pupil_ahead,
)
from focusd.focus.focus import Search, Surface
from focusd.focus.observation import Observation
from focusd.focus.planes import check_planes, probes_um, stack_um
from focusd.focus.posterior import Prior
from focusd.focus.published import PublishedSearch
from focusd.focus.pupil import PupilFit
from focusd.focus.search import USABLE_DOF, PosteriorSearch
from focusd.optics.instrument import Instrument
from focusd.scoring.scorer import Scorer
from focusd.scoring.spectra import Region
from focusd.scoring.views import PREPROCESSING_VERSION

Result = dict[str, Any]

MAPPED = ("objective", "magnification", "na", "immersion_index", "camera")
"""Of a calibration's fingerprint, what a focus map belongs to."""


class RigOperations:
    """The operations of one rig."""

    def __init__(self, config: RigConfig, rig: Rig, scorer: Scorer, store: CalibrationStore) -> None:
        self._config = config
        self._rig = rig
        search = config.autofocus
        self._observer = Observer(rig, scorer, search.max_saturated, search.structure_threshold)
        self._scorer = scorer
        self._instrument = Instrument.from_config(config.objective, config.camera)
        self._fingerprint = _fingerprint(config, rig.camera_name, scorer)
        self.calibrations = Calibrations(store, config.objective.name, self._fingerprint, self._instrument)
        self.slide = SlideMap(
            *map_files(config.state_dir / config.name / "maps", config.objective.name),
            depth_of_field_um=lambda: self._depth_of_field_um(self._calibration),
            fingerprint={name: self._fingerprint[name] for name in MAPPED},
        )
        self._told: Result = {}
        self._looked_s = -math.inf
        self._looking, self._looker = anyio.Lock(), anyio.CapacityLimiter(1)

    async def calibrate(
        self,
        *,
        range_um: float | None,
        step_um: float | None,
        planes_um: list[float] | None,
        report: Report,
    ) -> Result:
        """Take a stack around where the stage stands, fit b_calib(z), save it, go back.

        Args:
            range_um, step_um: half the stack and the distance of its planes; None: as configured.
            planes_um: the planes themselves, instead of range and step.
            report: receives `focus.progress` after each plane and `focus.done` or `focus.failed`.

        Raises:
            CalibrationError: no usable curve; NoSampleError: an empty field; and what the hardware raises.
        """
        offsets = self._offsets(range_um, step_um)
        with _reported(report, "calibrate"):
            await to_thread.run_sync(self.calibrations.require_room)
            async with self._observer.operation() as start_um:
                planes = check_planes(
                    (start_um + offsets).tolist() if planes_um is None else planes_um, self._instrument
                )
                probes = probes_um(planes, start_um, self._instrument)
                rehearse([*probes, *planes], start_um, self._config.stage)
                told = _Progress(report, len(planes))
                await self._refuse_empty(probes, told)
                known: list[PupilFit] = []
                calibration, focus_um, kept = await take_stack(
                    self._observer,
                    planes,
                    told,
                    lambda observations: self._judge_stack(observations, *known),
                    lambda observations: self._fit_ahead(observations, known),
                )
        result = self.calibrations.describe(calibration) | {
            **kept,
            "planes": len(planes),
            "exposures": self._observer.stopwatch.exposures,
            "z_focus_um": focus_um,
            "message": _told(kept["message"], _warning(calibration), self._config.note),
        }
        report("focus.done", {"kind": "calibrate", **result})
        return result

    async def _refuse_empty(self, probes_um: list[float], told: _Progress) -> None:
        """Look for structure near the start, before the whole stack is exposed.

        Raises:
            NoSampleError: nothing is seen at any of these z.
        """
        threshold = self._config.autofocus.structure_threshold
        for z_um in probes_um:
            seen = await self._observer.look(await self._observer.expose(z_um), None)
            told.probed(seen)
            if (seen.structure >= threshold).any():
                return
        raise NoSampleError(
            f"the field is empty as far as {len(probes_um)} exposures from {min(probes_um):.4g} to "
            f"{max(probes_um):.4g} µm show: choose a textured, flat field, focus it by eye, and expose longer if "
            "its image is dim",
            z_um=probes_um,
        )

    def _judge_stack(
        self, observations: list[Observation], known: PupilFit | None = None
    ) -> tuple[Calibration, float, Result]:
        """The stack's calibration, the z of its focus, and what has become of it on disk."""
        threshold = self._config.autofocus.structure_threshold
        calibration, focus_um = calibrate(observations, self._fingerprint, threshold, self._instrument, known)
        return calibration, focus_um, self.calibrations.add(calibration)

    def _fit_ahead(self, observations: list[Observation], known: list[PupilFit]) -> Callable[[], None] | None:
        """The fit of the pupil, once the stack holds all that it looks at: what it gives is added to `known`."""
        instrument, taken = self._instrument, list(observations)
        if instrument is None or not is_past_focus(taken, instrument):
            return None

        def fit() -> None:
            with suppress(Exception):  # with all planes it fails again, and says why, or does not
                known.append(pupil_ahead(taken, instrument))

        return fit

    async def refocus(
        self,
        *,
        roi: Region | None,
        strategy: str | None,
        max_exposures: int | None,
        max_seconds: float | None = None,
        max_dose_ms: float | None = None,
        target_um: float | None = None,
        usable_um: float | None = None,
        prior: tuple[float, float] | None = None,
        within_um: tuple[float, float] | None = None,
        surface: Surface | None = None,
        report: Report,
    ) -> Result:
        """Bring the sample into focus, and stay there. None: as configured.

        Args:
            roi: (y, x, height, width) in pixels: the part of the field that has to be sharp; None: all of it.
            strategy: `posterior` or `published`.
            max_exposures, max_seconds, max_dose_ms: the budget.
            target_um: σ at which the posterior search ends.
            usable_um: σ with which it may end when its budget is spent; None: `target_um` if that is given, else a
                quarter of the depth of field.
            prior: z and σ of the focus as far as it is known, for a warm start of the posterior search.
            within_um: lowest and highest z to expose at or to move to, besides the limits.
            surface: what of a field that is not flat is brought into focus.
            report: receives `focus.progress` after each exposure and `focus.done` or `focus.failed`.

        Raises:
            CalibrationError, NoSampleError, SaturatedError, NoConvergenceError, and what the hardware raises.
        """
        config, chosen = self._config.autofocus, strategy or self._config.autofocus.strategy
        budget = Budget(
            max_exposures or config.max_exposures,
            max_seconds or config.max_seconds,
            max_dose_ms or config.max_dose_ms,
        )
        self.slide.forget_focus()
        with _reported(report, "refocus"):
            calibration = await to_thread.run_sync(self._calibration)
            limits_um = _inside(self._config.stage, within_um)
            search = self._search(chosen, calibration, limits_um, target_um, usable_um, prior)
            run = Refocus(
                self._observer,
                search,
                budget,
                self._field(calibration, surface),
                limits_um=limits_um,
                exposure_ms=self._config.camera.exposure_ms,
                roi=roi,
                report=report,
            )
            found = await run.run()
            result = found | {
                "strategy": chosen,
                "dof_um": self._depth_of_field_um(lambda: calibration),
                "message": _told(found["message"], self._config.note),
            }
        self.slide.focused(result["z_found_um"], result["sigma_um"])
        report("focus.done", {"kind": "refocus", **result})
        return result

    def _field(self, calibration: Calibration, surface: Surface | None) -> Field:
        return Field(
            self._instrument.pixel_um if self._instrument else None,
            self._depth_of_field_um(lambda: calibration),
            self._config.stage.towards_sample,
            surface or self._config.autofocus.surface,
        )

    def _search(
        self,
        strategy: str,
        calibration: Calibration,
        limits_um: tuple[float, float],
        target_um: float | None,
        usable_um: float | None,
        prior: tuple[float, float] | None,
    ) -> Search:
        """A new search.

        Raises:
            RequestError: there is no such strategy.
        """
        config = self._config.autofocus
        away_is_low = self._config.stage.towards_sample == "increasing"
        threshold = config.structure_threshold
        if strategy == "published":
            return PublishedSearch(calibration, limits_um, away_is_low=away_is_low, threshold=threshold)
        if strategy != "posterior":
            raise RequestError(
                f"unknown strategy {strategy!r}; this focusd knows 'posterior' and 'published'"
            )
        dof_um = self._depth_of_field_um(lambda: calibration)
        return PosteriorSearch(
            calibration,
            limits_um,
            away_is_low=away_is_low,
            threshold=threshold,
            target_um=target_um or config.target_dof * dof_um,
            usable_um=usable_um or target_um or USABLE_DOF * dof_um,
            verify=config.verify,
            prior=Prior(*prior) if prior else None,
        )

    async def move(self, *, z_um: float, report: Report) -> Result:
        """Move the stage to an absolute z, through the guard.

        Raises:
            TravelLimitError: outside the limits; and what the hardware raises.
        """
        async with self._observer.operation() as start_um:
            reached_um = await self._rig.move_to(z_um)
        return {"z_start_um": start_um, "z_um": reached_um}

    @property
    def z_um(self) -> float | None:
        """The last z read back, without asking the stage."""
        return self._rig.last_z_um

    @property
    def fault(self) -> str | None:
        """What is wrong with the hardware, for good; None: nothing."""
        return self._rig.fault

    async def depth_of_field_um(self) -> float:
        """What errors of the focus are measured in.

        Raises:
            CalibrationError: there is no usable calibration.
        """
        calibration = await to_thread.run_sync(self._calibration)
        return self._depth_of_field_um(lambda: calibration)

    async def score(self, *, pixels: NDArray[np.unsignedinteger], roi: Region | None) -> Result:
        """The scores of a frame that somebody else has exposed: b over the tiles that show something, or None.

        Raises:
            RequestError: no frame, or the region is not inside it.
        """
        return await self._observer.score(pixels, roi)

    async def state(self) -> Result:
        """Where the stage is, what is calibrated, and what is wrong; never waits for the hardware."""
        return {
            "rig": self._config.name,
            "microscope": self._config.microscope.kind,
            **({"note": self._config.note} if self._config.note else {}),
            "objective": self._objective,
            "camera": self._rig.camera_name,
            "z_um": self._rig.last_z_um,
            "limits_um": [self._config.stage.min_um, self._config.stage.max_um],
            "fault": self._rig.fault,
            "unrecorded": self._rig.unrecorded,
            "model": self._scorer.model.name,
            "backend": self._scorer.backend,
            "calibration": await self._told_calibration(),
        }

    async def _told_calibration(self) -> Result:
        """What is calibrated, as the disk says now. One look answers all who asked before it began."""
        asked_s = time.perf_counter()
        async with self._looking:
            if self._looked_s < asked_s:
                self._looked_s = time.perf_counter()
                self._told = await to_thread.run_sync(self.calibrations.state, limiter=self._looker)
        return self._told

    @property
    def _objective(self) -> str:
        return self._config.objective.name

    def _offsets(self, range_um: float | None, step_um: float | None) -> NDArray[np.float64]:
        """The stack's planes, relative to where the stage stands."""
        configured = self._config.calibration
        usual_range_um, usual_step_um = stack_um(self._instrument)
        half = range_um or configured.range_um or usual_range_um
        step = step_um or configured.step_um or usual_step_um
        if not 3 <= half / step <= 500:
            raise RequestError(
                f"±{half} µm in steps of {step} µm is no stack; take 3 to 500 steps to each side"
            )
        return np.arange(-half, half + step / 2, step)

    def _calibration(self) -> Calibration:
        """The objective's calibration, if it fits the rig as it is."""
        return self.calibrations.in_force()

    def _depth_of_field_um(self, calibration: Callable[[], Calibration]) -> float:
        """By the formula, or, where NA or magnification is not known, as the calibration tells it."""
        return self._instrument.depth_of_field_um if self._instrument else calibration().axial_unit_um


def _inside(stage: StageConfig, within_um: tuple[float, float] | None) -> tuple[float, float]:
    """The z that a search may use: inside the limits, and inside what is given besides.

    Raises:
        OutOfRangeError: nothing is left.
    """
    low_um, high_um = within_um or (stage.min_um, stage.max_um)
    low_um, high_um = max(low_um, stage.min_um), min(high_um, stage.max_um)
    if low_um >= high_um:
        raise OutOfRangeError(
            f"nothing is left between {low_um:.1f} and {high_um:.1f} µm inside the stage's limits, "
            f"{stage.min_um:g} … {stage.max_um:g} µm"
        )
    return low_um, high_um


def _told(*messages: str) -> str:
    return "; ".join(filter(None, messages))


def _warning(calibration: Calibration) -> str:
    """What a user should know of a calibration, empty if nothing."""
    planes, telling = len(calibration.transfer.z_um), len(calibration.z_um)
    if telling == planes:
        return ""
    return (
        f"the score tells the depth from {calibration.min_um:.3g} to {calibration.max_um:.3g} µm only, on {telling} of "
        f"{planes} planes: further out it rises no more, as in phase contrast, and the spectra alone show the way"
    )


class _Progress:
    """Reports each exposure of a stack, and of the probes before it."""

    def __init__(self, report: Report, planes: int) -> None:
        self._report = report
        self._taken, self._of = 0, planes

    def probed(self, observation: Observation) -> None:
        """An exposure that does not belong to the stack."""
        self._of += 1
        self(observation)

    def __call__(self, observation: Observation) -> None:
        self._taken += 1
        told = {"exposure": self._taken, "of": self._of}
        self._report("focus.progress", summary(observation) | told)


@contextmanager
def _reported(report: Report, kind: str) -> Iterator[None]:
    """Publish `focus.failed` when the block raises."""
    try:
        yield
    except Exception as error:
        told = error if isinstance(error, FocusdError) else FocusdError(repr(error))
        report("focus.failed", {"kind": kind, "outcome": told.outcome, "reason": told.message})
        raise


def _fingerprint(config: RigConfig, camera_name: str, scorer: Scorer) -> Fingerprint:
    """All that a calibration depends on."""
    return {
        "objective": config.objective.name,
        "magnification": config.objective.magnification,
        "na": config.objective.na,
        "immersion_index": config.objective.immersion_index,
        "wavelength_um": config.objective.wavelength_um,
        "camera": camera_name,
        "pixel_um": config.camera.pixel_um,
        "binning": config.camera.binning,
        "model_sha256": scorer.model.sha256,
        "preprocessing": PREPROCESSING_VERSION,
    }
