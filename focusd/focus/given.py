"""What flat and dark frames that a user gives tell of a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from focusd.errors import RequestError
from focusd.focus.grey import grey
from focusd.focus.sensor import Plane, Sensor

Frames = NDArray[np.unsignedinteger]
Image = NDArray[np.float32]

DARK_QUANTUM, FLAT_QUANTUM = 0.125, 1 / 1024
_LEVEL_PX = 33
_LEAST_LIGHT = 8.0
"""Counts of a flat frame above the dark one, at least."""


@dataclass(frozen=True)
class Given:
    """Means of the frames, as the camera gives them: (y, x), or (y, x, 3) in colour; None: there are none."""

    flat: Image | None = None
    dark: Image | None = None

    @classmethod
    def of(cls, flat: Frames | None, dark: Frames | None) -> Given:
        """What these frames tell, (frames, y, x) or (frames, y, x, 3).

        Raises:
            RequestError: they are of different sizes, or the flat shows no light.
        """
        given = cls(*(None if frames is None else _mean(frames) for frames in (flat, dark)))
        if given.flat is not None and given.dark is not None and given.flat.shape != given.dark.shape:
            raise RequestError(
                f"the flat frame has the shape {given.flat.shape} and the dark one {given.dark.shape}: take both "
                "with the same region, binning and colours"
            )
        if given.flat is not None and given._light(given.flat).mean() < _LEAST_LIGHT:
            raise RequestError(
                "the flat frame shows no light: expose an empty, evenly lit field to half the full scale"
            )
        return given

    def sensor(self, is_mosaic: bool) -> Sensor:
        """What is known of the camera.

        Of a flat only what changes from pixel to pixel counts: the light falls differently in every experiment.
        """
        dark = None if self.dark is None else Plane.of(_grey(self.dark, is_mosaic), DARK_QUANTUM)
        if self.flat is None:
            return Sensor(is_mosaic, dark)
        light = _grey(self._light(self.flat), is_mosaic)
        around = uniform_filter(uniform_filter(light, _LEVEL_PX, mode="reflect"), _LEVEL_PX, mode="reflect")
        return Sensor(is_mosaic, dark, Plane.of(light / np.maximum(around, np.float32(1)) - 1, FLAT_QUANTUM))

    def _light(self, flat: Image) -> Image:
        return flat if self.dark is None else flat - self.dark


def _mean(frames: Frames) -> Image:
    total = np.zeros(frames.shape[1:], np.float64)
    for frame in frames:
        total += frame
    return np.asarray(total / len(frames), np.float32)


def _grey(image: Image, is_mosaic: bool) -> Image:
    return np.asarray(grey(image, is_mosaic), np.float32)
