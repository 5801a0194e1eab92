"""What cameras deliver, made what a frame holds: unsigned pixels of a known full scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from focusd.errors import ConfigError
from focusd.focus.grey import components


def unsigned(image: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    """Pixels of a camera image (y, x), or (y, x, 3) in colour, uint8 or uint16, never signed.

    Raises:
        ConfigError: the pixels are wider than 16 bit or not whole numbers.
    """
    if image.dtype.kind not in "iu" or image.dtype.itemsize > 2:
        raise ConfigError(f"the camera delivers {image.dtype} pixels: set its pixel type to 8 or 16 bit")
    return np.ascontiguousarray(components(image)).view(f"u{image.dtype.itemsize}")


def full_scale(dtype: np.dtype[np.unsignedinteger], bit_depth: int) -> int:
    """The largest value of pixels with that many bits.

    Raises:
        ConfigError: the pixels are narrower than that.
    """
    if bit_depth > 8 * dtype.itemsize:
        raise ConfigError(
            f"camera.bit_depth is {bit_depth}, but the pixels are {dtype}: correct or remove it"
        )
    return int(2**bit_depth) - 1
