"""Bands of spatial frequency in which the power of a square block is averaged, and what optics pass in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from focusd.optics.imaging import kernel_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.psf import pixel_kernel

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
    """

    power: NDArray[np.float64]
    noise: NDArray[np.float64]
    modes: NDArray[np.float64]
    spread: NDArray[np.float64]
    y_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    size_px: int

    def thinned(self) -> BlockSpectra:
        """Every other block of every other row: a quarter at most of many, spread over the field."""
        chosen = tuple(every_other(count) for count in self.noise.shape)
        power, noise, y_px, x_px = (each[chosen] for each in (self.power, self.noise, self.y_px, self.x_px))
        return replace(self, power=power, noise=noise, y_px=y_px, x_px=x_px)


def every_other(count: int) -> slice:
    """Of so many blocks in a row, those that `thinned` keeps: of five not the ends, of three only these."""
    return slice(count // 4, None, 2)


@cache
def band_weights(size: int) -> Tensor:
    """Matrix (size·(size/2 + 1), bands) that averages the half-plane of an rfft2 over bands of |f| up to ½."""
    edges = [float(k) for k in range(_FIRST_BIN, min(_FINE_BINS, size // 2) + 1)]
    while edges[-1] < size / 2:
        edges.append(max(edges[-1] + 1, edges[-1] * _GROWTH))
    radius = _radius(size)
    band = torch.bucketize(radius * size, torch.tensor(edges[:-1]), right=True) - 1
    inside = (band >= 0) & (radius < 0.5)
    member = functional.one_hot(band.clamp(min=0), len(edges) - 1).float() * inside[:, None]
    return member / member.sum(0)


@cache
def corner_weights(size: int) -> Tensor:
    """Vector that averages over the corners of the half-plane."""
    corner = (_radius(size) > _NOISE_ABOVE).float()
    return corner / corner.sum()


@cache
def band_modes(size: int) -> NDArray[np.float64]:
    """Independent Fourier modes in each band, (bands,)."""
    return np.asarray((band_weights(size) > 0).sum(0).double().numpy() / _COUPLED_MODES)


@cache
def band_spread(size: int) -> NDArray[np.float64]:
    """Variance of |f| in each band and over what the window mixes into it, (bands,), in squares of the bands' spacing.

    By so much times both their slopes, a band's mean of a product exceeds the product of the means.
    """
    weights, radius = band_weights(size).double(), _radius(size).double() * size
    mean = radius @ weights
    variance = radius.square() @ weights - mean.square()
    return np.asarray((variance.numpy() + _WINDOW_VARIANCE) / np.gradient(mean.numpy()) ** 2)


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
    passed = kernel_transfer(kernel, (size, size))
    power = passed.real.square() + passed.imag.square()  # a quarter of the time of summing over the last axis
    banded: NDArray[np.float64] = (folded(power) @ _folded_weights(size)).clamp(min=1e-9).double().numpy()
    return banded


def folded(power: Tensor) -> Tensor:
    """Half-planes (planes, size, size/2 + 1), their rows of −f added in place to those of f, of the same |f|; flat.

    The weights are half as many, and it is reading them that takes the time.
    """
    pairs = (power.shape[1] - 1) // 2
    power[:, 1 : pairs + 1] += power[:, -pairs:].flip(1)
    return power[:, : power.shape[1] // 2 + 1].flatten(1)


def of_folded(weights: Tensor, size: int) -> Tensor:
    """The weights (size·(size/2 + 1), …) of a half-plane that are left for `folded` power."""
    return weights[: (size // 2 + 1) ** 2].contiguous()


@cache
def _folded_weights(size: int) -> Tensor:
    return of_folded(band_weights(size), size)


def _kernel_px(u: float, instrument: Instrument) -> int:
    """Even size that holds the blur, and the fainter light around it."""
    radius_um = instrument.blur_radius_um(u * instrument.axial_unit_um)
    return 2 * math.ceil(1.6 * radius_um / instrument.pixel_um + 8)


def _radius(size: int) -> Tensor:
    """|f| on the half-plane, flat, cycles/pixel."""
    return torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None, :]).flatten()
