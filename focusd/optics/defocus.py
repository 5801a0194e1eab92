"""Defocus as a phase of the pupil, and as the Zernike focus coefficient that the network learns.

Defocus is dimensionless here: u = z·NA²/(λ·n), i.e. z in axial units λ·n/NA².
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from focusd.optics.instrument import Instrument

MAX_FOCUS_WAVES = 3.0
"""The blurriest of the range: a blurriness b of 1 is 3 waves RMS of Zernike focus, u ≈ 20.8."""

_QUADRATURE_NODES = 24


def defocus_waves(u: Tensor, sin_alpha: Tensor, rho: Tensor) -> Tensor:
    """Phase of the pupil, in waves, at radius rho for a defocus u: exact at high apertures.

    The path difference z·n·(√(1 − s²ρ²) − 1), s = sin α = NA/n, is −u·ρ²/2 in the paraxial limit.
    """
    return u * (torch.sqrt(1 - (sin_alpha * rho) ** 2) - 1) / sin_alpha**2


def focus_coefficient(u: Tensor, sin_alpha: Tensor) -> Tensor:
    """Noll's fourth Zernike coefficient of a defocus u, waves RMS, as a magnitude.

    Args:
        u: defocus in axial units, any shape.
        sin_alpha: NA/n, the same shape.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_QUADRATURE_NODES)
    t = torch.as_tensor((nodes + 1) / 2, dtype=u.dtype, device=u.device)  # t = ρ², uniform over the disc
    w = torch.as_tensor(weights / 2, dtype=u.dtype, device=u.device)
    phase = defocus_waves(u[..., None], sin_alpha[..., None], torch.sqrt(t))
    return (phase * math.sqrt(3) * (2 * t - 1) * w).sum(-1).abs()


def blurriness(instrument: Instrument, z_um: float) -> float:
    """The score b that a perfect network gives at a defocus: 0 sharp, 1 at `MAX_FOCUS_WAVES`."""
    u = torch.tensor(z_um / instrument.axial_unit_um, dtype=torch.float64)
    sin_alpha = torch.tensor(instrument.sin_alpha, dtype=torch.float64)
    return float(focus_coefficient(u, sin_alpha)) / MAX_FOCUS_WAVES
