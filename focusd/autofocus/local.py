"""The focus of each block of the field, around that of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from focusd.autofocus.calibration import Calibration
from focusd.autofocus.geometry import LocalMap
from focusd.autofocus.observation import Mask, Observation, blocks_with_structure
from focusd.autofocus.posterior import CORRELATED_BANDS, misfit_of
from focusd.autofocus.transfer import compare

Array = NDArray[np.float64]

REACH_UNITS = 6.0
"""How far from the field's focus a block's is looked for, in λ·n/NA²."""
_COARSE_STEPS = 33
_FINE_STEPS = 9
"""Around the best coarse one, up to its neighbours."""


def local_map(observations: Sequence[Observation], calibration: Calibration, focus_um: float) -> LocalMap:
    """Match each block's spectra with the transfer.

    Args:
        observations: two planes or more.
        focus_um: of the field.
    """
    counts = blocks_with_structure(observations)
    reach_um = REACH_UNITS * calibration.axial_unit_um
    candidates = focus_um + np.linspace(-reach_um, reach_um, _COARSE_STEPS)
    focus, sigma = np.full(counts.shape, np.nan), np.full(counts.shape, np.nan)
    for place in zip(*np.nonzero(counts), strict=True):
        focus[place], sigma[place] = _of_block(observations, calibration, candidates, place)
    blocks = observations[0].blocks
    return LocalMap(focus, sigma, blocks.y_px, blocks.x_px, float(blocks.size_px))


def _of_block(
    observations: Sequence[Observation],
    calibration: Calibration,
    candidates_um: Array,
    place: tuple[np.intp, ...],
) -> tuple[float, float]:
    """Focus and σ of one block; NaN where its best place is an end of the candidates."""
    alone: Mask = np.zeros(observations[0].blocks.noise.shape, dtype=bool)
    alone[place] = True
    frames_um = np.array([o.z_um for o in observations])
    spectra = [o.spectrum(alone) for o in observations]
    coarse = compare(frames_um, spectra, calibration.transfer, candidates_um)
    best = int(coarse.chi2.argmin())
    if not 0 < best < len(candidates_um) - 1:
        return np.nan, np.nan
    candidates_um = np.linspace(candidates_um[best - 1], candidates_um[best + 1], _FINE_STEPS)
    comparison = compare(frames_um, spectra, calibration.transfer, candidates_um)
    best = int(comparison.chi2[1:-1].argmin()) + 1
    left, middle, right = comparison.chi2[best - 1 : best + 2]
    step_um, bend = float(candidates_um[1] - candidates_um[0]), float(left - 2 * middle + right)
    if bend <= 0:
        return np.nan, np.nan
    widening = CORRELATED_BANDS * misfit_of(comparison, len(observations))
    offset_um = 0.5 * float(left - right) / bend * step_um
    return float(candidates_um[best]) + offset_um, step_um * float(np.sqrt(2 * widening / bend))
