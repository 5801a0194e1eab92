"""Which exposure would tell most of the focus: the one after which σ is expected to be smallest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.focus.likelihood import CORRELATED_BANDS, distances
from focusd.focus.measurement import Measurement, blocks_with_structure
from focusd.focus.posterior import Posterior

Array = NDArray[np.float64]

APART_UNITS = 0.25
"""Exposures that lie closer together, in λ·n/NA², tell the same."""
_HYPOTHESES = 40
_PLACES = 9
_OFFSETS_UNITS = (-6.0, -4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0, 6.0)
_AS_GOOD = 1.1
"""Probes whose expected σ is within this factor of the least are as good; the nearest of them is taken."""


def tells_most_um(
    measurements: Sequence[Measurement],
    belief: Posterior,
    calibration: Calibration,
    reach_um: tuple[float, float],
    *,
    away_is_low: bool,
) -> float:
    """The z of the exposure that is expected to tell most; of those as good, the nearest.

    Args:
        reach_um: lowest and highest z to expose at.
        away_is_low: of two as near, the one away from the sample is taken.
    """
    candidates_um = _candidates_um(measurements, belief, calibration, reach_um)
    expected_um = _expected_sigma_um(candidates_um, measurements, belief, calibration)
    good = candidates_um[expected_um <= _AS_GOOD * expected_um.min()]
    here_um, away = measurements[-1].z_um, 1e-6 if away_is_low else -1e-6
    return float(min(good, key=lambda z_um: abs(z_um - here_um) + away * z_um))


def _candidates_um(
    measurements: Sequence[Measurement],
    belief: Posterior,
    calibration: Calibration,
    reach_um: tuple[float, float],
) -> Array:
    """Positions worth exposing, inside the reach and apart from those exposed."""
    unit_um, here_um = calibration.axial_unit_um, measurements[-1].z_um
    offsets_um = unit_um * np.array(_OFFSETS_UNITS)
    wanted = np.concatenate([here_um + offsets_um, belief.best_um + offsets_um, _quantiles(belief, _PLACES)])
    wanted = np.unique(wanted.round(3).clip(*reach_um))
    exposed = np.array([m.z_um for m in measurements])
    apart = np.abs(np.subtract.outer(wanted, exposed)).min(1) >= APART_UNITS * unit_um
    return np.asarray(wanted[apart] if apart.any() else wanted)


def _quantiles(belief: Posterior, count: int) -> Array:
    """Equally probable hypotheses."""
    levels = (np.arange(count) + 0.5) / count
    return np.interp(levels, np.cumsum(belief.weight), belief.z_um)


def _expected_sigma_um(
    probes_um: Array,
    measurements: Sequence[Measurement],
    belief: Posterior,
    calibration: Calibration,
) -> Array:
    """σ(Δz) to expect after one more exposure at each probe, averaged over hypotheses drawn from the posterior.

    Under a true hypothesis every other one loses the χ² by which the exposure would tell the two apart.
    """
    hypotheses = _quantiles(belief, _HYPOTHESES)
    nearest = np.searchsorted(belief.z_um, hypotheses).clip(0, len(belief.z_um) - 1)
    chi2 = distances(
        belief.log_object[nearest],
        measurements[-1].spectrum(blocks_with_structure(measurements)),
        calibration.transfer,
        np.subtract.outer(probes_um, hypotheses),
    )
    weight = np.exp(-0.5 * chi2 / (CORRELATED_BANDS * belief.misfit))
    weight /= weight.sum(-1, keepdims=True)
    mean = weight @ hypotheses
    variance = (weight @ hypotheses**2 - mean**2).clip(0)
    return np.asarray(np.sqrt(variance.mean(-1)))
