"""Is a field made of two surfaces? Two parallel planes fitted to its blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

DISTINCT = 5.0
"""Two surfaces are further apart than this many standard deviations about them; halves of a bowl reach 3.5."""
MIN_SHARE, MIN_BLOCKS = 0.05, 3
"""Fewer blocks than this are outliers, no surface."""
_DIRECTIONS = np.array([(1, 0), (0, 1), (1, 1), (1, -1)])
_SHARES = np.arange(1, 8) / 8
"""Straight edges of a step: its direction (y, x) in the field, and the share of the blocks below it. So many, because
a fit that begins elsewhere takes the step for a slope."""
_ROUNDS = 20
_RIDGE = 1e-9
"""Where all blocks are on one side, the step is zero."""


@dataclass(frozen=True)
class Levels:
    """Two parallel planes.

    Attributes:
        step_um: distance of the planes along z.
        distinct: the step stands clear of the scatter, and both planes have enough blocks, which know their own focus
            well enough to tell.
    """

    step_um: float
    distinct: bool


def two_levels(design: Array, z_um: Array, sigma_um: Array) -> Levels:
    """The best of several fits, which begin with a split by height or along a straight edge.

    Args:
        design: (n, 3) with 1 and the two places in the field.
        z_um, sigma_um: (n,) focus of the blocks and its uncertainty.
    """
    steps_um, scatters_um, uppers = _settle(design, z_um, np.vstack([_split(z_um), _edges(design[:, 1:])]))
    best = int(np.argmin(scatters_um))
    step_um, scatter_um, upper = float(steps_um[best]), float(scatters_um[best]), uppers[best]
    fewest = min(upper.sum(), (~upper).sum())
    if fewest < max(MIN_BLOCKS, MIN_SHARE * len(z_um)):
        return Levels(step_um, False)
    unsure_um = max(float(np.median(sigma_um[side])) for side in (upper, ~upper))
    return Levels(step_um, step_um > DISTINCT * max(scatter_um, unsure_um))


def _edges(place: Array) -> Flags:
    """The blocks on the far side of each straight edge across the field, (edges, n)."""
    along = _DIRECTIONS @ place.T
    return np.asarray(along > np.quantile(along, _SHARES, axis=1)[..., None]).reshape(-1, len(place))


def _split(heights: Array) -> Flags:
    """The upper of two classes, those whose means differ most for their sizes (Otsu 1979, on the values themselves)."""
    order = np.sort(heights)
    count = np.arange(1, len(order))
    low = np.cumsum(order)[:-1]
    between = (low / count - (order.sum() - low) / count[::-1]) ** 2 * count * count[::-1]
    return np.asarray(heights > order[np.argmax(between)])


def _settle(design: Array, z_um: Array, upper: Flags) -> tuple[Array, Array, Flags]:
    """Step, standard deviation about the planes, and which blocks are on the upper, (fits,) and (fits, n): all fits at
    once, fitted and assigned until nothing changes.

    By least squares: what a plane explains is taken off the heights and off the step, and these are compared.

    Args:
        upper: (fits, n) where each begins.
    """
    plane = design @ np.linalg.pinv(design)
    flat_um = z_um - plane @ z_um
    for _ in range(_ROUNDS):
        sloped = upper @ plane
        across: Array = upper - sloped
        step_um = across @ flat_um / ((across**2).sum(1) + _RIDGE)
        fitted, upper = upper, flat_um + step_um[:, None] * sloped > step_um[:, None] / 2
        if (upper == fitted).all():
            break
    residual_um = flat_um - step_um[:, None] * across
    free = max(len(z_um) - 5, 1)
    return np.abs(step_um), np.sqrt((residual_um**2).sum(1) / free), fitted
