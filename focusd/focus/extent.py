"""How far a sample extends along z: the thickness that explains the frames of a run.

Layers that show different things add in power: P(f, z) = |O(f)|² ∫ w(ζ) |H(f, z − ζ)|² dζ. An even slab, of which w is
the same from one surface to the other, stands for all samples of its extent; its middle is their focus. What is not
even puts the middle of what it shows somewhat to the side, which no frame tells.
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

Array = NDArray[np.float64]

UNITS = (0.0, 0.35, 0.7, 1.3, 2.0, 3.0, 4.5, 6.5)
"""Extents that are tried, in λ·n/NA²: up to five depths of field."""
THIN = 0.7
"""Probability that a sample is thin, before any frame."""
LOPSIDED = 0.1
"""Of the extent: how far the middle of what a sample shows lies from that of its surfaces (standard deviation)."""
ODD_MISFIT = 0.5
"""χ² per value from which it is asked whether the sample is thick; thin samples have 0.1 to 0.6."""
_STEPS = 161
"""Places at which the middle of a sample is looked for."""


@dataclass(frozen=True)
class Extent:
    """What the frames tell of the extent.

    Attributes:
        thick_um: the most probable one.
        sigma_um: what other extents leave open of the middle.
        uneven_um: what no frame tells of it, because a sample is not even.
        chi2: of the best explanation.
    """

    thick_um: float = 0.0
    sigma_um: float = 0.0
    uneven_um: float = 0.0
    chi2: float = math.inf


def find_extent(
    evidence: Sequence[Evidence], calibration: Calibration, within_um: tuple[float, float]
) -> Extent:
    """Compare thin and thick samples.

    Args:
        evidence: of three exposures or more.
        calibration: of a thin sample.
        within_um: the middle is not looked for beyond these two places.
    """
    z_um = np.linspace(*within_um, _STEPS)
    thin = _compared(evidence, calibration, z_um, 0.0)
    if float(raw_misfit_of(thin, len(evidence))) <= ODD_MISFIT:
        return Extent()
    extents_um = calibration.axial_unit_um * np.array(UNITS)
    found = [thin, *(_compared(evidence, calibration, z_um, each_um) for each_um in extents_um[1:])]
    chi2 = np.array([each.chi2 for each in found])
    tempered = min(float(tempered_misfit_of(each, len(evidence))) for each in found)
    chances = np.append(THIN, np.full(len(UNITS) - 1, (1 - THIN) / (len(UNITS) - 1)))
    # Of a thick sample a larger variance is expected: by χ² alone it would explain everything.
    expects = min(1.0, tempered) * np.array([each.log_variance for each in found])
    unlikely = chi2 / tempered + expects
    weight = np.exp(-0.5 * (unlikely - unlikely.min()) / CORRELATED_BANDS) * chances[:, None]
    of_extent = weight.sum(1) / weight.sum()
    middle_um = (weight * z_um).sum(1) / weight.sum(1).clip(1e-300)
    best = int(np.argmax(of_extent))
    apart_um = math.sqrt(float((of_extent * (middle_um - middle_um[best]) ** 2).sum()))
    uneven_um = LOPSIDED * math.sqrt(float((of_extent * extents_um**2).sum()))
    return Extent(float(extents_um[best]), apart_um, uneven_um, float(chi2[best].min()))


def _compared(
    evidence: Sequence[Evidence], calibration: Calibration, z_um: Array, extent_um: float
) -> Comparison:
    transfer = calibration.transfer.thickened(extent_um)
    frames_um, spectra = np.array([e.z_um for e in evidence]), [e.spectrum for e in evidence]
    return compare(frames_um, spectra, transfer, z_um, z_um[1] - z_um[0], ROUGH_ITERATIONS)
