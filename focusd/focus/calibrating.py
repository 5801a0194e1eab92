"""The run that calibrates: a few probes that look for structure, then the stack, then the fit of its curve.

The first and the last plane are exposed twice, and so are some planes near the focus once the stack is complete: two
frames of one z tell the camera's noise, and how well an exposure repeats itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from focusd.errors import NoSampleError
from focusd.focus.calibration import Calibration, Fingerprint
from focusd.focus.measurement import Mask, Measurement, telling_tiles
from focusd.focus.planes import STACK_UNITS
from focusd.focus.pupil import PupilFit
from focusd.focus.run import Measure, Run, summary
from focusd.focus.sensor import PLAIN, Sensor
from focusd.focus.stack import calibrate, is_past_focus, pupil_ahead
from focusd.optics.instrument import Instrument
from focusd.protocol.results import CalibrationResult, Exposed, Progress, StoredCalibration

Clean = Callable[[Sequence[Measurement]], tuple[Sensor, list[Measurement]]]

TWICE = 2
"""Planes of the stack that are exposed twice in a row: its ends, where blur has left hardly anything but noise."""
REPEATED_UNITS = (-1.5, 0.0, 0.0, 1.5)
"""Of the planes that are exposed once more, around the sharpest, in λ·n/NA²: where z and blur change them most."""
REPEATED = len(REPEATED_UNITS)


class CalibrationRun(Run[CalibrationResult]):
    """A calibration from a stack of planes.

    Args:
        probes_um: where to look for structure first, one plane after the other, until one shows some.
        planes_um: the planes of the stack, ascending.
        fingerprint: what the curve belongs to.
        threshold: probability of structure from which a tile counts.
        instrument: None: its optics are not known.
        whole_frames: so many planes are scored on all tiles, the others on a few of them.
        keep: stores the calibration, and returns what has become of it.
        note: what is added to the message.
        clean: what is known of the camera once the stack is complete, and its measurements without what the camera adds
            to each frame; frames that come later are measured likewise. None: nothing is known.
        blended: as for `calibrate`.
    """

    def __init__(
        self,
        measuring: Measure,
        probes_um: list[float],
        planes_um: list[float],
        *,
        fingerprint: Fingerprint,
        threshold: float,
        instrument: Instrument | None,
        whole_frames: int,
        keep: Callable[[Calibration], StoredCalibration],
        note: str,
        clean: Clean | None = None,
        blended: bool = False,
    ) -> None:
        super().__init__(measuring, probes_um[:1])
        self._probes_um = probes_um
        self._planes_um = planes_um
        self._fingerprint = fingerprint
        self._threshold = threshold
        self._instrument = instrument
        self._whole_frames = whole_frames
        self._keep = keep
        self._note = note
        self._clean = clean
        self._blended = blended
        self._sensor = PLAIN
        self._probed: list[Measurement] = []
        self._sees_structure = False
        self._stack: list[Measurement] = []
        self._pupil: PupilFit | None = None
        self._has_begun_to_fit = False

    @property
    def is_probing(self) -> bool:
        """Whether it still looks for structure, before the stack."""
        return not self._sees_structure

    @property
    def progress(self) -> Progress:
        """The last exposure, how many there were, and how many there will be."""
        probes = len(self._probed)
        last = (self.measurements or self._probed)[-1]
        taken = probes + len(self.measurements)
        of = probes + len(self._planes_um) + TWICE + REPEATED
        return Progress(**dict(summary(last)), exposure=taken, of=of)

    def informative_tiles(self) -> Mask | None:
        """Return the tiles that are worth scoring in the next frame; None: all."""
        if len(self.measurements) < self._whole_frames:  # from them the scorer learns what all tiles cost
            return None
        return telling_tiles(self.measurements[0], self._threshold)

    def fit_ahead(self) -> Callable[[], None] | None:
        """Return, once, the fit of the pupil, when the planes so far hold all that it looks at; it takes a second.

        A driver may call it in a thread of its own while the stack goes on, and before `judge`.
        """
        instrument, taken = self._instrument, list(self.measurements)
        if self._has_begun_to_fit or instrument is None or not taken or not is_past_focus(taken, instrument):
            return None
        self._has_begun_to_fit = True

        def fit() -> None:
            with suppress(Exception):  # with all planes it fails again and says why, or it does not
                self._pupil = pupil_ahead(taken, instrument)

        return fit

    def judge(self) -> None:
        """Go on to the next plane, or fit and keep the calibration.

        Raises:
            NoSampleError: the field is empty.
            CalibrationError: the stack gives no usable curve, or it could not be stored.
        """
        if self._wanted_um:
            return
        if self.is_probing:
            raise self._empty()
        if not self._stack:
            self._clear()
            self._stack = list(self.measurements)
            self._wanted_um = self._planes_to_repeat()
            return
        repeated = self.measurements[len(self._stack) :]
        calibration, focus_um = calibrate(
            self._stack,
            self._fingerprint,
            self._threshold,
            self._instrument,
            self._pupil,
            repeated,
            self._blended,
        )
        calibration = replace(calibration, sensor=self._sensor)
        kept = self._keep(calibration)
        self._result = CalibrationResult(
            **dict(kept)
            | {"message": "; ".join(filter(None, (kept.message, _warning(calibration), self._note)))},
            planes=len(self._planes_um),
            exposures=self.exposures,
            z_focus_um=focus_um,
        )

    def _clear(self) -> None:
        """Take from the stack what the camera adds to each frame, before its sharpest plane is looked for."""
        if self._clean is None:
            return
        self._sensor, measurements = self._clean(self.measurements)
        if any(one is not other for one, other in zip(measurements, self.measurements, strict=True)):
            self._pupil = None  # it was fitted to what they were before
        self.measurements = measurements

    def spent(self) -> Exposed:
        """Return how often the sample was lit."""
        return Exposed(exposures=self.exposures)

    def _take(self, measurement: Measurement) -> None:
        if self.is_probing:
            self._take_probe(measurement)
        else:
            self.measurements.append(measurement)

    def _take_probe(self, measurement: Measurement) -> None:
        """Keep a probe; the stack begins once one has shown structure."""
        self._probed.append(measurement)
        self._sees_structure = bool((measurement.structure >= self._threshold).any())
        left_um = self._probes_um[len(self._probed) :]
        first_um, last_um = self._planes_um[0], self._planes_um[-1]
        stack_um = [first_um, *self._planes_um, last_um]
        self._wanted_um = stack_um if self._sees_structure else left_um[:1]

    def _planes_to_repeat(self) -> list[float]:
        """Return the sharpest plane, twice, and the planes beside it, ascending."""
        z_um = np.array([m.z_um for m in self.measurements])
        sharpest_um = z_um[int(np.argmin([float(np.nanmean(m.b)) for m in self.measurements]))]
        unit_um = (
            self._instrument.axial_unit_um if self._instrument else float(np.ptp(z_um)) / (2 * STACK_UNITS)
        )
        planes = np.array(self._planes_um)
        wanted_um = sharpest_um + unit_um * np.array(REPEATED_UNITS)
        return [float(planes[np.argmin(np.abs(planes - each))]) for each in wanted_um]

    def _empty(self) -> NoSampleError:
        probes_um = self._probes_um
        return NoSampleError(
            f"the field is empty as far as {len(probes_um)} exposures from {min(probes_um):.4g} to "
            f"{max(probes_um):.4g} µm show: choose a textured, flat field, focus it by eye, and expose longer if "
            "its image is dim",
            z_um=probes_um,
        )


def _warning(calibration: Calibration) -> str:
    """Say what a user should know of a calibration; empty: nothing."""
    return "; ".join(
        filter(None, (calibration.sensor.in_words(), _shorter(calibration), _uneven(calibration)))
    )


def _shorter(calibration: Calibration) -> str:
    planes, telling = calibration.planes, len(calibration.z_um)
    if telling == planes:
        return ""
    return (
        f"the score tells the depth from {calibration.min_um:.3g} to {calibration.max_um:.3g} µm only, on {telling} of "
        f"{planes} planes: further out it rises no more, as in phase contrast, and the spectra alone show the way"
    )


def _uneven(calibration: Calibration) -> str:
    if not calibration.rise_um:
        return ""
    return (
        f"the focus varies by {calibration.rise_um:.2g} µm over the field; the calibration has taken that into "
        "account, but a level field makes a better one"
    )
