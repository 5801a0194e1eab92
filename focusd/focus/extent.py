"""What of a sample is unlike the calibrated one: how far it extends along z, and what the layers above it aberrate.

Layers that show different things add in power: P(f, z) = |O(f)|² ∫ w(ζ) |H(f, z − ζ)|² dζ. An even slab, of which w is
the same from one surface to the other, stands for all samples of its extent; its middle is their focus. What is not
even puts the middle of what it shows somewhat to the side, which no frame tells. Where no extent explains the frames,
spherical aberration is looked for besides (`spherical`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.focus.likelihood import CORRELATED_BANDS, ROUGH_ITERATIONS, Comparison, compare
from focusd.focus.posterior import Evidence, raw_misfit_of, tempered_misfit_of
from focusd.focus.spherical import WAVES, aberrated
from focusd.optics.instrument import Instrument

Array = NDArray[np.float64]

UNITS = (0.0, 0.35, 0.7, 1.3, 2.0, 3.0, 4.5, 6.5)
"""Extents that are tried, in λ·n/NA²: up to five depths of field."""
THIN = 0.7
"""Probability that a sample is thin, before any frame."""
LOPSIDED = 0.1
"""Of the extent: how far the middle of what a sample shows lies from that of its surfaces (standard deviation)."""
ODD_MISFIT = 0.5
"""χ² per value from which it is asked whether the sample is thick; thin samples have 0.1 to 0.6."""
ABERRATED = 0.1
"""Probability of spherical aberration that is worth knowing, before any frame."""
UNEXPLAINED = 1.0
"""χ² per value of the best extent from which it is looked for: as calibrated it is 0.1 to 0.6."""
ABERRATED_EXTENTS = 4
"""Of `UNITS`, as many are tried with it."""
PLANE_UNITS = 0.1
"""Its best plane is told only so well, in λ·n/NA²: aberrations of higher order move it."""
_STEPS = 161
"""Places at which the middle of a sample is looked for."""


@dataclass(frozen=True)
class Extent:
    """What the frames tell of the extent.

    Attributes:
        thick_um: the most probable one.
        spherical: the most probable aberration, waves RMS.
        sigma_um: what others leave open of the middle.
        uneven_um: what no frame tells of it, because a sample is not even, or aberrated.
        chi2: of the best explanation.
    """

    thick_um: float = 0.0
    spherical: float = 0.0
    sigma_um: float = 0.0
    uneven_um: float = 0.0
    chi2: float = math.inf


@dataclass(frozen=True)
class Optics:
    """What the aberration of a layer is computed from.

    Attributes:
        block_px: size of the blocks whose bands the frames tell.
    """

    instrument: Instrument
    block_px: int


def find_extent(
    evidence: Sequence[Evidence],
    calibration: Calibration,
    within_um: tuple[float, float],
    optics: Optics | None = None,
    is_thin: bool = False,
) -> Extent:
    """Compare thin and thick samples, and aberrated ones where neither explains the frames.

    Args:
        evidence: of three exposures or more.
        calibration: of a thin sample.
        within_um: the middle is not looked for beyond these two places.
        optics: None: they are not known, and aberrations not looked for.
        is_thin: the sample is known to be thin.
    """
    z_um = np.linspace(*within_um, _STEPS)

    def compared(units: float, spherical: float) -> _Tried:
        known = calibration_of(calibration, units * calibration.axial_unit_um, spherical, optics)
        found = _compared(evidence, known, z_um)
        return _Tried(units * calibration.axial_unit_um, spherical, _chance(units, spherical), found)

    tried = [compared(0.0, 0.0)]
    if _misfit(tried, evidence) <= ODD_MISFIT:
        return Extent()
    units = UNITS[:1] if is_thin else UNITS
    tried += [compared(each, 0.0) for each in units[1:]]
    if optics is not None and _misfit(tried, evidence) > UNEXPLAINED:
        tried += [compared(each, waves) for each in units[:ABERRATED_EXTENTS] for waves in WAVES]
    return _most_probable(tried, evidence, z_um, calibration.axial_unit_um)


def calibration_of(
    calibration: Calibration, thick_um: float, spherical: float, optics: Optics | None
) -> Calibration:
    """Return the calibration for a sample that extends so far, and is aberrated so much."""
    if spherical and optics is not None:
        calibration = aberrated(calibration, spherical, optics.instrument, optics.block_px)
    return calibration.thickened(thick_um)


@dataclass(frozen=True)
class _Tried:
    """One kind of sample, its probability before any frame, and how well it explains the frames."""

    thick_um: float
    spherical: float
    chance: float
    found: Comparison


def _chance(units: float, spherical: float) -> float:
    extent = THIN if units == 0 else (1 - THIN) / (len(UNITS) - 1)
    return extent * (ABERRATED / len(WAVES) if spherical else 1 - ABERRATED)


def _misfit(tried: Sequence[_Tried], evidence: Sequence[Evidence]) -> float:
    """χ² per value of the best."""
    return min(float(raw_misfit_of(each.found, len(evidence))) for each in tried)


def _most_probable(
    tried: Sequence[_Tried], evidence: Sequence[Evidence], z_um: Array, unit_um: float
) -> Extent:
    chi2 = np.array([each.found.chi2 for each in tried])
    tempered = min(float(tempered_misfit_of(each.found, len(evidence))) for each in tried)
    # Of a thick sample a larger variance is expected: by χ² alone it would explain everything.
    expects = min(1.0, tempered) * np.array([each.found.log_variance for each in tried])
    unlikely = chi2 / tempered + expects
    chances = np.array([each.chance for each in tried])
    weight = np.exp(-0.5 * (unlikely - unlikely.min()) / CORRELATED_BANDS) * chances[:, None]
    of_each = weight.sum(1) / weight.sum()
    middle_um = (weight * z_um).sum(1) / weight.sum(1).clip(1e-300)
    best = int(np.argmax(of_each))
    apart_um = math.sqrt(float((of_each * (middle_um - middle_um[best]) ** 2).sum()))
    thick_um = np.array([each.thick_um for each in tried])
    uneven_um = LOPSIDED * math.sqrt(float((of_each * thick_um**2).sum()))
    is_aberrated = np.array([each.spherical != 0 for each in tried])
    plane_um = PLANE_UNITS * unit_um * math.sqrt(float(of_each[is_aberrated].sum()))
    found = tried[best]
    told = apart_um, math.hypot(uneven_um, plane_um), float(chi2[best].min())
    return Extent(found.thick_um, found.spherical, *told)


def _compared(evidence: Sequence[Evidence], calibration: Calibration, z_um: Array) -> Comparison:
    frames_um, spectra = np.array([e.z_um for e in evidence]), [e.spectrum for e in evidence]
    return compare(frames_um, spectra, calibration.transfer, z_um, z_um[1] - z_um[0], ROUGH_ITERATIONS)
