"""focusd's own grey: one image (y, x) of whatever a camera sends, colours and raw colour mosaics included.

Everything here is linear in the light, so that the ratio of two frames' power spectra stays that of the optics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
"""Unsigned whole numbers as a camera gives them, or floats."""


def components(pixels: Pixels) -> Pixels:
    """The pixels that carry light: (y, x), or (y, x, 3) of a colour image, whose fourth component is none.

    Other shapes are returned as they are.
    """
    if pixels.ndim != 3:
        return pixels
    return {1: pixels[..., 0], 4: pixels[..., :3]}.get(pixels.shape[2], pixels)


def is_image(pixels: Pixels) -> bool:
    """Whether these are the pixels of a grey or a colour image."""
    is_grey, is_colour = pixels.ndim == 2, pixels.ndim == 3 and pixels.shape[2] == 3
    return (is_grey or is_colour) and pixels.size > 0


def grey(pixels: Pixels, is_mosaic: bool = False) -> Pixels:
    """The grey (y, x) of an image: red + 2·green + blue, of a grey camera's image itself.

    Of all greys that were tried on simulated colour cameras no other focuses better (docs/explanation/cameras.md): most
    light, little trace of the mosaic, and one colour alone may show nothing of a sample.

    Args:
        pixels: (y, x), or (y, x, 3).
        is_mosaic: they are those of a raw colour mosaic, (y, x).
    """
    if pixels.ndim == 3:
        return _summed(pixels)
    return _unmosaiced(pixels) if is_mosaic else pixels


def _summed(pixels: Pixels) -> Pixels:
    red, green, blue = np.moveaxis(pixels, -1, 0)
    image = _wide(green)
    image *= 2
    image += red
    image += blue
    return image


def _unmosaiced(pixels: Pixels) -> Pixels:
    """Each pixel with those below and beside it: one red, two green and one blue, wherever the cell begins.

    An even mosaic has three frequencies, and the sum passes none of them. It shifts the image by half a pixel, which no
    focus depends on.
    """
    image = _wide(pixels)
    image[:-1] += pixels[1:]
    image[-1] += pixels[-2]
    image[:, :-1] += image[:, 1:]
    image[:, -1] = image[:, -2]
    return image


def _wide(pixels: Pixels) -> Pixels:
    """A copy in which four of them can be added: of 8 bit in 16, which the scorer takes as they are."""
    return pixels.astype(np.uint16 if pixels.dtype.itemsize == 1 else np.float32)
