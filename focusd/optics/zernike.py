"""Zernike polynomials on the unit disc in Noll's order, normalised to unit RMS.

Source: R. J. Noll, "Zernike polynomials and atmospheric turbulence", J. Opt. Soc. Am. 66 (1976) 207.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ASTIGMATISM_OBLIQUE = 5
ASTIGMATISM_VERTICAL = 6
COMA_Y = 7
COMA_X = 8
SPHERICAL = 11


def noll_to_nm(j: int) -> tuple[int, int]:
    """Radial order n and signed azimuthal order m of Noll's index j ≥ 1 (sine terms have m < 0)."""
    if j < 1:
        raise ValueError("Noll's index starts at 1")
    n = (math.isqrt(8 * j - 7) - 1) // 2
    place = j - n * (n + 1) // 2 - 1
    m = 2 * ((place + 1) // 2) if n % 2 == 0 else 2 * (place // 2) + 1
    return n, m if j % 2 == 0 else -m


def zernike(j: int, rho: Tensor, theta: Tensor) -> Tensor:
    """Value of the j-th polynomial at polar coordinates (rho ≤ 1, theta in radians); unit RMS over the disc."""
    n, m = noll_to_nm(j)
    value = math.sqrt(n + 1) * _radial(n, abs(m), rho)
    if m == 0:
        return value
    angular = torch.cos(m * theta) if m > 0 else torch.sin(-m * theta)
    return math.sqrt(2) * value * angular


def _radial(n: int, m: int, rho: Tensor) -> Tensor:
    """Radial polynomial R_n^m."""
    square = rho * rho
    value = torch.zeros_like(rho)
    for k in range((n - m) // 2 + 1):  # Horner's scheme in ρ², from the highest power down
        numerator = (-1) ** k * math.factorial(n - k)
        denominator = math.factorial(k) * math.factorial((n + m) // 2 - k) * math.factorial((n - m) // 2 - k)
        value = value * square + numerator / denominator
    return value * rho**m
