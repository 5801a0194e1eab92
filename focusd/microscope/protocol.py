"""What focusd needs of a microscope, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Frame:
    """One camera image.

    Attributes:
        pixels: (y, x), uint8 or uint16, never signed.
        z_um: where the stage stood, read back.
        exposure_ms: exposure time.
        time_s: `time.perf_counter()` at the end of the exposure.
        sequence: counts the exposures of this microscope from 1.
        full_scale: the largest value a pixel can have, e.g. 4095 for a 12-bit camera.
        exposures: that the sample was lit for, those of dropped frames of a sequence included.
    """

    pixels: NDArray[np.unsignedinteger]
    z_um: float
    exposure_ms: float
    time_s: float
    sequence: int
    full_scale: int
    exposures: int = 1

    @property
    def saturated_fraction(self) -> float:
        """Fraction of the pixels at full scale."""
        if self.pixels.max() < self.full_scale:  # as in most frames, and half the work
            return 0.0
        return float(np.count_nonzero(self.pixels >= self.full_scale) / self.pixels.size)


class Microscope(Protocol):
    """A camera and a z stage. Calls block; `snap` and the stage's calls may run in different threads.

    Nothing but `GuardedStage` may call `move_to`.
    """

    camera_name: str

    def snap(self) -> Frame:
        """Expose one image where the stage stands.

        Raises:
            HardwareError: the camera failed.
        """
        ...

    def end_sequence(self) -> None:
        """Let a camera rest that streams (`camera.acquisition`); the next `snap` makes it stream again.

        Raises:
            HardwareError: the camera failed.
        """
        ...

    def position_um(self) -> float:
        """Where the stage says it is.

        Raises:
            HardwareError: the stage failed.
        """
        ...

    def move_to(self, z_um: float) -> None:
        """Move to an absolute z and return when the stage has settled.

        Raises:
            HardwareError: the stage failed.
        """
        ...

    def stop(self) -> None:
        """Stop a movement under way, where the hardware can."""
        ...

    def close(self) -> None:
        """Release the hardware. May be called twice."""
        ...
