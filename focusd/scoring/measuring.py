"""From the frames of one operation to what its decisions see: scores of the same tiles each time, and spectra."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from focusd.errors import ScoringError
from focusd.focus.frame import SAME_Z_UM, Frame, FrameChecks, RecentFrames
from focusd.focus.measurement import Mask, Measurement, NoisePair
from focusd.focus.noise import Noise
from focusd.focus.sensor import PLAIN, Sensor
from focusd.optics.bands import BlockSpectra
from focusd.scoring.aligning import aligned
from focusd.scoring.scorer import Scorer
from focusd.scoring.spectra import Region


class Measuring:
    """Measures the frames of one operation, after it has checked each of them. May be called from several threads.

    Args:
        max_saturated: fraction of pixels at full scale above which a frame is refused.
        recent: the camera's last frames, of earlier operations too.
        roi: (y, x, height, width) in pixels: the part of the field that counts; None: all of it.
        noise: of the camera, by which the spectra are divided; None: it is white.
        sensor: what is known of the camera else.

    Attributes:
        sensor: as given; whoever finds out more says so before a frame is measured.
    """

    def __init__(
        self,
        scorer: Scorer,
        max_saturated: float,
        recent: RecentFrames,
        roi: Region | None = None,
        noise: Noise | None = None,
        sensor: Sensor = PLAIN,
    ) -> None:
        self._scorer = scorer
        self._checks: FrameChecks | None = FrameChecks(max_saturated, recent)
        self._roi = roi
        self._noise = noise
        self.sensor = sensor
        self._first: Measurement | None = None
        self._last: tuple[int, Sensor, NDArray[np.generic]] | None = None  # of a frame: once is enough

    def anew(self, sensor: Sensor) -> Self:
        """Return what measures the frames of this operation once more, as another sensor sees them.

        They have been checked.
        """
        other = copy(self)
        other.sensor, other._checks = sensor, None
        return other

    def check(self, frame: Frame) -> None:
        """Refuse a frame from which nothing can be concluded.

        Raises:
            SaturatedError, HardwareError: as `FrameChecks.check`.
        """
        self._check(frame)

    def seen(self, frame: Frame) -> NDArray[np.generic]:
        """Return what is scored of a frame, (y, x)."""
        last, sensor = self._last, self.sensor
        if last is None or last[0] != frame.sequence or last[1] is not sensor:
            self._last = last = frame.sequence, sensor, sensor.seen(frame.pixels)
        return last[2]

    def _check(self, frame: Frame, *, quick: bool = False) -> None:
        if self._checks is not None:
            self._checks.check(frame, quick=quick)

    def spectra(
        self, frame: Frame, *, thinned: bool = False, known: BlockSpectra | None = None
    ) -> BlockSpectra:
        """Compute the spectra alone, which is faster than the score and says most about the focus.

        Args:
            thinned: from a quarter of the blocks, which is faster still.
            known: what that gave; the other blocks are added to it.

        Raises:
            SaturatedError, HardwareError: as `check`; saturated pixels are not looked for if `thinned`, because that
                would take as long as the spectra.
            ScoringError: the spectra are no numbers.
        """
        self._check(frame, quick=thinned)
        if known and self._noise:
            known = self._noise.colour(known)
        spectra = self._scorer.spectra(self.seen(frame), self._roi, thinned=thinned, known=known)
        _require_finite(spectra.power, spectra.noise)
        return self._noise.whiten(spectra) if self._noise else spectra

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        """Score a frame; in one operation always the same tiles.

        Args:
            spectra: of this frame, where they are known.
            only: the tiles, (rows, columns), to score of those of the first frame; None: all.

        Raises:
            SaturatedError, HardwareError: as `check`.
            ScoringError: there are no scores.
        """
        spectra = spectra or self.spectra(frame)
        measured = self._scorer.score(self.seen(frame), self._roi, self._first, spectra, only)
        self._first = self._first or measured
        require_numbers(measured, only)
        return replace(measured, z_um=frame.z_um)


class MeasuringPairs(Measuring):
    """Measures the frames of a calibration, and the noise between two in a row of the same z."""

    _before: Frame | None = None

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        """Score a frame as `Measuring.measure` does, and add what it and the frame before say of the noise."""
        measured = super().measure(frame, spectra, only)
        before, self._before = self._before, frame
        if before is None or not _are_pair(before, frame):
            return measured
        return replace(measured, noise=self._difference(before, frame))

    def _difference(self, one: Frame, other: Frame) -> NoisePair:
        first, second = (self.sensor.seen(each.pixels).astype(np.float32) for each in (one, other))
        level = float(second.mean())
        first, moved_px = aligned(first * np.float32(level / max(float(first.mean()), 1e-6)), second)
        difference = (second - first) / np.float32(np.sqrt(2))
        return NoisePair(replace(self._scorer.spectra(difference, self._roi), level=level), moved_px)


def _are_pair(one: Frame, other: Frame) -> bool:
    """Whether two frames differ by noise alone. A recorded stack shows the same image again, which has no noise."""
    alike = one.pixels.shape == other.pixels.shape and abs(one.z_um - other.z_um) <= SAME_Z_UM
    return alike and not np.array_equal(one.pixels, other.pixels)


def require_numbers(measured: Measurement, only: Mask | None = None) -> None:
    """Refuse scores and spectra that are no numbers.

    Args:
        only: the tiles that were to be scored; None: all.

    Raises:
        ScoringError: they are not.
    """
    asked = ... if only is None else only
    _require_finite(measured.b[asked], measured.sigma[asked], measured.blocks.power, measured.blocks.noise)


def _require_finite(*parts: NDArray[np.float64]) -> None:
    if not all(np.isfinite(part).all() for part in parts):
        raise ScoringError(
            "the scores of a frame are no numbers; restart focusd, and report it if they stay so"
        )
