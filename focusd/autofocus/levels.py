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
_EDGES = [(y, x, share) for y, x in ((1, 0), (0, 1), (1, 1), (1, -1)) for share in np.arange(1, 8) / 8]
"""Straight edges of a step: its direction (y, x) in the field, and the share of the blocks below it. So many, because
a fit that begins elsewhere takes the step for a slope."""
_ROUNDS = 20


@dataclass(frozen=True)
class Levels:
    """Two parallel planes.

    Attributes:
        step_um: distance of the planes along z.
        distinct: the step stands clear of the scatter, and both planes have enough blocks.
    """

    step_um: float
    distinct: bool


def two_levels(design: Array, z_um: Array, sigma_um: Array) -> Levels:
    """The best of several fits, which begin with a split by height or along a straight edge.

    Args:
        design: (n, 3) with 1 and the two places in the field.
        z_um, sigma_um: (n,) focus of the blocks and its uncertainty.
    """
    starts = [_split(z_um), *(_beyond(design[:, 1:], *edge) for edge in _EDGES)]
    step_um, scatter_um, upper = min(
        (_settle(design, z_um, start) for start in starts), key=lambda fit: fit[1]
    )
    fewest = min(upper, len(z_um) - upper)
    clear = step_um > DISTINCT * max(scatter_um, float(np.median(sigma_um)))
    return Levels(step_um, clear and fewest >= max(MIN_BLOCKS, MIN_SHARE * len(z_um)))


def _beyond(place: Array, y: float, x: float, share: float) -> Flags:
    """The blocks on the far side of a straight edge."""
    along = place @ np.array([y, x])
    return np.asarray(along > np.quantile(along, share))


def _split(heights: Array) -> Flags:
    """The upper of two classes, those whose means differ most for their sizes (Otsu 1979, on the values themselves)."""
    order = np.sort(heights)
    count = np.arange(1, len(order))
    low = np.cumsum(order)[:-1]
    between = (low / count - (order.sum() - low) / count[::-1]) ** 2 * count * count[::-1]
    return np.asarray(heights > order[np.argmax(between)])


def _settle(design: Array, z_um: Array, upper: Flags) -> tuple[float, float, int]:
    """Step, standard deviation about the planes, blocks on the upper: fit and assign until nothing changes."""
    for _ in range(_ROUNDS):
        model = np.column_stack([design, upper])
        slope = np.linalg.lstsq(model, z_um, rcond=None)[0]
        above = z_um - design @ slope[:3]
        closer = above > slope[3] / 2
        if (closer == upper).all():
            break
        upper = closer
    free = max(len(z_um) - 5, 1)
    scatter = float(np.sqrt(((above - slope[3] * upper) ** 2).sum() / free))
    return abs(float(slope[3])), scatter, int(upper.sum())
