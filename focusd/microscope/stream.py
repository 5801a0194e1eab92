"""A camera that streams: no command for each frame, and so none of its overhead."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from pymmcore_plus import CMMCorePlus

from focusd.errors import HardwareError

POLL_S = 0.0005
"""Between two looks at whether a frame has come."""


@dataclass(frozen=True)
class Streamed:
    """A frame of a stream.

    Attributes:
        image: as the core hands it over.
        exposures: that the sample was lit for since the frame before, those that were dropped included.
    """

    image: Any
    exposures: int


class Stream:
    """Frames of the core's current camera; only those count whose exposure began after they were asked for.

    Nothing is taken from the camera's clock. A frame arrives later than its exposure ends, by its readout, which takes
    no longer than the camera needs from frame to frame.

    Args:
        patience_s: without a frame, after which the camera has stalled.
    """

    def __init__(self, core: CMMCorePlus, exposure_s: float, patience_s: float) -> None:
        self._core = core
        self._exposure_s = exposure_s
        self._patience_s = patience_s
        self._running = False
        self._lit_since_s = 0.0
        self._interval_s = math.inf  # from frame to frame; not known before the second

    def next(self) -> Streamed:
        """The first frame that begins to be exposed from now on. Starts the stream if none runs.

        Raises:
            HardwareError: the camera has stalled, or stopped.
        """
        if not self._running:
            self._running = True  # also of a start that fails half-way
            self._lit_since_s = time.perf_counter()
            self._interval_s = math.inf
            self._core.startContinuousSequenceAcquisition(0)
        self._newest()
        return self._begun_after(time.perf_counter())

    def stop(self) -> None:
        """End the stream, if one runs."""
        if self._running:
            self._running = False
            self._core.stopSequenceAcquisition()

    def _begun_after(self, asked_s: float) -> Streamed:
        before_s = came_s = asked_s
        while True:
            looked_s = time.perf_counter()
            if (image := self._newest()) is not None:
                if came_s > asked_s:
                    self._interval_s = max(self._exposure_s, looked_s - came_s)
                # It came after the look before this one.
                if before_s - self._exposure_s - self._interval_s >= asked_s:
                    return Streamed(image, self._exposures_until(looked_s))
                came_s = looked_s
            self._require_life(looked_s - came_s)
            before_s = looked_s
            time.sleep(POLL_S)

    def _newest(self) -> Any:
        """The last of the frames that have come; the others are dropped. None: none has."""
        image = None
        for _ in range(self._core.getRemainingImageCount()):
            image = self._core.popNextImage()
        return image

    def _exposures_until(self, now_s: float) -> int:
        lit_s, self._lit_since_s = now_s - self._lit_since_s, now_s
        return math.ceil(lit_s / self._exposure_s)

    def _require_life(self, waited_s: float) -> None:
        if waited_s > self._patience_s:
            raise HardwareError(
                f"the camera has sent no frame for {waited_s:.1f} s in the middle of a sequence; check its cable, or "
                'set camera.acquisition = "snap"'
            )
        if not self._core.isSequenceRunning():
            raise HardwareError(
                "the camera has ended its sequence by itself; check its cable and its driver's log, or set "
                'camera.acquisition = "snap"'
            )
