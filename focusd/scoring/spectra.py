"""Power spectra of a frame's blocks: the sufficient statistics of the comparison between frames.

Frames of one run show the same object, so the ratio of their power spectra at a spatial frequency depends on
defocus alone. A frame is cut into blocks of 256 px (a tile of 128 px is narrower than a far defocus), windowed,
and its power averaged over bands of |f|.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focusd.optics.bands import (
    BlockSpectra,
    band_modes,
    band_spread,
    every_other,
    mean_in_bands,
)

Region = tuple[int, int, int, int]
"""(y, x, height, width) in pixels of the frame."""

BLOCK_PX = 256
MAX_BLOCKS = 25
"""More of them say nothing new about a field, and cost time."""

_LEAST_PX = 8
_LEVEL_PX = 32
"""One pixel of so many, along each axis, tells a frame's level."""
_AT_ONCE = 7
"""Blocks that still fit into a core's cache, more or less; a core takes no more of them than its share."""
QUANTISATION = 1 / 12
"""Noise that counts in whole numbers have at least."""


def block_spectra(
    pixels: NDArray[np.generic],
    region: Region,
    each: Callable[..., Iterable[Tensor]] = map,
    threads: int = 1,
    *,
    thinned: bool = False,
    known: BlockSpectra | None = None,
) -> BlockSpectra:
    """Spectra of the blocks of a frame that cover a region.

    Args:
        pixels: (y, x), finite.
        each: like the builtin `map`: where a few blocks at a time are computed.
        threads: of them so many at once.
        thinned: as `BlockSpectra.thinned`, and no other block is computed.
        known: such thinned spectra of this frame and region, which are not computed again.
    """
    pixels = _completed(pixels)
    size = min(BLOCK_PX, *pixels.shape)
    y, x, height, width = region
    rows = _starts(y, height, size, pixels.shape[0])
    columns = _starts(x, width, size, pixels.shape[1])
    few = every_other(len(rows)), every_other(len(columns))
    if thinned:
        rows, columns = rows[few[0]], columns[few[1]]
    wanted = np.ones((len(rows), len(columns)), bool)
    power = np.empty((*wanted.shape, len(band_modes(size)) + 1))
    if known:
        wanted[few] = False
        power[few] = np.concatenate([known.power, known.noise[..., None]], axis=-1)
    corners = [(rows[i], columns[j]) for i, j in np.argwhere(wanted)]
    share = max(1, min(_AT_ONCE, math.ceil(len(corners) / threads)))
    together = [corners[i : i + share] for i in range(0, len(corners), share)]
    if together:
        power[wanted] = torch.cat(list(each(partial(_banded_power, pixels, size), together))).numpy()
    y_px, x_px = np.meshgrid(np.array(rows) + size / 2, np.array(columns) + size / 2, indexing="ij")
    power = np.maximum(power, QUANTISATION)
    return BlockSpectra(
        power[..., :-1],
        power[..., -1],
        band_modes(size),
        band_spread(size),
        y_px,
        x_px,
        size,
        float(pixels[::_LEVEL_PX, ::_LEVEL_PX].mean()),
    )


def _completed(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    """A frame too small to hold a band is repeated by reflection."""
    if min(pixels.shape) >= _LEAST_PX:
        return pixels
    return np.pad(pixels, [(0, max(0, _LEAST_PX - extent)) for extent in pixels.shape], mode="symmetric")


def _starts(first: int, extent: int, size: int, limit: int) -> list[int]:
    """First pixels of half-overlapping blocks that cover a stretch, at most √MAX_BLOCKS of them, inside the frame."""
    if extent <= size:
        return [min(max(0, first + (extent - size) // 2), limit - size)]
    count = min(math.ceil(2 * extent / size) - 1, math.isqrt(MAX_BLOCKS))
    return [first + round(i * (extent - size) / (count - 1)) for i in range(max(2, count))]


def _banded_power(pixels: NDArray[np.generic], size: int, corners: list[tuple[int, int]]) -> Tensor:
    """Mean power (blocks, bands + 1) of windowed blocks in each band, and in the corners of the spectrum.

    White noise has its variance.
    """
    transform = torch.fft.rfft2(torch.from_numpy(_cut(pixels, size, corners)), norm="ortho")
    return torch.from_numpy(mean_in_bands(torch.view_as_real(transform).square_().numpy()))


def _cut(pixels: NDArray[np.generic], size: int, corners: list[tuple[int, int]]) -> NDArray[np.float32]:
    """The blocks, (blocks, size, size), windowed."""
    blocks = np.empty((len(corners), size, size), np.float32)
    window = _window(size)
    # What is left of a constant leaks into frequencies below all bands; taken off, it costs no precision above.
    level = np.float32(pixels[::_LEVEL_PX, ::_LEVEL_PX].mean())
    for block, (y, x) in zip(blocks, corners, strict=True):  # one by one they stay in a core's cache
        block[:] = pixels[y : y + size, x : x + size]
        block -= level
        block *= window
    return blocks


@cache
def _window(size: int) -> NDArray[np.float32]:
    """Hann's, (size, size), of unit power."""
    window = torch.hann_window(size, periodic=True)
    window = window / window.square().mean().sqrt()
    return np.asarray((window[:, None] * window).numpy())
