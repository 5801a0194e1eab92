"""b_calib(z): the blurriness of a flat object against defocus, once per objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from focusd.errors import CalibrationError
from focusd.focus.moffat import Moffat
from focusd.focus.noise import Noise
from focusd.focus.pupil import PUPIL, SHARPEST
from focusd.focus.sensor import PLAIN, Sensor
from focusd.focus.transfer import Transfer

Array = NDArray[np.float64]

LEAST_REACH, MOST_STEP = 0.8, 1.5
"""Of another calibration's reach, and of the distance of its planes: beyond that this one is worse."""
MOST_STRETCHED = 1.35
"""Ratio of two calibrations' scales of z, as their scores tell them, that two samples may show (1.18 was seen)."""
MOST_UNEXPLAINED, MIN_UNEXPLAINED = 2.0, 0.02
"""Likewise of 1 − R², and that much more: among the simulator's samples it varies from 0.008 to 0.033 at 10×/0.3."""
Fingerprint = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Calibration:
    """The curve, and all that it depends on.

    Attributes:
        z_um: (n,) defocus, ascending, 0 at the origin, of the planes on which the score tells the depth.
        b: (n,) blurriness.
        sigma: (n,) spread of b over the field.
        transfer: the curve per spatial frequency, on all planes of the stack: where the score tells no more, it may.
        profile: the Moffat fit in the same coordinates.
        r2: of the fit.
        origin: how the origin was found: `pupil` or `sharpest` (see `find_origin`).
        fingerprint: objective, camera, model and preprocessing that the curve belongs to.
        origin_sigma_um: standard uncertainty of the origin.
        noise: of the camera, by which all spectra are divided; None: it is white.
        sensor: what is known of the camera: its frames are looked at likewise in every search.
        exposed: planes of the stack; None: as many as the transfer has. It may be known on more of them.
        rise_um: from the lowest to the highest part of the field that was calibrated on, which has been levelled; 0: it
            was level.
    """

    z_um: Array
    b: Array
    sigma: Array
    transfer: Transfer
    profile: Moffat
    r2: float
    origin: str
    fingerprint: Fingerprint
    origin_sigma_um: float = 0.0
    noise: Noise | None = None
    sensor: Sensor = PLAIN
    exposed: int | None = None
    rise_um: float = 0.0

    def __call__(self, z_um: Array) -> Array:
        """b_calib at any defocus: interpolated, constant beyond the curve."""
        return np.asarray(self._interpolator(np.clip(z_um, self.min_um, self.max_um)))

    def excess(self, b: Array, defocus_um: Array) -> Array:
        """Scores minus the curve, of shapes that broadcast; 0 beyond it for scores above its end.

        There it only tells that a plane is at least as blurred as that end.
        """
        outside = (defocus_um < self.min_um) | (defocus_um > self.max_um)
        difference = b - self(defocus_um)
        return np.where(outside, np.minimum(difference, 0.0), difference)

    @cached_property
    def _interpolator(self) -> PchipInterpolator:
        return PchipInterpolator(self.z_um, self.b)

    @property
    def min_um(self) -> float:
        """Lower end of the curve."""
        return float(self.z_um[0])

    @property
    def max_um(self) -> float:
        """Upper end of the curve."""
        return float(self.z_um[-1])

    @property
    def fwhm_um(self) -> float:
        """Full width at half maximum of the fitted profile."""
        return self.profile.fwhm_um

    @property
    def axial_unit_um(self) -> float:
        """λ·n/NA² as the curve's own wings tell it: for instruments whose NA nobody stated."""
        return self.transfer.axial_unit_um

    @property
    def reach_um(self) -> float:
        """How far the curve reaches on its shorter side."""
        return min(-self.min_um, self.max_um)

    @property
    def planes(self) -> int:
        """How many planes the stack had."""
        return self.exposed or len(self.transfer.z_um)

    @property
    def step_um(self) -> float:
        """Mean distance of the stack's planes."""
        return float(np.ptp(self.transfer.z_um)) / (self.planes - 1)

    def stretched(self, scale: float) -> Calibration:
        """Return the calibration of a rig whose focus moves by so much for each µm of z."""
        if scale == 1.0:
            return self
        transfer = replace(self.transfer, z_um=self.transfer.z_um / scale)
        return replace(self, z_um=self.z_um / scale, transfer=transfer)

    def thickened(self, extent_um: float) -> Calibration:
        """Return the calibration for a sample that extends so far along z."""
        if extent_um == 0:
            return self
        return replace(self, transfer=self.transfer.thickened(extent_um))

    def shortcomings(self, other: Calibration) -> list[str]:
        """In what it is plainly worse than another calibration of the same rig; empty: in nothing."""
        worse = []
        if self.reach_um < LEAST_REACH * other.reach_um:
            worse.append(
                f"it reaches only {self.reach_um:.3g} µm to its shorter side, against {other.reach_um:.3g} µm"
            )
        if self.step_um > MOST_STEP * other.step_um:
            worse.append(f"its planes lie {self.step_um:.3g} µm apart, against {other.step_um:.3g} µm")
        if 1 - self.r2 > MOST_UNEXPLAINED * (1 - other.r2) + MIN_UNEXPLAINED:
            worse.append(f"its curve is less regular (R² {self.r2:.3f}, against {other.r2:.3f})")
        stretched = self.axial_unit_um / other.axial_unit_um
        if not 1 / MOST_STRETCHED < stretched < MOST_STRETCHED:
            worse.append(
                f"its blur grows {1 / stretched:.2f} times as fast with z as the other's: one of the two was taken "
                "while the stage did not go where it said"
            )
        if (self.origin, other.origin) == (SHARPEST, PUPIL):
            worse.append(
                "its focus is only that of the sharpest image, the other's fits a model of the optics"
            )
        return worse

    def check(self, wanted: Fingerprint) -> None:
        """Refuse to serve an instrument that the curve was not taken with.

        Raises:
            CalibrationError: names the first field that differs.
        """
        for field in {**self.fingerprint, **wanted}:
            had, want = self.fingerprint.get(field), wanted.get(field)
            if had != want:
                raise CalibrationError(
                    f"the calibration does not fit this rig: {field} was {had!r}, is {want!r}; calibrate anew",
                    field=field,
                    calibrated=had,
                    current=want,
                )
