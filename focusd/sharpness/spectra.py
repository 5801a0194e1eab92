"""Power spectra of a frame's blocks: the sufficient statistics of the comparison between frames (DESIGN §3).

Frames of one run show the same object, so the ratio of their power spectra at a spatial frequency depends on
defocus alone. A frame is cut into blocks of 256 px (a tile of 128 px is narrower than a far defocus), windowed,
and its power averaged over bands of |f|.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focusd.optics.bands import band_modes, band_weights, corner_weights

Array = NDArray[np.float64]
Region = tuple[int, int, int, int]
"""(y, x, height, width) in pixels of the frame."""

BLOCK_PX = 256
MAX_BLOCKS = 64
"""More of them say nothing new about a field, and cost time."""

QUANTISATION = 1 / 12
"""Noise that counts in whole numbers have at least."""


@dataclass(frozen=True)
class Spectra:
    """Of one frame.

    Attributes:
        power: (rows, columns, bands) mean power of each block.
        noise: (rows, columns) power of white noise in each block, from the corners of the spectrum.
        modes: (bands,) independent Fourier modes in a band of one block.
        y_px, x_px: (rows, columns) centres of the blocks.
        size_px: of one block.
    """

    power: Array
    noise: Array
    modes: Array
    y_px: Array
    x_px: Array
    size_px: int


def block_spectra(pixels: NDArray[np.generic], region: Region) -> Spectra:
    """Spectra of the blocks of a frame that cover a region.

    Args:
        pixels: (y, x), finite.
    """
    frame = torch.from_numpy(pixels.astype(np.float32))
    size = min(BLOCK_PX, *frame.shape)
    y, x, height, width = region
    rows = _starts(y, height, size, frame.shape[0])
    columns = _starts(x, width, size, frame.shape[1])
    power = _power(torch.stack([frame[r : r + size, c : c + size] for r in rows for c in columns]))
    shape = (len(rows), len(columns))
    noise = (power @ corner_weights(size)).double().numpy().reshape(shape)
    y_px, x_px = np.meshgrid(np.array(rows) + size / 2, np.array(columns) + size / 2, indexing="ij")
    return Spectra(
        (power @ band_weights(size)).double().numpy().reshape(*shape, -1),
        np.maximum(noise, QUANTISATION),
        band_modes(size),
        y_px,
        x_px,
        size,
    )


def _starts(first: int, extent: int, size: int, limit: int) -> list[int]:
    """First pixels of half-overlapping blocks that cover a stretch, at most √MAX_BLOCKS of them, inside the frame."""
    if extent <= size:
        return [min(max(0, first + (extent - size) // 2), limit - size)]
    count = min(math.ceil(2 * extent / size) - 1, math.isqrt(MAX_BLOCKS))
    return [first + round(i * (extent - size) / (count - 1)) for i in range(max(2, count))]


def _power(blocks: Tensor) -> Tensor:
    """Power of windowed blocks (n, size, size), flattened to (n, size·(size/2 + 1)); white noise has its variance."""
    size = blocks.shape[-1]
    window = torch.hann_window(size, periodic=True)
    window = window / window.square().mean().sqrt()
    level = (blocks * window[:, None] * window).sum((-2, -1), keepdim=True) / window.sum() ** 2
    transform = torch.fft.rfft2((blocks - level) * window[:, None] * window, norm="ortho")
    return torch.view_as_real(transform).square().sum(-1).flatten(1)
