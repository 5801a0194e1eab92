"""The Moffat profile that the paper fits to the calibration curve, here as a dip of the blurriness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moffat:
    """b(z) = top − depth·(1 + ((z − centre)/width)²)^(−power).

    Source: A. F. J. Moffat, Astron. Astrophys. 3 (1969) 455; used for b_calib(z) in DeepFocus, section 2.
    """

    top: float
    depth: float
    centre_um: float
    width_um: float
    power: float

    def __call__(self, z_um: Array) -> Array:
        """The profile at positions z."""
        base = 1 + ((z_um - self.centre_um) / self.width_um) ** 2
        return np.asarray(self.top - self.depth * base**-self.power)

    def slopes(self, z_um: Array) -> Array:
        """Derivatives of the profile at positions z (n,) by its parameters, (n, 5), in their order."""
        x = (z_um - self.centre_um) / self.width_um
        base = 1 + x**2
        dip = base**-self.power
        by_base = self.depth * self.power * dip / base
        by_x = 2 * x * by_base / self.width_um
        return np.stack([np.ones_like(x), -dip, -by_x, -x * by_x, self.depth * dip * np.log(base)], axis=1)

    @property
    def fwhm_um(self) -> float:
        """Full width at half of the dip's depth."""
        return float(2 * self.width_um * np.sqrt(2 ** (1 / self.power) - 1))


def fit_moffat(z_um: Array, b: Array) -> Moffat:
    """Least-squares fit to a curve, (n,) each, that falls to one minimum and rises again.

    The top stays near the highest value measured: what the curve does beyond the stack is not known, and a
    profile free to rise there has no meaningful width.
    """
    extent, rise = float(np.ptp(z_um)), max(float(np.ptp(b)), 1e-6)
    start = [b.max(), rise, z_um[np.argmin(b)], extent / 4, 1.0]
    lower = [b.min(), 0.0, z_um.min(), extent / 100, 0.5]
    upper = [b.max() + 0.1 * rise, 2 * rise, z_um.max(), extent, 10.0]
    scale = [rise, rise, extent, extent, 1.0]
    fit = least_squares(
        lambda p: Moffat(*p)(z_um) - b,
        np.clip(start, lower, upper),
        jac=lambda p: Moffat(*p).slopes(z_um),
        bounds=(lower, upper),
        x_scale=scale,
    )
    return Moffat(*(float(value) for value in fit.x))


def r_squared(measured: Array, fitted: Array) -> float:
    """Coefficient of determination; 1 for a perfect fit, also of constant data."""
    residual = float(((measured - fitted) ** 2).sum())
    total = float(((measured - measured.mean()) ** 2).sum())
    return 1.0 if residual <= 1e-12 * max(total, 1e-12) else 1 - residual / max(total, 1e-12)
