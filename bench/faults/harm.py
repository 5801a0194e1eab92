"""A microscope and a scorer at the lowest seam that do harm when told to."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from focusd.errors import HardwareError
from focusd.focus.frame import Frame
from focusd.microscope.protocol import Microscope

HANG_S = 60.0


class FaultyMicroscope:
    """A microscope that works, until it is armed.

    Attributes:
        moves: all z it was sent to, with the time of each.
        fired_s: when the harm was done; None: not yet.
        soft_um: limits of the stage's own controller, which an operator may set.
    """

    def __init__(self, inner: Microscope) -> None:
        self._inner = inner
        self.camera_name = inner.camera_name
        self.moves: list[tuple[float, float]] = []
        self.fired_s: float | None = None
        self.soft_um = (-math.inf, math.inf)
        self.released = threading.Event()
        self._action, self._countdown = "", 0
        self._harm: Callable[[], object] = lambda: None
        self._of_frames: Callable[[Frame], Frame] = lambda frame: frame
        self._of_positions: Callable[[float], float] = lambda z_um: z_um

    def arm(self, action: str, countdown: int, harm: Callable[[], object]) -> None:
        """Do harm at the `countdown`-th of these actions from now."""
        self._action, self._countdown, self._harm = action, countdown, harm

    def spoil(self, action: str, change: Callable[[Any], Any]) -> None:
        """Change what the action answers, from now on."""
        if action == "snap":
            self._of_frames = change
        else:
            self._of_positions = change

    def snap(self) -> Frame:
        """Expose one image, unless armed."""
        self._meet("snap")
        return self._of_frames(self._inner.snap())

    def position_um(self) -> float:
        """Where the stage stands, or says so."""
        self._meet("position")
        return self._of_positions(self._inner.position_um())

    def move_to(self, z_um: float) -> None:
        """Move, unless armed."""
        self.moves.append((z_um, perf_counter()))
        self._meet("move")
        self._inner.move_to(min(max(z_um, self.soft_um[0]), self.soft_um[1]))

    def stop(self) -> None:
        """Stop."""
        self._inner.stop()

    def close(self) -> None:
        """Close."""
        self._inner.close()

    def true_z_um(self) -> float:
        """Where the stage really stands."""
        return self._inner.position_um()

    def hang(self) -> None:
        """Do not return before `released` is set."""
        self.released.wait(HANG_S)

    def raise_error(self) -> None:
        """What a device that has lost its cable does."""
        raise HardwareError("the device is gone")

    def slip(self) -> None:
        """From now on the stage reads back what it is not."""
        self.spoil("position", lambda z_um: z_um + 7.0)

    def limit(self, low_um: float, high_um: float) -> None:
        """From now on the controller goes no further than this, and does not say so."""
        self.soft_um = (low_um, high_um)

    def lose_position(self) -> None:
        """From now on the stage reads back no number."""
        self.spoil("position", lambda _z_um: math.nan)

    def fired(self) -> None:
        """Note the moment of the harm, the first alone."""
        self.fired_s = self.fired_s or perf_counter()

    def _meet(self, action: str) -> None:
        if action == self._action:
            self._countdown -= 1
            if self._countdown == 0:
                self.fired()
                self._harm()


def dead(frame: Frame) -> Frame:
    """A sensor that no longer reads out."""
    return replace(frame, pixels=np.zeros_like(frame.pixels))


def dark(frame: Frame) -> Frame:
    """A shutter that has closed: offset and read noise."""
    noise = np.random.default_rng(frame.sequence).normal(130, 4, frame.pixels.shape)
    return replace(frame, pixels=noise.round().astype(np.uint16))


def saturated(frame: Frame) -> Frame:
    """Too much light."""
    return replace(frame, pixels=np.full_like(frame.pixels, frame.full_scale))


def not_a_number(frame: Frame) -> Frame:
    """A camera whose driver calibrates pixels by dividing through zero."""
    return replace(frame, pixels=np.full(frame.pixels.shape, np.nan, np.float32))
