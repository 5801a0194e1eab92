"""What cameras deliver, made what focusd computes with: unsigned grey pixels of a known full scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from focusd.errors import ConfigError


def grey(image: NDArray[np.generic]) -> NDArray[np.unsignedinteger]:
    """Pixels (y, x) of a camera image (y, x) or (y, x, rgb), uint8 or uint16, never signed.

    Of a colour image the green channel: a Bayer sensor has most of it, and one band of light has one focus.

    Raises:
        ConfigError: the pixels are wider than 16 bit or not whole numbers.
    """
    plane = image[..., 1] if image.ndim == 3 else image
    if plane.dtype.kind not in "iu" or plane.dtype.itemsize > 2:
        raise ConfigError(f"the camera delivers {plane.dtype} pixels: set its pixel type to 8 or 16 bit")
    return np.ascontiguousarray(plane).view(f"u{plane.dtype.itemsize}")


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
