"""Pupil → point spread function → transfer function (scalar diffraction).

Frequencies are in units of NA/λ, lengths in λ/NA, so that one function serves every instrument:
the pupil has radius 1, the incoherent transfer function ends at 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from focusd.optics.defocus import defocus_waves
from focusd.optics.instrument import Instrument
from focusd.optics.zernike import zernike

CRITICAL_SAMPLING = 0.25
"""Coarsest grid, in λ/NA, on which |FFT(pupil)|² does not alias."""

Aberrations = Mapping[int, Tensor]
"""Noll's index → coefficient in waves RMS, one a batch element."""


def intensity_psf(
    u: Tensor,
    sin_alpha: Tensor,
    spacing: Tensor,
    size: int,
    aberrations: Aberrations | None = None,
    condenser: Tensor | None = None,
) -> Tensor:
    """Point-sampled PSFs, (batch, size, size), each with unit sum, the origin at [0, 0].

    Args:
        u: defocus in axial units λ·n/NA², (batch,).
        sin_alpha: NA/n, (batch,), or (1,) for all alike, as all that follows.
        spacing: of the samples in λ/NA, (batch,); at most `CRITICAL_SAMPLING`.
        size: samples along each axis; the PSF must fit into it.
        aberrations: added to the defocus.
        condenser: NA of the illumination over NA of the objective, (batch,), for partially coherent light:
            the PSF is then that of a weakly absorbing object and may be negative in places (Streibl,
            J. Opt. Soc. Am. A 2 (1985) 121). None, or 1 and above: incoherent.
    """
    if bool((spacing > CRITICAL_SAMPLING + 1e-9).any()):
        raise ValueError(f"spacing must be at most {CRITICAL_SAMPLING} λ/NA")
    fy, fx = _frequencies(spacing, size)
    phase, inside = _pupil(u, sin_alpha, fy, fx, _cell(spacing, size), aberrations or {})
    pupil = torch.polar(inside, 2 * math.pi * phase)
    amplitude = _transform(pupil, size)
    if condenser is None:
        psf = amplitude.real.square() + amplitude.imag.square()  # abs() would take roots first
    else:
        lit = pupil * _aperture(condenser[:, None, None], fy, fx, _cell(spacing, size))
        psf = (_transform(lit, size).conj() * amplitude).real
    normalised: Tensor = psf / psf.sum((-2, -1), keepdim=True)
    return normalised


def _cell(spacing: Tensor, size: int) -> Tensor:
    """Step of the frequency grid, (batch, 1, 1), in NA/λ."""
    return (1 / (size * spacing))[:, None, None]


def _frequencies(spacing: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The part of the frequency grid that holds the pupil: (batch, box, 1) and (batch, 1, box), centred."""
    half = min(size // 2, math.ceil(size * float(spacing.max())) + 1)
    steps = torch.arange(-half, half, dtype=spacing.dtype, device=spacing.device)
    return steps[None, :, None] * _cell(spacing, size), steps[None, None, :] * _cell(spacing, size)


def _aperture(radius: Tensor | float, fy: Tensor, fx: Tensor, cell: Tensor) -> Tensor:
    """Transmission of a disc; its edge, one sample wide, is the part of each cell that lies inside."""
    return ((radius - torch.sqrt(fy**2 + fx**2)) / cell + 0.5).clamp(0, 1)


def _pupil(
    u: Tensor, sin_alpha: Tensor, fy: Tensor, fx: Tensor, cell: Tensor, aberrations: Aberrations
) -> tuple[Tensor, Tensor]:
    """Phase in waves and transmission of the pupil."""
    rho = torch.sqrt(fy**2 + fx**2).clamp(max=1.0)
    phase = defocus_waves(u[:, None, None], sin_alpha[:, None, None], rho)
    if aberrations:
        theta = torch.atan2(fy.expand_as(rho), fx.expand_as(rho))
        for j, waves in aberrations.items():
            phase = phase + waves[:, None, None] * zernike(j, rho, theta)
    return phase, _aperture(1.0, fy, fx, cell)


def _transform(pupil: Tensor, size: int) -> Tensor:
    """Amplitude in the image, (batch, size, size), origin at [0, 0].

    The pupil lies in a corner of its grid, not around the zero frequency: the phase ramp that this gives the
    amplitude drops out of every intensity.
    """
    padded = pupil.new_zeros((len(pupil), size, size))
    box = pupil.shape[-1]
    padded[:, :box, :box] = pupil
    amplitude: Tensor = torch.fft.fft2(padded)
    return amplitude


def pixel_kernel(
    u: Tensor,
    sin_alpha: Tensor,
    sampling: Tensor,
    size: int,
    aberrations: Aberrations | None = None,
    condenser: Tensor | None = None,
) -> Tensor:
    """PSFs as a camera with square pixels samples them, (batch, size, size), origin at [0, 0], unit sum.

    The PSF is computed on a finer grid, its transfer function multiplied by the pixel's, and cut at the
    pixel grid's Nyquist frequency: an object given on the pixel grid holds nothing beyond.

    Args:
        sampling: the pixel in λ/NA, (batch,).
        size: pixels along each axis, even; the blur must fit into it.
        aberrations, condenser: as for `intensity_psf`.
    """
    finer = max(1, math.ceil(float(sampling.max()) / CRITICAL_SAMPLING - 1e-9))
    fine = intensity_psf(u, sin_alpha, sampling / finer, size * finer, aberrations, condenser)
    transfer = torch.fft.rfft2(fine)
    half = size // 2
    low = torch.cat([transfer[:, :half, : half + 1], transfer[:, -half:, : half + 1]], dim=1)
    low = low * _pixel_transfer(size, fine)
    kernel: Tensor = torch.fft.irfft2(low, s=(size, size))
    return kernel


def _pixel_transfer(size: int, like: Tensor) -> Tensor:
    """Transfer function of a square pixel on the half-plane of an rfft2."""
    y = torch.sinc(torch.fft.fftfreq(size, dtype=like.dtype, device=like.device))
    x = torch.sinc(torch.fft.rfftfreq(size, dtype=like.dtype, device=like.device))
    return y[:, None] * x[None, :]


def camera_psf(
    instrument: Instrument, z_um: float, size: int, aberrations: Mapping[int, float] | None = None
) -> Tensor:
    """PSF of an instrument on its camera's pixels, (size, size) float64, centred, unit sum.

    Args:
        z_um: distance of the object from the focal plane.
        aberrations: Noll's index → waves RMS.
    """
    scalar = {j: _single(waves) for j, waves in (aberrations or {}).items()}
    kernel = pixel_kernel(
        _single(z_um / instrument.axial_unit_um),
        _single(instrument.sin_alpha),
        _single(instrument.sampling),
        size,
        scalar,
    )
    centred: Tensor = torch.fft.fftshift(kernel[0])
    return centred


def _single(value: float) -> Tensor:
    """A batch of one, in double precision."""
    return torch.tensor([value], dtype=torch.float64)
