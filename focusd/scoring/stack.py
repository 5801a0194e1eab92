"""Measures a calibration's frames, and keeps them until it is known what in them is the camera's own."""

from __future__ import annotations

import math
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import IO

import numpy as np
import structlog

from focusd.errors import CalibrationError
from focusd.focus.frame import Frame
from focusd.focus.given import Given
from focusd.focus.measurement import Mask, Measurement
from focusd.focus.mosaic import is_mosaic
from focusd.focus.sensor import Sensor
from focusd.optics.bands import BlockSpectra
from focusd.optics.instrument import Instrument
from focusd.scoring.measuring import Measuring
from focusd.scoring.pattern import learn_pattern

log = structlog.get_logger(__name__)

IN_MEMORY_BYTES = 64 << 20
"""Of the frames of one calibration; where there are more, all lie in a temporary file."""


class KeptFrames:
    """Frames in the order in which they came, in bounded memory."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115, closed below
        self._closing = weakref.finalize(self, self._file.close)  # also of a calibration that fails
        self._kept: list[tuple[Frame, tuple[int, ...], int]] = []  # without pixels, their shape and beginning

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, frame: Frame) -> None:
        """Keep one more.

        Raises:
            OSError: the disk refuses.
        """
        start = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(frame.pixels).data)
        without = replace(frame, pixels=np.empty((0, 0), frame.pixels.dtype))
        self._kept.append((without, frame.pixels.shape, start))

    def __getitem__(self, number: int) -> Frame:
        frame, shape, start = self._kept[number]
        self._file.seek(start)
        content = self._file.read(math.prod(shape) * frame.pixels.dtype.itemsize)
        pixels = np.frombuffer(content, frame.pixels.dtype).reshape(shape)
        return replace(frame, pixels=pixels)

    def close(self) -> None:
        """Let go of them."""
        self._closing()
        self._kept.clear()


class StackMeasuring:
    """Measures the frames of one calibration. It finds out by itself whether they are a raw colour mosaic.

    Args:
        measuring: checks and scores them.
        instrument: None: its optics are not known.
        given: what the user's own frames tell of the camera; of a flat, nothing more is learnt.
    """

    def __init__(
        self, measuring: Measuring, instrument: Instrument | None, given: Given | None = None
    ) -> None:
        self._measuring = measuring
        self._instrument = instrument
        self._given = given or Given()
        self._frames = KeptFrames() if self._given.flat is None else None
        self._is_begun = False
        self._turn = threading.Lock()

    def check(self, frame: Frame) -> None:
        """Refuse a frame from which nothing can be concluded; raises what `Measuring.check` does."""
        self._measuring.check(frame)

    def spectra(
        self, frame: Frame, *, thinned: bool = False, known: BlockSpectra | None = None
    ) -> BlockSpectra:
        """Compute the spectra alone, as `Measuring.spectra`."""
        self._begin(frame)
        return self._measuring.spectra(frame, thinned=thinned, known=known)

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        """Check, score and keep a frame, as `Measuring.measure`."""
        self._begin(frame)
        measured = self._measuring.measure(frame, spectra, only)
        self._keep(frame)
        return measured

    def cleaned(self, measurements: Sequence[Measurement]) -> tuple[Sensor, list[Measurement]]:
        """Return what is known of the camera by now, and what the frames show without its pattern.

        Where it has none, these are the same measurements. The frames are let go of, and later ones are measured as the
        camera is known now.

        Args:
            measurements: of the last frames, in the order in which they were measured.
        """
        frames, self._frames = self._frames, None
        sensor, measurements = self._measuring.sensor, list(measurements)
        if frames is None or len(frames) < len(measurements):
            return sensor, measurements
        first = len(frames) - len(measurements)
        try:
            pattern = learn_pattern(
                lambda k: sensor.seen(frames[first + k].pixels), measurements, self._instrument
            )
            if pattern is None:
                return sensor, measurements
            sensor = replace(sensor, pattern=pattern)
            self._measuring.sensor = sensor
            again = self._measuring.anew(sensor)
            return sensor, [
                again.measure(frames[first + k], only=np.isfinite(m.b)) for k, m in enumerate(measurements)
            ]
        finally:
            frames.close()

    def _begin(self, frame: Frame) -> None:
        """Find out with the first frame what kind of camera it is.

        Raises:
            CalibrationError: flat or dark frames are of another size.
        """
        with self._turn:
            if self._is_begun:
                return
            _require_size(self._given, frame)
            self._measuring.sensor = self._given.sensor(is_mosaic(frame.pixels))
            self._is_begun = True

    def _keep(self, frame: Frame) -> None:
        with self._turn:
            if self._frames is None:
                return
            try:
                self._frames.add(frame)
            except OSError as error:
                log.warning(
                    "what stays sharp at every z is not learnt: no room for the frames", reason=str(error)
                )
                self._frames.close()
                self._frames = None


def _require_size(given: Given, frame: Frame) -> None:
    """Refuse flat and dark frames that do not belong to these frames."""
    for name, image in (("flat", given.flat), ("dark", given.dark)):
        if image is not None and image.shape != frame.pixels.shape:
            raise CalibrationError(
                f"the {name} frame has the shape {image.shape}, and the camera's frames have {frame.pixels.shape}: "
                "take it with the same region, binning and colours"
            )
