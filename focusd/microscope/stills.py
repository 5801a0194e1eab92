"""Flat and dark frames that a user gives, as TIFF files or arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from focusd.errors import RequestError
from focusd.focus.grey import components, is_image

Still = Path | str | NDArray[np.generic]
"""A TIFF file, or the pixels (y, x), (y, x, 3) in colour, or several frames of them along the first axis."""
MOST_BYTES = 2 << 30
"""Of a file: more than a hundred frames of most cameras."""


def still(given: Still | None, name: str) -> NDArray[np.unsignedinteger] | None:
    """The frames, (frames, y, x) or (frames, y, x, 3), uint8 or uint16; None: there are none.

    Args:
        name: `flat` or `dark`, for messages.

    Raises:
        RequestError: the file cannot be read, or these are no camera frames.
    """
    if given is None:
        return None
    pixels, axes = _read(Path(given), name) if isinstance(given, Path | str) else (given, "")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise RequestError(
            f"the {name} frame has {pixels.dtype} pixels: save it as the camera gives it, unsigned 8 or 16 bit"
        )
    is_colour = axes.endswith("S") if axes else pixels.ndim > 2 and pixels.shape[-1] in (3, 4)
    image_axes = 3 if is_colour else 2
    frames = pixels[None] if pixels.ndim == image_axes else pixels
    if frames.ndim != image_axes + 1 or not len(frames) or not is_image(components(frames[0])):
        raise RequestError(
            f"the {name} frame has the shape {pixels.shape}: give one image, or several of one size as a stack"
        )
    return np.asarray(frames[..., :3] if is_colour else frames)


def _read(path: Path, name: str) -> tuple[NDArray[np.generic], str]:
    """The pixels of a TIFF file, and its axes as tifffile names them."""
    try:
        if not path.is_file():
            raise RequestError(
                f"the {name} frame: there is no file {path} on the computer that focusd runs on"
            )
        if path.stat().st_size > MOST_BYTES:
            raise RequestError(f"the {name} frame: {path} is too large; give up to a hundred frames")
        with tifffile.TiffFile(path) as file:
            return np.asarray(file.series[0].asarray()), file.series[0].axes
    except (OSError, ValueError, IndexError, MemoryError, tifffile.TiffFileError) as error:
        raise RequestError(f"the {name} frame: {path} cannot be read as a TIFF image: {error}") from error
