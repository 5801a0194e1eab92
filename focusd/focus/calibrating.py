"""The run that calibrates: a few probes that look for structure, then the stack, then the fit of its curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from focusd.errors import NoSampleError
from focusd.focus.calibration import Calibration, Fingerprint, calibrate, is_past_focus, pupil_ahead
from focusd.focus.measurement import Mask, Measurement, telling_tiles
from focusd.focus.pupil import PupilFit
from focusd.focus.run import Measure, Run, summary
from focusd.focus.sensor import PLAIN, Sensor
from focusd.optics.instrument import Instrument
from focusd.protocol.results import CalibrationResult, Exposed, Progress, StoredCalibration

Clean = Callable[[Sequence[Measurement]], tuple[Sensor, list[Measurement]]]


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
        clean: what is known of the camera once all is measured, and the measurements without what it adds to each
            frame; None: nothing is known.
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
        self._probed: list[Measurement] = []
        self._sees_structure = False
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
        return Progress(**dict(summary(last)), exposure=taken, of=probes + len(self._planes_um))

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
        sensor = self._clear()
        calibration, focus_um = calibrate(
            self.measurements, self._fingerprint, self._threshold, self._instrument, self._pupil
        )
        calibration = replace(calibration, sensor=sensor)
        kept = self._keep(calibration)
        self._result = CalibrationResult(
            **dict(kept)
            | {"message": "; ".join(filter(None, (kept.message, _warning(calibration), self._note)))},
            planes=len(self._planes_um),
            exposures=self.exposures,
            z_focus_um=focus_um,
        )

    def _clear(self) -> Sensor:
        """Take from the measurements what the camera adds to each frame; return what is known of it."""
        if self._clean is None:
            return PLAIN
        sensor, measurements = self._clean(self.measurements)
        if any(one is not other for one, other in zip(measurements, self.measurements, strict=True)):
            self._pupil = None  # it was fitted to what they were before
        self.measurements = measurements
        return sensor

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
        self._wanted_um = list(self._planes_um) if self._sees_structure else left_um[:1]

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
    return "; ".join(filter(None, (calibration.sensor.in_words(), _shorter(calibration))))


def _shorter(calibration: Calibration) -> str:
    planes, telling = len(calibration.transfer.z_um), len(calibration.z_um)
    if telling == planes:
        return ""
    return (
        f"the score tells the depth from {calibration.min_um:.3g} to {calibration.max_um:.3g} µm only, on {telling} of "
        f"{planes} planes: further out it rises no more, as in phase contrast, and the spectra alone show the way"
    )
