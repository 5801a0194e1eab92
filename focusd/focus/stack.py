"""A calibration from a stack: its focus, its curve and its transfer, with what contradicts itself refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from focusd.errors import CalibrationError, NoSampleError
from focusd.focus.calibration import Calibration, Fingerprint
from focusd.focus.levelling import levelled, uneven_field
from focusd.focus.measurement import (
    Mask,
    Measurement,
    Spectrum,
    blocks_with_structure,
    tiles_surely_seen,
    tiles_with_structure,
)
from focusd.focus.moffat import Moffat, fit_moffat, r_squared
from focusd.focus.noise import Noise, noise_in
from focusd.focus.planes import MIN_PLANES
from focusd.focus.pupil import REACH_UNITS, PupilFit, find_origin, fit_pupil
from focusd.focus.repeating import repeats_of
from focusd.focus.soundness import (
    MIN_R2,
    refuse_contradiction,
    refuse_no_curve,
    refuse_other_optics,
    refuse_unseen_focus,
)
from focusd.focus.transfer import Repeats, Transfer
from focusd.optics.instrument import Instrument

Array = NDArray[np.float64]

SURE_PLANES = 3
"""Of a stack: in so many a tile has to hold something surely, if most planes are too far from the focus to show it."""
MIN_PLANES_OF_PART, MIN_R2_OF_PART = 11, 0.9
"""Of a part of the stack, which was chosen because it looks like a curve."""
B_PER_AXIAL_UNIT = 1 / (3 * 4 * np.sqrt(3))
"""Rise of b over λn/NA² of defocus: 3 waves RMS of Zernike focus are 12√3 axial units (optics.defocus)."""

_PARTS = 0.8 ** np.arange(1, 8)
"""Of the stack's extent, around the focus: down to a fifth."""


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
    seen = tiles_with_structure(measurements, threshold) | tiles_surely_seen(measurements, SURE_PLANES)
    if not seen.any():
        raise NoSampleError("the calibration stack holds nothing to focus on; choose a textured, flat field")
    refuse_unseen_focus(z, spectra, instrument, ordered)
    scores = _scores_of(ordered, seen)
    refuse_no_curve(scores.fit, scores.z_um, scores.b, instrument, ordered)
    given = fingerprint, scores, repeats_of(ordered, repeated), noise, instrument, blended
    calibration, focus_um = _calibrated(ordered, known, *given)
    dof_um = instrument.depth_of_field_um if instrument else calibration.axial_unit_um
    uneven = uneven_field(ordered, calibration, focus_um, dof_um)
    if uneven is None:
        return calibration, focus_um
    level = levelled(ordered, uneven.heights_um, calibration, uneven.mean_um)
    calibration, focus_um = _calibrated(level, None, *given)
    return replace(calibration, rise_um=float(np.ptp(uneven.heights_um))), focus_um


@dataclass(frozen=True)
class _Scores:
    """The scores of a stack.

    Attributes:
        z_um: (n,) of the planes on which they tell the depth.
        b: (n,) of the field.
        spread: (n,) over the field.
        fit: profile through them.
    """

    z_um: Array
    b: Array
    spread: Array
    fit: Moffat


def _scores_of(planes: list[Measurement], seen: Mask) -> _Scores:
    z_um = np.array([o.z_um for o in planes])
    b = np.array([o.mean_b(seen) for o in planes])
    spread = np.array([float(np.nanstd(o.b[seen])) for o in planes])
    tells, fit = _telling(z_um, b)
    return _Scores(z_um[tells], b[tells], spread[tells], fit)


def _calibrated(
    planes: list[Measurement],
    known: PupilFit | None,
    fingerprint: Fingerprint,
    scores: _Scores,
    repeats: Repeats,
    noise: Noise | None,
    instrument: Instrument | None,
    blended: bool,
) -> tuple[Calibration, float]:
    """The calibration of planes whose blocks are all in focus at one z, and that z."""
    _, z_um, spectra = _in_order(planes)
    origin = find_origin(z_um, spectra, planes[0].blocks.size_px, instrument, known, repeats.shaken)
    refuse_contradiction(scores.fit, origin)
    if instrument is not None:
        refuse_other_optics(scores.fit, origin, instrument)
    defocus_um = scores.z_um - origin.z_um
    unit_um = _axial_unit_um(defocus_um, scores.b, scores.fit.fwhm_um)
    model = None if blended else origin.model
    calibration = Calibration(
        defocus_um,
        scores.b,
        scores.spread,
        Transfer.of_stack(z_um - origin.z_um, spectra, unit_um, repeats, model),
        replace(scores.fit, centre_um=scores.fit.centre_um - origin.z_um),
        r_squared(scores.b, scores.fit(scores.z_um)),
        origin.method,
        dict(fingerprint),
        origin.sigma_um,
        noise,
        exposed=len(planes),
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
