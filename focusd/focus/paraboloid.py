"""Surfaces through the blocks of a field, robust against blocks that are wrong: any, and a plane with a curvature."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focusd.focus.blocks import LocalMap, shared_area

Array = NDArray[np.float64]

FREE_UM = 1000.0
"""Slopes over the field are this far from zero before a block is asked: what stays so wide is not known."""
SURE_CHI2 = 16.0
"""Of the three coefficients that are 0 of a level field: by chance 1 level field in 900 has more."""

_TAIL = 3.0
"""Degrees of freedom of the Student t distribution that the blocks are taken to have."""
_ROUNDS = 30
_SETTLED_UM = 1e-6


@dataclass(frozen=True)
class Paraboloid:
    """Where a field is in focus, if it is tilted and curved.

    Attributes:
        mean_um, mean_sigma_um: average over the whole field, and its standard uncertainty.
        heights_um: (rows, columns) of all blocks from that, whether they count or not.
        is_uneven: whether it is surely not level.
    """

    mean_um: float
    mean_sigma_um: float
    heights_um: Array
    is_uneven: bool


def fit_paraboloid(blocks: LocalMap, dof_um: float) -> Paraboloid:
    """Fit the robust paraboloid; its mean is that of the field, of which blocks show little of the corners.

    No mean lies further from the blocks' median than the blocks lie apart.

    Args:
        blocks: of which one counts or more.
        dof_um: depth of field: a field is not curved by much more, before a block is asked.
    """
    y, x = (each - each.min() - np.ptp(each) / 2 for each in (blocks.y_px, blocks.x_px))
    curved = (y**2 + x**2) / (
        (blocks.height_px**2 + blocks.width_px**2) / 12
    ) - 1  # 0 on average over the field
    columns = np.stack([np.ones_like(y), y / blocks.height_px, x / blocks.width_px, curved], axis=-1)
    counts, (focus_um, sigma_um) = blocks.counts, blocks.counted
    shared = shared_area(blocks.y_px[counts], blocks.x_px[counts], blocks.block_px)
    widths_um = np.array([np.inf, FREE_UM, FREE_UM, dof_um])
    level_um, range_um = float(np.median(focus_um)), float(np.ptp(focus_um))
    (mean_um, *shape_um), covariance, _ = robust_fit(
        columns[counts], focus_um - level_um, sigma_um, shared, widths_um
    )
    chi2 = shape_um @ np.linalg.solve(covariance[1:, 1:], shape_um)
    return Paraboloid(
        level_um + float(np.clip(mean_um, -range_um, range_um)),
        math.sqrt(covariance[0, 0]),
        np.asarray(columns[..., 1:] @ shape_um),
        bool(chi2 > SURE_CHI2),
    )


def robust_fit(
    columns: Array, z_um: Array, sigma_um: Array, shared: Array, widths_um: Array
) -> tuple[Array, Array, float]:
    """Return the coefficients of a surface, their covariance, and the robust RMS residual.

    Student's t by reweighting, so that a block far off has no say. The uncertainty knows that overlapping blocks
    share their error, and grows with the scatter where that is wider than the blocks' own σ.

    Args:
        columns: (n, coefficients).
        z_um, sigma_um: (n,) of the blocks.
        shared: (n, n) correlation of their errors.
        widths_um: standard deviation of each coefficient before a block is asked.
    """
    prior = np.diag(widths_um**-2)
    precision = sigma_um**-2
    surface = np.full(columns.shape[1], np.inf)
    for _ in range(_ROUNDS):
        before = surface
        bread = np.linalg.inv(columns.T @ (precision[:, None] * columns) + prior)
        surface = bread @ (columns.T @ (precision * z_um))
        if np.abs(surface - before).max() < _SETTLED_UM:
            break
        residual = z_um - columns @ surface
        wide = sigma_um * max(1.0, _scatter(residual / sigma_um, len(surface)))
        precision = (_TAIL + 1) / (_TAIL + (residual / wide) ** 2) / wide**2
    lever = (precision * wide)[:, None] * columns
    covariance = bread @ (lever.T @ shared @ lever + prior) @ bread
    return surface, covariance, _scatter(residual, len(surface))


def _scatter(residual: Array, coefficients: int) -> float:
    """Robust standard deviation about a surface; 0 where there are no more blocks than coefficients."""
    free = len(residual) - coefficients
    return 1.4826 * float(np.median(np.abs(residual))) * math.sqrt(len(residual) / free) if free > 0 else 0.0
