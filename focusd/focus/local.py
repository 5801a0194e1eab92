"""The focus of each block of the field, around that of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from focusd.focus.blocks import LocalMap
from focusd.focus.calibration import Calibration
from focusd.focus.levels import two_levels
from focusd.focus.likelihood import (
    CORRELATED_BANDS,
    ITERATIONS,
    ROUGH_ITERATIONS,
    Comparison,
    explain,
    singles,
)
from focusd.focus.measurement import Mask, Measurement, blocks_with_structure, common_noise
from focusd.focus.posterior import misfit_of

Array = NDArray[np.float64]

REACH_UNITS = 6.0
"""How far from the field's focus a block's is looked for, in λ·n/NA²."""
MAX_SIGMA_UNITS = 1.0
"""A block that knows its focus no better says nothing about the shape of the field: noise, or another block's light."""
TOGETHER_UNITS = 0.5
"""Half of a field's blocks lie within so much of its focus, before they are asked."""
LEAST_SLOPING = 5
"""Blocks that tell their focus, of which a plane is believed."""
SLOPING_R2 = 0.8
_COARSE_STEPS = 33
_FINE_STEPS = 9
"""Around the best coarse one, up to its neighbours."""
_MODE_STEPS = 1.5
"""Coarse ones within so many steps of a block's focus belong to it: its own σ stands for them."""


def local_map(measurements: Sequence[Measurement], calibration: Calibration, centre_um: float) -> LocalMap:
    """Match each block's spectra with the transfer. NaN: the block shows nothing, or does not tell its focus.

    Args:
        measurements: two planes or more.
        centre_um: of the places looked at, near the focus of the field.
    """
    counts = blocks_with_structure(measurements)
    reach_um = REACH_UNITS * calibration.axial_unit_um
    step_um = 2 * reach_um / (_COARSE_STEPS - 1)
    coarse_um = centre_um + np.linspace(-reach_um, reach_um, _COARSE_STEPS)
    coarse = explained(measurements, counts, calibration, coarse_um[None], step_um, ROUGH_ITERATIONS)
    unlikely = _unlikely(coarse_um - centre_um, coarse, len(measurements), calibration.axial_unit_um)
    best = unlikely.argmin(-1)
    fine_um = coarse_um[best, None] + np.linspace(-step_um, step_um, _FINE_STEPS)
    fine = explained(measurements, counts, calibration, fine_um, 0.0)
    focus_um, near_um = _lowest(fine_um, fine, len(measurements))
    sigma_um = np.hypot(near_um, _elsewhere(coarse_um, unlikely, focus_um))
    sure = sigma_um <= MAX_SIGMA_UNITS * calibration.axial_unit_um
    inside = (best > 0) & (best < _COARSE_STEPS - 1) & sure
    blocks = measurements[0].blocks
    focus, sigma = (_placed(counts, np.where(inside, each, np.nan)) for each in (focus_um, sigma_um))
    return LocalMap(focus, sigma, blocks.y_px, blocks.x_px, float(blocks.size_px))


def is_uneven(local: LocalMap, unit_um: float) -> bool:
    """Whether the blocks tell, each for itself and all alike, a slope or a step of more than an axial unit.

    Frames of such a field fit no single focus either, and the hardware is not to blame.
    """
    known = np.isfinite(local.focus_um)
    if known.sum() < LEAST_SLOPING:
        return False
    y, x, focus_um = local.y_px[known], local.x_px[known], local.focus_um[known]
    columns = np.stack([np.ones_like(y), y - y.mean(), x - x.mean()], axis=1)
    plane_um = columns @ np.linalg.lstsq(columns, focus_um, rcond=None)[0]
    explained = 1 - np.var(focus_um - plane_um) / max(float(np.var(focus_um)), 1e-12)
    if explained > SLOPING_R2 and np.ptp(plane_um) > unit_um:
        return True
    levels = two_levels(columns, focus_um, local.sigma_um[known])
    return levels.distinct and levels.step_um > unit_um


def explained(
    measurements: Sequence[Measurement],
    counts: Mask,
    calibration: Calibration,
    candidates_um: Array,
    spacing_um: float,
    iterations: int = ITERATIONS,
) -> Comparison:
    """Each block alone, (blocks, candidates), by candidates (blocks or 1, candidates)."""
    power = np.stack([o.blocks.power[counts] for o in measurements])[:, :, None, :]
    noise = common_noise(np.stack([o.blocks.noise[counts] for o in measurements]))[:, :, None, None]
    frames_um = np.array([o.z_um for o in measurements])[:, None, None]
    transferred = calibration.transfer.at(frames_um - candidates_um, spacing_um / 2)
    blocks = measurements[0].blocks
    transfer = calibration.transfer
    given = power, noise, blocks.modes, blocks.spread, *transferred, transfer.log_object, transfer.nuisances
    return explain(*singles(*given), noise_error=blocks.noise_error, iterations=iterations)


def _lowest(candidates_um: Array, comparison: Comparison, frames: int) -> tuple[Array, Array]:
    """Focus and σ of each block, (blocks,), by the parabola through its three best; NaN where that has no minimum."""
    best = comparison.chi2[:, 1:-1].argmin(-1) + 1
    block = np.arange(len(best))
    left, middle, right = (comparison.chi2[block, best + offset] for offset in (-1, 0, 1))
    bend = left - 2 * middle + right
    bend = np.where(bend > 0, bend, np.nan)
    step_um = candidates_um[:, 1] - candidates_um[:, 0]
    widening = CORRELATED_BANDS * misfit_of(comparison, frames)
    focus_um = candidates_um[block, best] + 0.5 * (left - right) / bend * step_um
    return focus_um, step_um * np.sqrt(2 * widening / bend)


def _unlikely(apart_um: Array, coarse: Comparison, frames: int, unit_um: float) -> Array:
    """−2 log of the probability of each place, (blocks, candidates), by a block's spectra and its neighbours.

    A block that holds a few objects explains two places as well. Most of a field lies together: far from its focus a
    block needs evidence, however far (Cauchy's distribution). Where it has it, its focus is not moved by this.
    """
    widening = CORRELATED_BANDS * misfit_of(coarse, frames)
    return np.asarray(
        coarse.chi2 / widening[:, None] + 2 * np.log1p((apart_um / (TOGETHER_UNITS * unit_um)) ** 2)
    )


def _elsewhere(candidates_um: Array, unlikely: Array, focus_um: Array) -> Array:
    """What other places add to the σ of each block's focus, (blocks,)."""
    weight = np.exp(-0.5 * (unlikely - unlikely.min(-1, keepdims=True)))
    distance_um = candidates_um - focus_um[:, None]
    apart = np.abs(distance_um) > _MODE_STEPS * (candidates_um[1] - candidates_um[0])
    return np.asarray(np.sqrt((weight * apart * distance_um**2).sum(-1) / weight.sum(-1)))


def _placed(counts: Mask, values: Array) -> Array:
    """Values of the blocks that count, on the grid of all; NaN elsewhere."""
    grid = np.full(counts.shape, np.nan)
    grid[counts] = values
    return grid
