"""The engine behind every door: it measures frames, keeps calibrations, and makes the runs that calibrate and refocus.

It owns no hardware, no thread and no clock. The daemon, ask and tell, embedded rigs and the benches all use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focusd.config import RigConfig, StageConfig, load_config
from focusd.errors import CalibrationError, OutOfRangeError, RequestError
from focusd.focus.budget import Budget
from focusd.focus.calibrating import CalibrationRun
from focusd.focus.calibration import Calibration, Fingerprint
from focusd.focus.far import FarSearch
from focusd.focus.focus import Search, Surface
from focusd.focus.frame import RecentFrames
from focusd.focus.given import Given
from focusd.focus.planes import check_planes, probes_um, stack_um
from focusd.focus.posterior import Prior
from focusd.focus.published import PublishedSearch
from focusd.focus.refocus import Field, RefocusRun
from focusd.focus.scale import ScaleMemory
from focusd.focus.search import USABLE_DOF, PosteriorSearch
from focusd.focus.sensor import PLAIN, Sensor
from focusd.microscope.rehearsing import rehearse
from focusd.microscope.stills import Still, still
from focusd.optics.instrument import Instrument
from focusd.scoring.choice import open_scorer
from focusd.scoring.measuring import Measuring, MeasuringPairs
from focusd.scoring.pace import REMEMBERED
from focusd.scoring.scorer import Scorer
from focusd.scoring.spectra import Region
from focusd.scoring.stack import StackMeasuring
from focusd.scoring.views import PREPROCESSING_VERSION
from focusd.storage.calibrations import Calibrations
from focusd.storage.store import CalibrationStore


class Autofocus:
    """Makes the runs of one rig: frames in, focus out.

    Args:
        config: of the rig, or the file that holds it.
        scorer, store: None: as configured.
        camera_name: as calibrations record it; None: as configured.

    Raises:
        ConfigError: the file is missing or wrong.
        ModelError: the weights are missing or damaged.

    Example:
        af = Autofocus("rig.toml")
        run = af.refocus(z_um=0.0)
        while run.expose_um:
            run.tell(Frame(pixels_at(run.expose_um[0]), z_um=run.expose_um[0]))
        print(run.result.focus_um)
    """

    def __init__(
        self,
        config: RigConfig | Path | str,
        scorer: Scorer | None = None,
        store: CalibrationStore | None = None,
        camera_name: str | None = None,
    ) -> None:
        self.config = config = config if isinstance(config, RigConfig) else load_config(Path(config))
        self.scorer = scorer or open_scorer(config)
        self.instrument = Instrument.from_config(config.objective, config.camera)
        self.fingerprint = _fingerprint(config, camera_name or config.camera.name, self.scorer)
        self._scale_of: Calibration | None = None
        self._scale_memory = ScaleMemory()
        self.calibrations = Calibrations(
            store or CalibrationStore(config.state_folder / "calibrations"),
            config.objective.name,
            self.fingerprint,
            self.instrument,
        )

    def calibrate(
        self,
        z_um: float,
        limits_um: tuple[float, float] | None = None,
        *,
        range_um: float | None = None,
        step_um: float | None = None,
        planes_um: Sequence[float] | None = None,
        flat: Still | None = None,
        dark: Still | None = None,
        recent: RecentFrames | None = None,
    ) -> CalibrationRun:
        """Begin a calibration around z; nothing has been exposed when this refuses it.

        Args:
            z_um: where the stage stands, in focus by eye.
            limits_um: lowest and highest z to ask for, besides the configured limits.
            range_um, step_um: half the stack and the distance of its planes, µm; None: as configured.
            planes_um: the planes themselves, instead of range and step.
            flat: an empty, evenly lit field, as a TIFF file or pixels; None: what stays sharp everywhere is learnt.
            dark: what the camera shows without light, likewise.
            recent: the camera's last frames in earlier runs, by which a frozen camera is noticed.

        Raises:
            RequestError: no calibration can come of these planes, or a flat or dark frame cannot be used.
            TravelLimitError: some of them lie outside the limits, or the way is too long.
            CalibrationError: the disk has no room for it.
        """
        offsets = self._offsets(range_um, step_um)
        self.calibrations.require_room()
        wanted_um = (z_um + offsets).tolist() if planes_um is None else planes_um
        planes = check_planes(wanted_um, self.instrument)
        probes = probes_um(planes, z_um, self.instrument)
        back_um = planes[0]  # the furthest that the planes to repeat may lie from the last one
        within_um = _inside(self.config.stage, limits_um)
        rehearse([*probes, *planes, back_um], z_um, self.config.stage, within_um)
        given = Given.of(still(flat, "flat"), still(dark, "dark"))
        pairs = MeasuringPairs(self.scorer, self.config.autofocus.max_saturated, recent or RecentFrames())
        measuring = StackMeasuring(pairs, self.instrument, given)
        return CalibrationRun(
            measuring,
            probes,
            planes,
            fingerprint=self.fingerprint,
            threshold=self.config.autofocus.structure_threshold,
            instrument=self.instrument,
            whole_frames=REMEMBERED,
            keep=self.calibrations.add,
            note=self.config.note,
            clean=measuring.cleaned,
            blended=self.config.microscope.kind == "recorded",
        )

    def refocus(
        self,
        z_um: float,
        limits_um: tuple[float, float] | None = None,
        *,
        roi: Region | None = None,
        strategy: str | None = None,
        max_exposures: int | None = None,
        max_seconds: float | None = None,
        max_dose_ms: float | None = None,
        target_um: float | None = None,
        usable_um: float | None = None,
        prior: tuple[float, float] | None = None,
        is_thin: bool = False,
        surface: Surface | None = None,
        far: bool = False,
        recent: RecentFrames | None = None,
    ) -> RefocusRun:
        """Begin a search for the focus. None: as configured.

        Args:
            z_um: where the stage stands.
            limits_um: lowest and highest z to ask for, besides the configured limits.
            roi: (y, x, height, width) in pixels: the part of the field that has to be sharp; None: all of it.
            strategy: `posterior` or `published`.
            max_exposures, max_seconds, max_dose_ms: the budget.
            target_um: σ at which the posterior search ends.
            usable_um: σ with which it may end when its budget is spent; None: `target_um` if that is given, else a
                quarter of the depth of field.
            prior: z and σ of the focus as far as it is known, for a warm start of the posterior search.
            is_thin: the sample is known to be thin, from searches of this field before.
            surface: what of a field that is not flat is brought into focus.
            far: look for the focus over all of the limits, also beyond the calibrated range. The coarse planes for it
                are not counted by `max_exposures`, but by the other budgets.
            recent: the camera's last frames in earlier runs, by which a frozen camera is noticed.

        Raises:
            CalibrationError: there is no calibration, or it does not fit the rig.
            OutOfRangeError: nothing is left inside the limits.
            BudgetError: the budget holds no exposure.
            RequestError: there is no such strategy, or a far search is told where the focus is.
        """
        configured, chosen = self.config.autofocus, strategy or self.config.autofocus.strategy
        budget = Budget(
            max_exposures or configured.max_exposures,
            max_seconds or configured.max_seconds,
            max_dose_ms or configured.max_dose_ms,
        )
        calibration = self.calibrations.in_force()
        limits_um = _inside(self.config.stage, limits_um)
        field = Field(
            self.instrument.pixel_um if self.instrument else None,
            self.calibrations.depth_of_field_um(calibration),
            self.config.stage.towards_sample,
            surface or configured.surface,
        )
        begin = partial(
            self._search, chosen, calibration, limits_um, field.dof_um, target_um, usable_um, prior, is_thin
        )
        return RefocusRun(
            self._measuring(roi, recent, calibration),
            self._far_search(calibration, limits_um, begin, prior) if far else begin(),
            budget,
            field,
            start_um=z_um,
            limits_um=limits_um,
            exposure_ms=self.config.camera.exposure_ms,
            strategy=chosen,
            note=self.config.note,
            learn=self._scales(calibration).learn,
        )

    def _scales(self, calibration: Calibration) -> ScaleMemory:
        """Return what runs with this calibration have told of the scale of z; another calibration begins anew."""
        if self._scale_of is not calibration:
            self._scale_of, self._scale_memory = calibration, ScaleMemory()
        return self._scale_memory

    def depth_of_field_um(self) -> float:
        """Return what errors of the focus are measured in. Reads the disk where the optics are not known.

        Raises:
            CalibrationError: the optics are not known, and there is no usable calibration.
        """
        if self.instrument is not None:
            return self.instrument.depth_of_field_um
        return self.calibrations.in_force().axial_unit_um

    def sensor(self) -> Sensor:
        """Return what is known of the camera: nothing before a calibration. Reads the disk."""
        try:
            return self.calibrations.in_force().sensor
        except CalibrationError:
            return PLAIN

    def _measuring(
        self, roi: Region | None, recent: RecentFrames | None, calibration: Calibration
    ) -> Measuring:
        allowed, recent = self.config.autofocus.max_saturated, recent or RecentFrames()
        return Measuring(self.scorer, allowed, recent, roi, calibration.noise, calibration.sensor)

    def _search(
        self,
        strategy: str,
        calibration: Calibration,
        limits_um: tuple[float, float],
        dof_um: float,
        target_um: float | None,
        usable_um: float | None,
        prior: tuple[float, float] | None,
        is_thin: bool,
    ) -> Search:
        """Return a new search.

        Raises:
            RequestError: there is no such strategy.
        """
        configured = self.config.autofocus
        away_is_low = self.config.stage.towards_sample == "increasing"
        threshold = configured.structure_threshold
        if strategy == "published":
            return PublishedSearch(calibration, limits_um, away_is_low=away_is_low, threshold=threshold)
        if strategy != "posterior":
            raise RequestError(
                f"unknown strategy {strategy!r}; this focusd knows 'posterior' and 'published'"
            )
        return PosteriorSearch(
            calibration,
            limits_um,
            away_is_low=away_is_low,
            threshold=threshold,
            target_um=target_um or configured.target_dof * dof_um,
            usable_um=usable_um or target_um or USABLE_DOF * dof_um,
            verify=configured.verify,
            prior=Prior(*prior) if prior else None,
            is_thin=is_thin,
            scale=self._scales(calibration).prior(),
            instrument=self.instrument,
        )

    def _far_search(
        self,
        calibration: Calibration,
        limits_um: tuple[float, float],
        begin: Callable[[], Search],
        prior: tuple[float, float] | None,
    ) -> Search:
        """Return a new search over all of the limits.

        Raises:
            RequestError: it is told where the focus is; and as `_search`.
        """
        if prior:
            raise RequestError(
                "`far` looks for a focus of which nothing is known: leave out `prior`, or `far`"
            )
        begin()  # a wrong strategy is told now
        return FarSearch(
            calibration,
            limits_um,
            away_is_low=self.config.stage.towards_sample == "increasing",
            threshold=self.config.autofocus.structure_threshold,
            begin=begin,
        )

    def _offsets(self, range_um: float | None, step_um: float | None) -> NDArray[np.float64]:
        """Return the planes of a stack, relative to where the stage stands."""
        configured = self.config.calibration
        usual_range_um, usual_step_um = stack_um(self.instrument)
        half = range_um or configured.range_um or usual_range_um
        step = step_um or configured.step_um or usual_step_um
        if not 3 <= half / step <= 500:
            raise RequestError(
                f"±{half} µm in steps of {step} µm is no stack; take 3 to 500 steps to each side"
            )
        return np.arange(-half, half + step / 2, step)


def _inside(stage: StageConfig, limits_um: tuple[float, float] | None) -> tuple[float, float]:
    """Return the z that a run may use: inside the configured limits, and inside what is given besides.

    Away from the sample there is room left to come to each z from beyond, as far as the stage's backlash needs it.

    Raises:
        OutOfRangeError: nothing is left.
    """
    low_um, high_um = limits_um or (stage.min_um, stage.max_um)
    low_um, high_um = max(low_um, stage.min_um), min(high_um, stage.max_um)
    if stage.towards_sample == "increasing":
        low_um += stage.backlash_um
    else:
        high_um -= stage.backlash_um
    if low_um >= high_um:
        raise OutOfRangeError(
            f"nothing is left between {low_um:.1f} and {high_um:.1f} µm inside the stage's limits, "
            f"{stage.min_um:g} … {stage.max_um:g} µm"
        )
    return low_um, high_um


def _fingerprint(config: RigConfig, camera_name: str, scorer: Scorer) -> Fingerprint:
    """Return all that a calibration depends on."""
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
