"""What a calibration knows of the camera itself: whether it sends a mosaic, and what it shows at every z."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from focusd.focus.grey import Pixels, grey

Image = NDArray[np.float32]

MOST_BYTES = 8 << 20
"""Of what is kept of a plane. One that takes more is kept more coarsely."""
BAD = 0.5
"""A pixel that differs so much from those around it tells nothing; they stand for it."""
_LARGEST = 32767
_AROUND_PX = 5


@dataclass(frozen=True)
class Plane:
    """One number a pixel, as it is kept: whole multiples of a quantum, compressed.

    Attributes:
        shape: (y, x).
        quantum: of the values.
        packed: 16-bit whole numbers, little-endian, row by row, by zlib.
    """

    shape: tuple[int, int]
    quantum: float
    packed: bytes

    @classmethod
    def of(cls, values: NDArray[np.floating], quantum: float) -> Plane:
        """These values (y, x), to half a quantum, or more coarsely where they would take too much room."""
        y, x = values.shape
        while True:
            whole = np.rint(values / quantum).clip(-_LARGEST, _LARGEST).astype("<i2")
            packed = zlib.compress(whole.tobytes(), 6)
            if len(packed) <= MOST_BYTES:
                return cls((y, x), quantum, packed)
            quantum *= 2

    @cached_property
    def values(self) -> Image:
        """The values, (y, x).

        Raises:
            ValueError: what was kept is damaged.
        """
        size = 2 * self.shape[0] * self.shape[1]
        try:
            content = zlib.decompressobj().decompress(self.packed, size + 1)
        except zlib.error as error:
            raise ValueError(f"the plane is damaged: {error}") from error
        if len(content) != size:
            raise ValueError("the plane is not of its size")
        return np.frombuffer(content, "<i2").reshape(self.shape) * np.float32(self.quantum)


@dataclass(frozen=True)
class Sensor:
    """Turns a camera's frames into what is scored. A new one changes nothing of a grey camera's frames.

    Attributes:
        is_mosaic: it sends a raw colour mosaic.
        dark: what the camera shows without light, in counts of the grey; None: not known, taken for even.
        pattern: by how much of the light each pixel shows more than it should, at every z; None: nothing stands out.
    """

    is_mosaic: bool = False
    dark: Plane | None = None
    pattern: Plane | None = None

    def seen(self, pixels: Pixels) -> Pixels:
        """What is scored of a frame: its grey (y, x), without what the camera adds to it.

        A frame of another size than the planes, of another region or binning, is only turned into grey.

        Args:
            pixels: (y, x) or (y, x, 3).
        """
        image = grey(pixels, self.is_mosaic)
        if self.dark is not None and self.dark.shape == image.shape:
            image = image - self.dark.values
        if self.pattern is not None and self.pattern.shape == image.shape:
            image = self._evened(image / self._response)
        return image

    def in_words(self) -> str:
        """What a person should know of it; empty: nothing."""
        told = []
        if self.is_mosaic:
            told.append("the camera sends a raw colour mosaic, of which focusd makes its own grey")
        if self.pattern is not None:
            percent = 100 * float(self.pattern.values.std())
            told.append(
                f"what the camera shows at every z, {percent:.2g} % of the light, is taken off each frame"
            )
        return "; ".join(told)

    @cached_property
    def _response(self) -> Image:
        assert self.pattern is not None, "the caller has one"
        return np.where(self._is_bad, np.float32(1), 1 + self.pattern.values)

    @cached_property
    def _is_bad(self) -> NDArray[np.bool_]:
        assert self.pattern is not None, "the caller has one"
        return np.asarray(np.abs(self.pattern.values) > BAD)

    @cached_property
    def _good_around(self) -> Image:
        """Share of good pixels around each bad one."""
        return np.asarray(_mean_around(1 - self._is_bad.astype(np.float32))[self._is_bad])

    def _evened(self, image: Pixels) -> Pixels:
        """The image, its bad pixels replaced by the mean of the good ones around."""
        if not self._is_bad.any():
            return image
        around = _mean_around(np.where(self._is_bad, 0, image).astype(np.float32))[self._is_bad]
        filled = around / np.maximum(self._good_around, 1e-3)
        image[self._is_bad] = np.where(self._good_around > 1e-3, filled, image.mean())
        return image


PLAIN = Sensor()
"""Of a camera of which nothing is known."""


def _mean_around(image: Image) -> Image:
    return np.asarray(uniform_filter(image, _AROUND_PX, mode="nearest"))
