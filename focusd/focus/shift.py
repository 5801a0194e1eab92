"""From the scores of several planes and the calibration curve to the position of the focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focusd.focus.blocks import LocalMap
from focusd.focus.calibration import Calibration
from focusd.focus.measurement import Measurement

Array = NDArray[np.float64]

TILE_PX = 128.0
"""Side of a tile, as the scorer cuts them."""

_STEPS = 801
"""Candidate positions of the coarse search; the minimum between them is found by a parabola."""


@dataclass(frozen=True)
class Shift:
    """Where the focus is.

    Attributes:
        focus_um: average over the tiles that count.
        sigma_um: standard uncertainty of it.
        local: focus of each tile; its σ is that of the field.
        misfit: RMS difference, in units of b, between the mean scores and the curve at its best place.
        at_edge: most tiles match best at an end of the positions that could be seen.
    """

    focus_um: float
    sigma_um: float
    local: LocalMap
    misfit: float
    at_edge: bool


def locate(
    measurements: list[Measurement],
    calibration: Calibration,
    seen: NDArray[np.bool_],
    limits_um: tuple[float, float],
) -> Shift:
    """Match the scores with the curve, tile by tile (DeepFocus, section 2, step 7).

    Δz(y, x) = argmin Σᵢ (b[y, x, zᵢ] − b_calib(zᵢ − Δz))², averaged over the region of interest. Candidates are
    the positions from which the first exposure's defocus lies in the calibrated range. Of a plane beyond that range
    the curve only tells that it is at least as blurred as the range's end.

    Args:
        measurements: two or more planes.
        seen: (rows, columns) tiles that count; at least one.
        limits_um: the stage's; the focus is not looked for beyond them.
    """
    candidates = _candidates(measurements[0].z_um, calibration, limits_um)
    defocus = np.array([o.z_um for o in measurements])[:, None] - candidates[None, :]
    b = np.stack([o.b[seen] for o in measurements])
    cost = (calibration.excess(b[:, :, None], defocus[:, None, :]) ** 2).sum(0)
    best = cost.argmin(1)
    tiles = _minima(candidates, cost, best)
    local = np.full(seen.shape, np.nan)
    local[seen] = tiles
    first = measurements[0]
    edge = np.mean((best <= 1) | (best >= len(candidates) - 2)) > 0.5
    sigma, misfit = _uncertainty(measurements, candidates, defocus, calibration, seen)
    local_map = LocalMap(local, np.where(seen, sigma, np.nan), first.y_px, first.x_px, TILE_PX)
    return Shift(float(tiles.mean()), sigma, local_map, misfit, bool(edge))


def _candidates(start_um: float, calibration: Calibration, limits_um: tuple[float, float]) -> Array:
    """Positions where the focus may be."""
    low = max(start_um - calibration.max_um, limits_um[0])
    high = min(start_um - calibration.min_um, limits_um[1])
    return np.linspace(low, high, _STEPS)


def _minima(candidates: Array, cost: Array, best: NDArray[np.intp]) -> Array:
    """Positions of the minima of (tiles, candidates), near the indices `best`, by a parabola through three points."""
    best = best.clip(1, cost.shape[1] - 2)
    rows = np.arange(len(cost))
    left, middle, right = (cost[rows, best + k] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    offset = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1), 0.0)
    step = candidates[1] - candidates[0]
    return np.asarray(candidates[best] + offset.clip(-1, 1) * step)


def _uncertainty(
    measurements: list[Measurement],
    candidates: Array,
    defocus_um: Array,
    calibration: Calibration,
    seen: NDArray[np.bool_],
) -> tuple[float, float]:
    """Standard deviation of the focus under the scores' own σ, which also tells an ambiguous match; and the misfit.

    The tiles of one field share their texture's error, so they do not average it away: their mean σ counts,
    widened to the misfit between scores and curve where that is larger.
    """
    mean = np.array([o.mean_b(seen) for o in measurements])
    sigma = np.array([float(o.sigma[seen].mean()) for o in measurements])
    residual = calibration.excess(mean[:, None], defocus_um)
    misfit = float(np.sqrt((residual**2).mean(0).min()))
    chi2 = (residual**2 / (sigma[:, None] ** 2 + misfit**2)).sum(0)
    weight = np.exp(-0.5 * (chi2 - chi2.min()))
    weight /= weight.sum()
    centre = float((weight * candidates).sum())
    return float(np.sqrt((weight * (candidates - centre) ** 2).sum())), misfit
