"""b_calib(z): the blurriness of a flat object against defocus, once per objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import uniform_filter1d

from focusd.errors import CalibrationError, NoSampleError
from focusd.focus.measurement import (
    Mask,
    Measurement,
    Spectrum,
    blocks_with_structure,
    tiles_with_structure,
)
from focusd.focus.moffat import Moffat, fit_moffat, r_squared
from focusd.focus.noise import Noise, noise_in
from focusd.focus.planes import MIN_PLANES
from focusd.focus.pupil import PUPIL, REACH_UNITS, SHARPEST, PupilFit, find_origin, fit_pupil
from focusd.focus.repeating import repeats_of
from focusd.focus.sensor import PLAIN, Sensor
from focusd.focus.soundness import (
    MIN_R2,
    refuse_contradiction,
    refuse_no_curve,
    refuse_other_optics,
    refuse_unseen_focus,
)
from focusd.focus.transfer import Transfer
from focusd.optics.instrument import Instrument

Array = NDArray[np.float64]

MIN_PLANES_OF_PART, MIN_R2_OF_PART = 11, 0.9
"""Of a part of the stack, which was chosen because it looks like a curve."""
LEAST_REACH, MOST_STEP = 0.8, 1.5
"""Of another calibration's reach, and of the distance of its planes: beyond that this one is worse."""
MOST_STRETCHED = 1.35
"""Ratio of two calibrations' scales of z, as their scores tell them, that two samples may show (1.18 was seen)."""
MOST_UNEXPLAINED, MIN_UNEXPLAINED = 2.0, 0.02
"""Likewise of 1 − R², and that much more: among the simulator's samples it varies from 0.008 to 0.033 at 10×/0.3."""
_PARTS = 0.8 ** np.arange(1, 8)
"""Of the stack's extent, around the focus: down to a fifth."""

B_PER_AXIAL_UNIT = 1 / (3 * 4 * np.sqrt(3))
"""Rise of b over λn/NA² of defocus: 3 waves RMS of Zernike focus are 12√3 axial units (optics.defocus)."""

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


def calibrate(
    measurements: list[Measurement],
    fingerprint: Fingerprint,
    threshold: float,
    instrument: Instrument | None = None,
    known: PupilFit | None = None,
    repeated: Sequence[Measurement] = (),
    blended: bool = False,
) -> tuple[Calibration, float]:
    """The calibration of a stack, and the z of its focus.

    Args:
        measurements: one a plane, any order, and second frames of some planes, which tell the camera's noise.
        repeated: of some planes once more, after the stack.
        blended: frames between two planes are mixed of theirs, as a recorded stack does: no optics make such images.
        fingerprint: what the curve belongs to.
        threshold: probability of structure from which a tile counts.
        instrument: where it is known, a model of its pupil tells the origin.
        known: from `pupil_ahead` of the first of these planes.

    Raises:
        CalibrationError: too few planes, no single minimum inside the stack, or what is seen contradicts itself or
            what is known of the optics.
        NoSampleError: nothing to focus on.
    """
    noise = noise_in([*measurements, *repeated])
    measurements, repeated = _whitened(measurements, noise), _whitened(repeated, noise)
    ordered, z, spectra = _in_order(measurements)
    if len(ordered) < MIN_PLANES:
        raise CalibrationError(
            f"{len(ordered)} planes are too few for a calibration, take {MIN_PLANES} or more"
        )
    seen = tiles_with_structure(measurements, threshold)
    if not seen.any():
        raise NoSampleError("the calibration stack holds nothing to focus on; choose a textured, flat field")
    b = np.array([o.mean_b(seen) for o in ordered])
    spread = np.array([float(np.nanstd(o.b[seen])) for o in ordered])
    refuse_unseen_focus(z, spectra, instrument, ordered)
    tells, fit = _telling(z, b)
    refuse_no_curve(fit, z[tells], b[tells], instrument, ordered)
    repeats = repeats_of(ordered, repeated)
    origin = find_origin(z, spectra, ordered[0].blocks.size_px, instrument, known, repeats.shaken)
    refuse_contradiction(fit, origin)
    if instrument is not None:
        refuse_other_optics(fit, origin, instrument)
    stack_um, z, b = z, z[tells], b[tells]
    defocus_um = z - origin.z_um
    unit_um = _axial_unit_um(defocus_um, b, fit.fwhm_um)
    calibration = Calibration(
        defocus_um,
        b,
        spread[tells],
        Transfer.of_stack(
            stack_um - origin.z_um, spectra, unit_um, repeats, None if blended else origin.model
        ),
        replace(fit, centre_um=fit.centre_um - origin.z_um),
        r_squared(b, fit(z)),
        origin.method,
        dict(fingerprint),
        origin.sigma_um,
        noise,
        exposed=len(ordered),
    )
    return calibration, origin.z_um


def _telling(z_um: Array, b: Array) -> tuple[Mask, Moffat]:
    """The planes (n,) on which the score tells the depth, all or as many around the focus as are a curve; its profile.

    Transmitted light that is shifted in phase, as phase contrast shows it, is no blurred object any more some axial
    units from the focus: there the score rises no further, and is another on the next sample.
    """
    whole = np.ones(len(z_um), bool)
    fit = fit_moffat(z_um, b)
    if r_squared(b, fit(z_um)) >= MIN_R2:
        return whole, fit
    focus_um = z_um[np.argmin(uniform_filter1d(b, 3))]
    for share in _PARTS:
        part = np.abs(z_um - focus_um) <= share * np.ptp(z_um) / 2
        if part.sum() < MIN_PLANES_OF_PART:
            break
        of_part = fit_moffat(z_um[part], b[part])
        if r_squared(b[part], of_part(z_um[part])) >= MIN_R2_OF_PART:
            return np.asarray(part), of_part
    return whole, fit


def _axial_unit_um(z_um: Array, b: Array, fwhm_um: float) -> float:
    """By the wings of a curve.

    At most an eighth of the curve's width, which is wider than 15 of them: the wings of a short stack are flat.
    """
    rise = b - b.min()
    wing = (rise > 0.15 * rise.max()) & (rise < 0.85 * rise.max())
    chosen = wing if wing.sum() >= 4 else np.ones_like(wing)
    slope = np.polyfit(np.abs(z_um[chosen]), b[chosen], 1)[0]
    return float(min(B_PER_AXIAL_UNIT / max(slope, 1e-6), fwhm_um / 8))


def is_past_focus(measurements: list[Measurement], instrument: Instrument) -> bool:
    """Whether the planes of a stack, taken in ascending order, reach so far beyond its focus that `pupil_ahead` has all
    that it looks at."""
    sharpest = min(measurements, key=lambda o: float(np.nanmean(o.b)))
    beyond_um = measurements[-1].z_um - sharpest.z_um
    return len(measurements) >= MIN_PLANES and beyond_um > (REACH_UNITS + 1) * instrument.axial_unit_um


def pupil_ahead(measurements: list[Measurement], instrument: Instrument) -> PupilFit:
    """What takes longest of a calibration, from the planes near the focus, while the stage takes the others."""
    ordered, z, spectra = _in_order(_whitened(measurements, noise_in(measurements)))
    return fit_pupil(z, spectra, ordered[0].blocks.size_px, instrument)


def _whitened(measurements: Sequence[Measurement], noise: Noise | None) -> list[Measurement]:
    if noise is None:
        return list(measurements)
    return [replace(m, blocks=noise.whiten(m.blocks)) for m in measurements]


def _in_order(measurements: list[Measurement]) -> tuple[list[Measurement], Array, list[Spectrum]]:
    """The planes by z, their z, and their spectra; of frames that a stage took at one z, the first."""
    _, first = np.unique([round(o.z_um, 3) for o in measurements], return_index=True)
    ordered = [measurements[k] for k in first]
    chosen = blocks_with_structure(ordered)
    return ordered, np.array([o.z_um for o in ordered]), [o.spectrum(chosen) for o in ordered]
