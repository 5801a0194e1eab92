"""Stages that are not where they say, and microscopes that shake."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from focusd.daemon.approach import Approach


@dataclass(frozen=True)
class Mechanics:
    """What moves as it should not.

    Attributes:
        scale: way of the focal plane over that which is commanded.
        jitter_um: standard deviation of where a move ends.
        shake_um: standard deviation of z between exposures, at one commanded z.
        backlash_um: dead zone where the stage turns round.
        drift_um: of the sample, from each exposure to the next.
        vibration_px: standard deviation, along each axis, of the image's shift between exposures.
        smear_px: likewise, of the shift within an exposure.
        tilt_um: rise over the field.
        bowl_um: by which the focus lies deeper in the corners than in the middle.
        red_um, blue_um: where red and blue light is in focus, from green.
    """

    scale: float = 1.0
    jitter_um: float = 0.0
    shake_um: float = 0.0
    backlash_um: float = 0.0
    drift_um: float = 0.0
    vibration_px: float = 0.0
    smear_px: float = 0.0
    tilt_um: float = 0.0
    bowl_um: float = 0.0
    red_um: float = 0.0
    blue_um: float = 0.0


class Stage:
    """A z stage, driven as the daemon drives one.

    Args:
        start_um: where it stands.
    """

    def __init__(self, mechanics: Mechanics, start_um: float, rng: np.random.Generator) -> None:
        self._mechanics = mechanics
        self._rng = rng
        self._commanded_um = start_um
        self._optical_um = start_um  # after the play, before the scale
        self._error_um = 0.0
        self._approach = Approach(start_um)

    def move(self, z_um: float) -> None:
        """Go there."""
        if z_um == self._commanded_um:
            return
        self._approach.sent(z_um)
        self._optical_um = _dragged(self._optical_um, z_um, self._mechanics.backlash_um)
        self._commanded_um = z_um
        self._error_um = self._mechanics.jitter_um * float(self._rng.standard_normal())

    def exposed_um(self) -> float:
        """Return where the focal plane is in an exposure."""
        self._approach.exposed()
        shake_um = self._mechanics.shake_um * float(self._rng.standard_normal())
        return self._mechanics.scale * self._optical_um + self._error_um + shake_um

    def landing_um(self, z_um: float, beyond_um: float) -> float:
        """Return where the focal plane would come to, were the stage sent to an answer as the daemon sends it.

        Args:
            beyond_um: so far beyond it goes first, where it would come from the wrong side.
        """
        optical_um = self._optical_um
        first_um = self._approach.first_um(z_um, beyond_um)
        for to_um in (z_um,) if first_um is None else (first_um, z_um):
            optical_um = _dragged(optical_um, to_um, self._mechanics.backlash_um)
        return self._mechanics.scale * optical_um


def _dragged(optical_um: float, motor_um: float, backlash_um: float) -> float:
    """Return where the motor drags what it moves, once the play is taken up."""
    half_um = backlash_um / 2
    return min(max(optical_um, motor_um - half_um), motor_um + half_um)


def heights(mechanics: Mechanics, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return the focus over the field from its mean, (side, side), µm."""
    place = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    y, x = place[:, None], place[None, :]
    angle = math.radians(30)
    tilt = mechanics.tilt_um * (x * math.cos(angle) + y * math.sin(angle))
    square = 2 * (y**2 + x**2)  # 1 in the corners, a third on average
    return np.asarray(tilt + mechanics.bowl_um * (square - square.mean()), np.float32)
