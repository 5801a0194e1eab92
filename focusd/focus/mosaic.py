"""Tells a raw colour mosaic from a grey camera's frame, by its pixels alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 64
_BLOCKS = 8
"""Along each axis, at most, evenly spread."""
_LEAST_PX = 32
_STANDS_OUT = 10.0
"""Power at a frequency of the mosaic over that beside it: of noise, hot pixels and textures both are about alike."""
_LEAST = 0.004
"""Amplitude of the mosaic over the level: a fainter one changes no focus."""
_BESIDE = range(6, 11)
"""So many frequencies away a block shows nothing of an even mosaic."""


def is_mosaic(pixels: NDArray[np.generic]) -> bool:
    """Whether a frame is a raw colour mosaic.

    A mosaic of 2×2 pixels has three frequencies, one along each axis and their sum, and holds the first two alike. It
    shows at them in most of the field; a camera whose rows or columns alone differ shows at one.

    Args:
        pixels: (y, x), or (y, x, 3), which is none.
    """
    if pixels.ndim != 2 or min(pixels.shape) < _LEAST_PX:
        return False
    row, column, both = (_stands_out(power) for power in _carriers(pixels).T)
    return both or (row and column)


def _stands_out(power: NDArray[np.float64]) -> bool:
    """Whether a frequency's squared amplitudes (itself and beside, blocks) are those of a mosaic."""
    itself, beside = np.median(power, axis=1)
    return bool(itself > _LEAST**2 and itself > _STANDS_OUT * beside)


def _carriers(pixels: NDArray[np.generic]) -> NDArray[np.float64]:
    """Squared amplitudes over the level at the three frequencies and beside them, (blocks, 2, 3)."""
    size = min(BLOCK_PX, *(extent // 2 * 2 for extent in pixels.shape))
    window = np.hanning(size + 1)[:-1]
    window = window[:, None] * window
    found = []
    for y, x in np.ndindex(_count(pixels.shape[0], size), _count(pixels.shape[1], size)):
        top, left = _first(pixels.shape[0], size, y), _first(pixels.shape[1], size, x)
        block = pixels[top : top + size, left : left + size].astype(np.float64)
        level = max(block.mean(), 1e-9)
        power = np.abs(np.fft.fft2((block / level - 1) * window) / window.sum()) ** 2
        found.append(_at_carriers(power))
    return np.array(found)


def _at_carriers(power: NDArray[np.float64]) -> list[list[float]]:
    half = len(power) // 2
    places = [(half, 0), (0, half), (half, half)]
    near = [step for distance in _BESIDE for step in (distance, -distance)]
    beside = [
        float(np.mean([power[(y + dy) % len(power), (x + dx) % len(power)] for dy in near for dx in near]))
        for y, x in places
    ]
    return [[float(power[place]) for place in places], beside]


def _count(extent: int, size: int) -> int:
    return min(_BLOCKS, extent // size)


def _first(extent: int, size: int, number: int) -> int:
    count = _count(extent, size)
    return 0 if count == 1 else round(number * (extent - size) / (count - 1))
