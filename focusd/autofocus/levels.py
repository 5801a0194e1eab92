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
_DIRECTIONS = ((1, 0), (0, 1), (1, 1), (1, -1))
_SHARES = np.arange(1, 8) / 8
"""Straight edges of a step: its direction (y, x) in the field, and the share of the blocks below it. So many, because
a fit that begins elsewhere takes the step for a slope."""
_ROUNDS = 20
_RIDGE = 1e-9 * np.eye(4)
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
    edges = (edge for direction in _DIRECTIONS for edge in _beyond(design[:, 1:], direction))
    known: set[bytes] = set()
    fits = [_settle(design, z_um, start, known) for start in (_split(z_um), *edges)]
    step_um, scatter_um, upper = min((fit for fit in fits if fit), key=lambda fit: fit[1])
    fewest = min(upper.sum(), (~upper).sum())
    if fewest < max(MIN_BLOCKS, MIN_SHARE * len(z_um)):
        return Levels(step_um, False)
    unsure_um = max(float(np.median(sigma_um[side])) for side in (upper, ~upper))
    return Levels(step_um, step_um > DISTINCT * max(scatter_um, unsure_um))


def _beyond(place: Array, direction: tuple[float, float]) -> Flags:
    """The blocks on the far side of each straight edge across a direction, (edges, n)."""
    along = place @ np.array(direction)
    return np.asarray(along > np.quantile(along, _SHARES)[:, None])


def _split(heights: Array) -> Flags:
    """The upper of two classes, those whose means differ most for their sizes (Otsu 1979, on the values themselves)."""
    order = np.sort(heights)
    count = np.arange(1, len(order))
    low = np.cumsum(order)[:-1]
    between = (low / count - (order.sum() - low) / count[::-1]) ** 2 * count * count[::-1]
    return np.asarray(heights > order[np.argmax(between)])


def _settle(design: Array, z_um: Array, upper: Flags, known: set[bytes]) -> tuple[float, float, Flags] | None:
    """Step, standard deviation about the planes, which blocks are on the upper: fit and assign until nothing changes.

    None: an earlier fit came by here, and all that follows is the same.

    Args:
        known: assignments that earlier fits have come by; this one's are added.
    """
    passed: set[bytes] = set()
    for _ in range(_ROUNDS):
        if upper.tobytes() in known:
            return None
        if upper.tobytes() in passed:  # it has settled, or goes round in circles
            break
        passed.add(upper.tobytes())
        fitted = upper
        planes = np.column_stack([design, fitted])
        slope = np.linalg.solve(planes.T @ planes + _RIDGE, planes.T @ z_um)  # a third of the time of `lstsq`
        above = z_um - design @ slope[:3]
        upper = above > slope[3] / 2
    known |= passed
    free = max(len(z_um) - 5, 1)
    scatter = float(np.sqrt(((above - slope[3] * fitted) ** 2).sum() / free))
    return abs(float(slope[3])), scatter, fitted
