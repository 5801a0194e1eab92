"""Pupil → point spread function → transfer function (scalar diffraction, DESIGN §3).

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
    u: Tensor, sin_alpha: Tensor, spacing: Tensor, size: int, aberrations: Aberrations | None = None
) -> Tensor:
    """Point-sampled PSFs, (batch, size, size), each with unit sum, the origin at [0, 0].

    Args:
        u: defocus in axial units λ·n/NA², (batch,).
        sin_alpha: NA/n, (batch,).
        spacing: of the samples in λ/NA, (batch,); at most `CRITICAL_SAMPLING`.
        size: samples along each axis; the PSF must fit into it.
        aberrations: added to the defocus.
    """
    if bool((spacing > CRITICAL_SAMPLING + 1e-9).any()):
        raise ValueError(f"spacing must be at most {CRITICAL_SAMPLING} λ/NA")
    phase, inside = _pupil_phase(u, sin_alpha, spacing, size, aberrations or {})
    pupil = torch.polar(inside, 2 * math.pi * phase)
    psf = torch.fft.fft2(pupil).abs().square()
    return psf / psf.sum((-2, -1), keepdim=True)


def _pupil_phase(
    u: Tensor, sin_alpha: Tensor, spacing: Tensor, size: int, aberrations: Aberrations
) -> tuple[Tensor, Tensor]:
    """Phase in waves and transmission of the pupil on the frequency grid of the PSF."""
    frequency = torch.fft.fftfreq(size, dtype=u.dtype, device=u.device) / spacing[:, None]
    fy, fx = frequency[:, :, None], frequency[:, None, :]
    radius = torch.sqrt(fy**2 + fx**2)
    # A soft edge one sample wide stands for the part of each cell that lies inside the aperture.
    cell = (1 / (size * spacing))[:, None, None]
    inside = ((1 - radius) / cell + 0.5).clamp(0, 1)
    rho = radius.clamp(max=1.0)
    phase = defocus_waves(u[:, None, None], sin_alpha[:, None, None], rho)
    if aberrations:
        theta = torch.atan2(fy.expand_as(rho), fx.expand_as(rho))
        for j, waves in aberrations.items():
            phase = phase + waves[:, None, None] * zernike(j, rho, theta)
    return phase, inside


def pixel_kernel(
    u: Tensor, sin_alpha: Tensor, sampling: Tensor, size: int, aberrations: Aberrations | None = None
) -> Tensor:
    """PSFs as a camera with square pixels samples them, (batch, size, size), origin at [0, 0], unit sum.

    The PSF is computed on a finer grid, its transfer function multiplied by the pixel's, and cut at the
    pixel grid's Nyquist frequency: an object given on the pixel grid holds nothing beyond.

    Args:
        sampling: the pixel in λ/NA, (batch,).
        size: pixels along each axis, even; the blur must fit into it.
    """
    finer = max(1, math.ceil(float(sampling.max()) / CRITICAL_SAMPLING - 1e-9))
    fine = intensity_psf(u, sin_alpha, sampling / finer, size * finer, aberrations)
    transfer = torch.fft.rfft2(fine)
    half = size // 2
    low = torch.cat([transfer[:, :half, : half + 1], transfer[:, -half:, : half + 1]], dim=1)
    low = low * _pixel_transfer(size, fine)
    return torch.fft.irfft2(low, s=(size, size))


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
    return torch.fft.fftshift(kernel[0])


def _single(value: float) -> Tensor:
    """A batch of one, in double precision."""
    return torch.tensor([value], dtype=torch.float64)
