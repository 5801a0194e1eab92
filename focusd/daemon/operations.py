"""What focusd does to a rig on request: calibrate, refocus, move. However an operation ends but well, the stage
goes back to where it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import anyio
import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from focusd.autofocus import Autofocus
from focusd.config import ClientConfig, RigConfig
from focusd.daemon.backlash import BacklashMeasurement, Prior
from focusd.daemon.driving import CalibrationDriving, RefocusDriving
from focusd.daemon.jobs import Report
from focusd.daemon.metrics import QUEUE
from focusd.daemon.operation import operation_on
from focusd.daemon.rig import Rig
from focusd.daemon.slidemap import SlideMap, map_files
from focusd.errors import FocusdError
from focusd.focus.calibrating import CalibrationRun
from focusd.focus.frame import RecentFrames
from focusd.focus.refocus import RefocusRun
from focusd.microscope.disconnected import ClientsMicroscope
from focusd.protocol.requests import BacklashParams, CalibrateParams, MoveParams, RefocusParams
from focusd.protocol.results import BacklashResult, CalibrationResult, MoveResult, RefocusResult, Score
from focusd.protocol.states import RigState
from focusd.scoring.scorer import Scorer
from focusd.scoring.single import score_of
from focusd.scoring.spectra import Region
from focusd.storage.store import CalibrationStore
from focusd.storage.worker import Look

MAPPED = ("objective", "magnification", "na", "immersion_index", "camera")
"""Of a calibration's fingerprint, what a focus map belongs to."""


class RigOperations:
    """The operations of one rig."""

    def __init__(self, config: RigConfig, rig: Rig, scorer: Scorer, store: CalibrationStore) -> None:
        self._config = config
        self._rig = rig
        self.autofocus = Autofocus(config, scorer, store, rig.camera_name)
        self.calibrations = self.autofocus.calibrations
        self._recent = RecentFrames()
        self.slide = SlideMap(
            *map_files(config.state_folder / "maps", config.objective.name),
            depth_of_field_um=self.autofocus.depth_of_field_um,
            fingerprint={name: self.autofocus.fingerprint[name] for name in MAPPED},
        )
        self._calibrated = Look(lambda: self.calibrations.state())
        self._turn = anyio.CapacityLimiter(1)  # clients' frames wait for one another, not the rig's for them

    async def calibrate(self, asked: CalibrateParams, report: Report) -> CalibrationResult:
        """Take a stack around where the stage stands, fit b_calib(z), save it, go back.

        Args:
            report: receives `focus.progress` after each plane and `focus.done` or `focus.failed`.

        Raises:
            CalibrationError: no usable curve; NoSampleError: an empty field; and what the hardware raises.
        """
        calibrate: Callable[..., CalibrationRun] = self.autofocus.calibrate
        begin = partial(calibrate, recent=self._recent, **asked.options())
        with _reported(report, "calibrate"):
            async with operation_on(self._rig) as operation:
                run = await to_thread.run_sync(begin, operation.start_um)
                result = await CalibrationDriving(operation, run, report).drive()
        report("focus.done", {"kind": "calibrate", **result.model_dump()})
        return result

    async def refocus(
        self,
        asked: RefocusParams,
        report: Report,
        *,
        usable_um: float | None = None,
        within_um: tuple[float, float] | None = None,
        is_thin: bool = False,
    ) -> RefocusResult:
        """Bring the sample into focus, and stay there.

        Args:
            usable_um: σ with which the search may end when its budget is spent, as in `Autofocus.refocus`.
            within_um: lowest and highest z to expose at or to move to, besides the limits.
            is_thin: the sample is known to be thin.
            report: receives `focus.progress` after each exposure and `focus.done` or `focus.failed`.

        Raises:
            CalibrationError, NoSampleError, SaturatedError, NoConvergenceError, and what the hardware raises.
        """
        refocus: Callable[..., RefocusRun] = self.autofocus.refocus
        begin = partial(refocus, recent=self._recent, usable_um=usable_um, is_thin=is_thin, **asked.options())
        self.slide.forget_focus()
        with _reported(report, "refocus"):
            async with operation_on(self._rig) as operation:
                run = await to_thread.run_sync(begin, operation.start_um, within_um)
                result = await RefocusDriving(operation, run, report).drive()
        self.slide.focused(result.z_found_um, result.sigma_um)
        report("focus.done", {"kind": "refocus", **result.model_dump()})
        return result

    async def move(self, asked: MoveParams, report: Report) -> MoveResult:
        """Move the stage to an absolute z, through the guard.

        Raises:
            TravelLimitError: outside the limits; and what the hardware raises.
        """
        async with operation_on(self._rig) as operation:
            operation.leave()
            reached_um = await self._rig.move_to(asked.z_um)
        return MoveResult(z_start_um=operation.start_um, z_um=reached_um)

    async def backlash(self, asked: BacklashParams, report: Report) -> BacklashResult:
        """Measure the stage's backlash: by searches whose planes are approached from below, and others from above.

        What is configured against backlash counts for nothing meanwhile.

        Raises:
            CalibrationError, NoSampleError, SaturatedError, NoConvergenceError, and what the hardware raises.
        """

        def begin(z_um: float, within_um: tuple[float, float], prior: Prior | None) -> RefocusRun:
            return self.autofocus.refocus(z_um, within_um, prior=prior, recent=self._recent)

        with _reported(report, "backlash"):
            dof_um, exposure_ms = await self.depth_of_field_um(), self._config.camera.exposure_ms
            measurement = BacklashMeasurement(
                self._rig, self._config.stage, begin, dof_um, exposure_ms, report
            )
            result = await measurement.measure(asked)
        report("focus.done", {"kind": "backlash", **result.model_dump()})
        return result

    def require_hardware(self) -> None:
        """Refuse what needs a camera and a stage of the daemon's own.

        Raises:
            RequestError: they are the clients'.
        """
        if isinstance(self._config.microscope, ClientConfig):
            raise ClientsMicroscope.refusal()

    def found_by_client(self, result: RefocusResult) -> None:
        """Remember where a client has found the focus, for the map of the slide, if the microscope is the clients'."""
        if isinstance(self._config.microscope, ClientConfig):
            self.slide.focused(result.focus_um, result.sigma_um)

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
        calibration = await to_thread.run_sync(self.calibrations.in_force)
        return self.calibrations.depth_of_field_um(calibration)

    async def score(self, *, pixels: NDArray[np.unsignedinteger], roi: Region | None) -> Score:
        """The scores of a frame that somebody else has exposed: b over the tiles that show something, or None.

        Raises:
            RequestError: no frame, or the region is not inside it.
        """
        configured = self._config.autofocus

        def score() -> Score:
            return score_of(
                self.autofocus.scorer,
                pixels,
                roi,
                threshold=configured.structure_threshold,
                max_saturated=configured.max_saturated,
                sensor=self.autofocus.sensor(),
            )

        with QUEUE.labels("frames").track_inprogress():
            return await to_thread.run_sync(score, limiter=self._turn)

    async def state(self) -> RigState:
        """Where the stage is, what is calibrated, and what is wrong; never waits for the hardware."""
        return RigState(
            rig=self._config.name,
            microscope=self._config.microscope.kind,
            note=self._config.note or None,
            objective=self._config.objective.name,
            camera=self._rig.camera_name,
            z_um=self._rig.last_z_um,
            limits_um=[self._config.stage.min_um, self._config.stage.max_um],
            fault=self._rig.fault,
            unrecorded=self._rig.unrecorded,
            model=self.autofocus.scorer.model.name,
            backend=self.autofocus.scorer.backend,
            calibration=await self._calibrated.seen(),
        )


@contextmanager
def _reported(report: Report, kind: str) -> Iterator[None]:
    """Publish `focus.failed` when the block raises."""
    try:
        yield
    except Exception as error:
        told = error if isinstance(error, FocusdError) else FocusdError(repr(error))
        report("focus.failed", {"kind": kind, "outcome": told.outcome, "reason": told.message})
        raise
