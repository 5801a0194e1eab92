"""How far a sample extends along z within a block of the field: what `extent` says without the shape of the field.

Over a whole field a slope, a step and a bowl add layers in power as a thick sample does. Within a block they hardly do,
so that the blocks, each at a focus of its own, tell the two apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focusd.focus.blocks import overlapping
from focusd.focus.calibration import Calibration
from focusd.focus.extent import LOPSIDED, THIN, UNITS
from focusd.focus.likelihood import CORRELATED_BANDS, ROUGH_ITERATIONS, Comparison
from focusd.focus.local import REACH_UNITS, explained
from focusd.focus.measurement import Mask, Measurement, blocks_with_structure
from focusd.focus.posterior import misfit_of

Array = NDArray[np.float64]

SURE = 0.95
"""Probability with which a sample extends at least so far: as of two standard uncertainties."""

_MOST_BLOCKS = 16
"""That are asked: more hardly tell more, and take longer."""
_STEPS = 33
"""Places at which the middle of a block is looked for."""
_FINE_STEPS = 13
"""Around the best of them, up to its neighbours."""


@dataclass(frozen=True)
class Thickness:
    """How far a sample extends along z within a block, as an even slab.

    Attributes:
        um: the most probable extent; 0: thin as far as the image tells.
        at_least_um: it is that or more, with a probability of `SURE`.
        uneven_um: how far the middle of what the sample shows may lie from that of its surfaces (standard deviation).
    """

    um: float = 0.0
    at_least_um: float = 0.0
    uneven_um: float = 0.0


THIN_SAMPLE = Thickness()


def thickness_of(
    measurements: Sequence[Measurement], calibration: Calibration, centre_um: float
) -> Thickness:
    """Compare thin and thick samples by some blocks of the field, which are taken to be alike.

    Args:
        measurements: of three planes or more, in a block of which one at least there is structure.
        calibration: of a thin sample.
        centre_um: of the places looked at, near the focus of the field.
    """
    asked = _side_by_side(measurements)
    extents_um = calibration.axial_unit_um * np.array(UNITS)
    near = [
        _near_best(measurements, asked, calibration.thickened(each_um), centre_um) for each_um in extents_um
    ]
    misfit = np.min([misfit_of(each, len(measurements)) for each in near], axis=0)
    unlikely = np.stack([_least(each.chi2 / misfit[:, None] + each.log_variance) for each in near])
    log_likely = -0.5 * unlikely.sum(-1) / CORRELATED_BANDS
    chance = np.exp(log_likely - log_likely.max())
    chance *= np.append(THIN, np.full(len(UNITS) - 1, (1 - THIN) / (len(UNITS) - 1)))
    chance /= chance.sum()
    at_least = chance[::-1].cumsum()[::-1]
    surely = np.flatnonzero(at_least >= SURE)[-1]
    uneven_um = LOPSIDED * math.sqrt(float(chance @ extents_um**2))
    return Thickness(float(extents_um[chance.argmax()]), float(extents_um[surely]), uneven_um)


def _near_best(
    measurements: Sequence[Measurement], asked: Mask, calibration: Calibration, centre_um: float
) -> Comparison:
    """Each block alone, (blocks, places), at places around its best."""
    reach_um = REACH_UNITS * calibration.axial_unit_um
    coarse_um = centre_um + np.linspace(-reach_um, reach_um, _STEPS)
    step_um = float(coarse_um[1] - coarse_um[0])
    coarse = explained(measurements, asked, calibration, coarse_um[None], step_um, ROUGH_ITERATIONS)
    near_um = coarse_um[coarse.chi2.argmin(-1), None] + np.linspace(-step_um, step_um, _FINE_STEPS)
    return explained(measurements, asked, calibration, near_um, 0.0, ROUGH_ITERATIONS)


def _least(unlikely: Array) -> Array:
    """The lowest of the parabola through the three best places of each block, (blocks,).

    Sharp frames tell places apart that lie closer together than these: a thin sample between two of them is explained
    worse than a thick one.

    Args:
        unlikely: (blocks, places) −2 log of the probability. The variance that is expected is part of it: of a thick
            sample that is larger, and by χ² alone it would explain everything.
    """
    best = unlikely[:, 1:-1].argmin(-1) + 1
    block = np.arange(len(best))
    left, middle, right = (unlikely[block, best + offset] for offset in (-1, 0, 1))
    bend = (left - 2 * middle + right).clip(1e-6)
    lopsided = np.minimum(
        np.abs(left - right), bend
    )  # more at an end of what was looked at, where no parabola fits
    return np.asarray(middle - lopsided**2 / (8 * bend))


def _side_by_side(measurements: Sequence[Measurement]) -> Mask:
    """Some blocks that show something, spread over the field, of which no two overlap if that leaves any."""
    shown, blocks = blocks_with_structure(measurements), measurements[0].blocks
    step = overlapping(blocks.y_px, blocks.x_px, blocks.size_px)
    apart = np.zeros_like(shown)
    apart[::step, ::step] = shown[::step, ::step]
    candidates = np.flatnonzero(apart if apart.any() else shown)
    chosen = np.linspace(0, len(candidates) - 1, min(_MOST_BLOCKS, len(candidates))).round().astype(int)
    asked = np.zeros(shown.size, dtype=bool)
    asked[candidates[chosen]] = True
    return asked.reshape(shown.shape)
