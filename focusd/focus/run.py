"""A run without I/O: it says which planes it wants exposed, is told what they showed, and ends in a result or an error.

Whoever does I/O drives it: the daemon, a client through ask and tell, an acquisition program, a bench, a test. It knows
no clock, no thread and no hardware; the time that has passed is told to it.

    while run.expose_um:
        run.tell(frame_at(run.expose_um[0]))
    run.result

A driver that overlaps exposures, scores and moves takes the parts of `tell` one by one: `measure`, `add` and `judge`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import numpy as np

from focusd.errors import FocusdError, RequestError
from focusd.focus.frame import Frame, require_frame
from focusd.focus.measurement import Mask, Measurement
from focusd.optics.bands import BlockSpectra
from focusd.protocol.results import Exposed, Probe, Progress

Result = TypeVar("Result")


class Measure(Protocol):
    """Turns the frames of one run into measurements. Its calls take milliseconds and may come from several threads."""

    def check(self, frame: Frame) -> None:
        """Refuse a frame from which nothing can be concluded.

        Raises:
            SaturatedError, HardwareError: they say why.
        """
        ...

    def spectra(
        self, frame: Frame, *, thinned: bool = False, known: BlockSpectra | None = None
    ) -> BlockSpectra:
        """Compute the spectra alone: of a quarter of the blocks if `thinned`, which `known` then completes."""
        ...

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        """Check and score a frame; in one run always the same tiles, or `only` some of them."""
        ...


class Run(ABC, Generic[Result]):
    """What a refocus and a calibration have in common.

    Attributes:
        measuring: checks and scores the frames.
        measurements: what they showed, in the order in which they were added.
        exposures: how often the sample was lit for them.
        elapsed_s: the time since the run began, as it was last told.
    """

    def __init__(self, measuring: Measure, expose_um: Sequence[float]) -> None:
        self.measuring = measuring
        self.measurements: list[Measurement] = []
        self.exposures = 0
        self.elapsed_s = 0.0
        self._wanted_um = list(expose_um)
        self._result: Result | None = None
        self._error: FocusdError | None = None

    @property
    def expose_um(self) -> tuple[float, ...]:
        """The planes to expose next, in this order; empty at the end."""
        return () if self.has_ended else tuple(self._wanted_um)

    @property
    def has_ended(self) -> bool:
        """Whether there is a result or an error."""
        return self._result is not None or self._error is not None

    @property
    def result(self) -> Result:
        """What the run found.

        Raises:
            RequestError: it has not ended.
            FocusdError: with which it ended.
        """
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise RequestError(f"the run has not ended: it wants z = {self.expose_um} µm exposed next")
        return self._result

    def tell(self, *frames: Frame, elapsed_s: float = 0.0) -> None:
        """Take frames into account, in the order in which they were exposed.

        A frame may be taken beside the plane that was asked for: its own z counts. Planes that were asked for before
        that one are taken to be skipped. Frames after the one that ends the run are not looked at.

        Args:
            elapsed_s: the time since the run began, for its budget.

        Raises:
            RequestError: one of them is no camera frame, which changes nothing, or the run has ended.
            FocusdError: the run ends with it, and raises it from `result` too.
        """
        for frame in frames:
            require_frame(frame)
        self._require_open()
        for frame in frames:
            if self.has_ended:
                return
            with self.ending():
                self._spend(frame.exposures, elapsed_s)  # also for a frame that is refused
                self.add(self.measure(frame), exposures=0)
                self.judge()

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        """Check and score a frame, on the tiles that are worth it. Changes nothing of the run.

        Args:
            spectra: of this frame, where they are known.
            only: the tiles to score; None: as `informative_tiles` says.

        Raises:
            SaturatedError, HardwareError, ScoringError: the frame cannot be used.
        """
        return self.measuring.measure(frame, spectra, self.informative_tiles() if only is None else only)

    def add(self, measurement: Measurement, exposures: int = 1, elapsed_s: float = 0.0) -> None:
        """Take one more measurement into account.

        Args:
            exposures: how often the sample was lit for it.
            elapsed_s: since the run began.
        """
        self._spend(exposures, elapsed_s)
        if self._wanted_um:
            nearest = min(
                range(len(self._wanted_um)), key=lambda k: abs(self._wanted_um[k] - measurement.z_um)
            )
            del self._wanted_um[: nearest + 1]
        self._take(measurement)

    @abstractmethod
    def judge(self) -> None:
        """Decide what to expose next, or end. It may take a while.

        Raises:
            FocusdError: the measurements allow no result.
        """

    @abstractmethod
    def _take(self, measurement: Measurement) -> None:
        """Keep a measurement."""

    @abstractmethod
    def informative_tiles(self) -> Mask | None:
        """Return the tiles, (rows, columns), that are worth scoring in the next frame; None: all."""

    @property
    @abstractmethod
    def progress(self) -> Progress:
        """What the last measurement showed, for those who watch."""

    @abstractmethod
    def spent(self) -> Exposed:
        """Return the exposures so far, and what else a result or an error says of what they cost."""

    @contextmanager
    def ending(self) -> Iterator[None]:
        """End the run with the error that the block raises; its data then holds what was spent."""
        try:
            yield
        except FocusdError as error:
            error.data.update(self.spent().model_dump())
            self._error = error
            raise

    def _spend(self, exposures: int, elapsed_s: float) -> None:
        self.exposures += exposures
        self.elapsed_s = max(self.elapsed_s, elapsed_s)

    def _require_open(self) -> None:
        if self.has_ended:
            raise RequestError("this run has ended: begin another one") from self._error


def summary(measurement: Measurement) -> Probe:
    """Return a measurement in the numbers that a person reads: medians over the field."""
    return Probe(
        z_um=measurement.z_um,
        b=float(np.nanmedian(measurement.b)),
        sigma=float(np.nanmedian(measurement.sigma)),
        structure=float(np.nanmedian(measurement.structure)),
    )
