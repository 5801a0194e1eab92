"""Bands of spatial frequency in which the power of a square block is averaged, and what optics pass in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from focusd.optics.imaging import kernel_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.psf import pixel_kernel

NOISE_ERROR = 0.05
"""Relative error of the power of noise that is white: it never is quite."""
_FIRST_BIN = 2
"""A window spreads the mean level over the bins below."""
_FINE_BINS = 16
"""Bands up to here are one bin wide: a far defocus puts the first zeros of the transfer there."""
_GROWTH = 1.09
_NOISE_ABOVE = 0.62
"""Cycles/pixel: corners of the spectrum, where optics that a camera samples well pass next to nothing."""
_COUPLED_MODES = 1.9
"""A Hann window makes so many neighbouring modes one."""

_WINDOW_VARIANCE = 1 / 3
"""Of |f|, in bins², in what a Hann window makes one."""


@dataclass(frozen=True)
class BlockSpectra:
    """Power spectra of the blocks of one frame.

    Attributes:
        power: (rows, columns, bands) mean power of each block.
        noise: (rows, columns) power of white noise in each block, from the corners of the spectrum.
        modes: (bands,) independent Fourier modes in a band of one block.
        spread: (bands,) as `band_spread`.
        y_px, x_px: (rows, columns) centres of the blocks.
        size_px: of one block.
        level: mean count of the frame; NaN: not known.
        noise_error: relative error of the noise's power, of all bands or (bands,).
    """

    power: NDArray[np.float64]
    noise: NDArray[np.float64]
    modes: NDArray[np.float64]
    spread: NDArray[np.float64]
    y_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    size_px: int
    level: float = math.nan
    noise_error: NDArray[np.float64] | float = NOISE_ERROR

    def thinned(self) -> BlockSpectra:
        """Every other block of every other row: a quarter at most of many, spread over the field."""
        chosen = tuple(every_other(count) for count in self.noise.shape)
        power, noise, y_px, x_px = (each[chosen] for each in (self.power, self.noise, self.y_px, self.x_px))
        return replace(self, power=power, noise=noise, y_px=y_px, x_px=x_px)


def every_other(count: int) -> slice:
    """Of so many blocks in a row, those that `thinned` keeps: of five not the ends, of three only these."""
    return slice(count // 4, None, 2)


@cache
def band_of(size: int) -> NDArray[np.int64]:
    """The band of each frequency of an rfft2, (size, size/2 + 1); −1: none, and beyond the last band the corners."""
    edges = [float(k) for k in range(_FIRST_BIN, min(_FINE_BINS, size // 2) + 1)]
    while edges[-1] < size / 2:
        edges.append(max(edges[-1] + 1, edges[-1] * _GROWTH))
    radius = _radius(size)
    band = np.searchsorted(edges[:-1], radius, side="right") - 1
    band[radius >= size / 2] = -1
    band[radius > _NOISE_ABOVE * size] = len(edges) - 1
    return np.asarray(band)


@cache
def ring_radii(size: int) -> NDArray[np.float64]:
    """Mean |f| of each band, cycles/pixel, (bands,)."""
    band, radius = band_of(size).ravel() + 1, _radius(size).ravel()
    return np.asarray(np.bincount(band, radius)[1:-1] / _counts(size)[:-1] / size)


@cache
def band_modes(size: int) -> NDArray[np.float64]:
    """Independent Fourier modes in each band, (bands,)."""
    return _counts(size)[:-1] / _COUPLED_MODES


@cache
def band_spread(size: int) -> NDArray[np.float64]:
    """Variance of |f| in each band and over what the window mixes into it, (bands,), in squares of the bands' spacing.

    By so much times both their slopes, a band's mean of a product exceeds the product of the means.
    """
    band, radius = band_of(size).ravel() + 1, _radius(size).ravel()
    mean, square = (np.bincount(band, radius**power)[1:-1] / _counts(size)[:-1] for power in (1, 2))
    return np.asarray((square - mean**2 + _WINDOW_VARIANCE) / np.gradient(mean) ** 2)


def mean_in_bands(squares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean power in each band and, last, in the corners, (blocks, bands + 1).

    Args:
        squares: (blocks, size, size/2 + 1, 2) of the real and imaginary part of an rfft2; they are added to in place.
    """
    blocks, size = squares.shape[:2]
    rows = squares.reshape(blocks, size, -1)
    pairs = (size - 1) // 2
    rows[:, 1 : pairs + 1] += rows[:, : -pairs - 1 : -1]  # of f and of −f: half as many to gather
    order, starts = _gathering(size)
    gathered = rows.reshape(blocks, -1).take(order, axis=1)
    return np.asarray(np.add.reduceat(gathered, starts, axis=1) / _counts(size), np.float32)


@cache
def _gathering(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Which of `mean_in_bands`' numbers to gather, band after band, and where each band begins in what is gathered."""
    band = band_of(size)[: size // 2 + 1].ravel()
    order = np.argsort(band, kind="stable")[np.count_nonzero(band < 0) :]
    starts = np.searchsorted(band[order], np.arange(band.max() + 1))
    return np.stack([2 * order, 2 * order + 1], axis=1).ravel(), 2 * starts


@cache
def _counts(size: int) -> NDArray[np.float64]:
    """Frequencies in each band and, last, in the corners."""
    return np.bincount(band_of(size).ravel() + 1)[1:].astype(float)


def banded_transfer(
    u: NDArray[np.float64], instrument: Instrument, aberrations: Mapping[int, float], size: int
) -> NDArray[np.float64]:
    """Mean of |H|² in each band, (planes, bands), at least 1e-9.

    Args:
        u: (planes,) defocus in axial units.
        aberrations: Noll's index → waves RMS.
        size: of the block, pixels.
    """
    kernel = pixel_kernel(
        torch.tensor(u, dtype=torch.float32),
        torch.tensor([instrument.sin_alpha]),  # of all planes alike
        torch.tensor([instrument.sampling]),
        min(size - size % 2, _kernel_px(float(np.abs(u).max()), instrument)),
        {j: torch.tensor([float(waves)]) for j, waves in aberrations.items()},
    )
    squares = torch.view_as_real(kernel_transfer(kernel, (size, size))).square_()
    return mean_in_bands(squares.numpy())[:, :-1].astype(float).clip(1e-9)


def _kernel_px(u: float, instrument: Instrument) -> int:
    """Even size that holds the blur, and the fainter light around it."""
    radius_um = instrument.blur_radius_um(u * instrument.axial_unit_um)
    return 2 * math.ceil(1.6 * radius_um / instrument.pixel_um + 8)


def _radius(size: int) -> NDArray[np.float64]:
    """|f| on the half-plane, (size, size/2 + 1), in bins."""
    return np.asarray(np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)))
