"""Spherical aberration that a calibration does not know: by a cover glass of another thickness, or a deep sample.

A layer of thickness t and index m, which the objective was not made for, adds W(ρ) = t √(m² − NA² ρ²) to the phase of
the pupil, less what a move of the stage takes away again, √(n² − NA² ρ²), and a constant (Gibson & Lanni, J. Opt. Soc.
Am. A 8 (1991) 1601). Its shape hardly depends on the layer, and its RMS in waves says how much there is.
What it changes of the calibrated transfer is what it changes of a model of the optics.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.optics.bands import banded_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.zernike import SPHERICAL, zernike

Array = NDArray[np.float64]

WAVES = (-0.12, -0.06, 0.06, 0.12)
"""That are tried, RMS; the sign says to which side of the focus the image blurs more evenly."""
GLASS_INDEX = 1.515
"""Of the layer, a cover glass, for objectives made for less. Those for oil look into samples of about their index."""
LAYER_UM = 50.0
"""Of a layer, at most: cover glasses vary by 20 µm, and samples lie some tens of µm below them."""
INDEX_STEP = 0.1
"""Of an oil's index and that of a sample in water, or in what it is mounted in."""
SHARE = 0.6
"""Of what is changed: how well it is known, as a relative error of the power."""
MOST = 2.0
"""Of the change of the power's logarithm: more comes of zeros of the model's transfer, where that is not true."""
_NEAR, _FAR = np.arange(0.0, 6.0, 0.5), np.arange(6.0, 17.0, 1.0)
_UNITS = np.concatenate([-_FAR[::-1], -_NEAR[:0:-1], _NEAR, _FAR])
"""Planes at which it is computed, in λ·n/NA²; beyond it stays the same."""
_ORDERS = (SPHERICAL, 22, 37, 56)
"""Noll's indices of radial order 4, 6, 8 and 10."""
_RINGS = 2000


def aberrated(calibration: Calibration, waves: float, instrument: Instrument, block_px: int) -> Calibration:
    """Return the calibration of the same optics with so much more spherical aberration.

    Args:
        waves: RMS over the pupil; 0: it stays as it is.
        block_px: size of the blocks whose bands the calibration tells.
    """
    if waves == 0:
        return calibration
    units, changes = _change(waves, instrument, block_px)
    transfer = calibration.transfer
    at = transfer.z_um / instrument.axial_unit_um
    change = np.stack([np.interp(at, units, band) for band in changes.T], axis=1)
    error = np.hypot(transfer.error, SHARE * np.abs(change))
    return replace(
        calibration, transfer=replace(transfer, log_power=transfer.log_power + change, error=error)
    )


@lru_cache
def may_be_aberrated(instrument: Instrument) -> bool:
    """Return whether a layer aberrates as much as is tried: that goes as the fourth power of NA."""
    return LAYER_UM / instrument.wavelength_um * _layer(instrument)[1] >= min(map(abs, WAVES))


@lru_cache(maxsize=32)
def _change(waves: float, instrument: Instrument, block_px: int) -> tuple[Array, Array]:
    """Defocus in axial units, (planes,), and what the logarithm of the power changes by there, (planes, bands)."""
    changed, plain = (_log_power(each, instrument, block_px) for each in (waves, 0.0))
    return _UNITS, (changed - plain).clip(-MOST, MOST)


@lru_cache(maxsize=32)
def _log_power(waves: float, instrument: Instrument, block_px: int) -> Array:
    """Of the model of the optics, (planes, bands)."""
    aberrations = {order: waves * share for order, share in _layer(instrument)[0].items()} if waves else {}
    return np.asarray(np.log(banded_transfer(_UNITS, instrument, aberrations, block_px)))


def _layer(instrument: Instrument) -> tuple[dict[int, float], float]:
    """Of a layer's aberration: Noll's index → share of the RMS, and that itself for 1 µm, in µm."""
    squared = (np.arange(_RINGS) + 0.5) / _RINGS  # of ρ, even over the pupil's area
    n = instrument.immersion_index
    moved = np.sqrt(n**2 - instrument.na**2 * squared)
    is_dry = n < GLASS_INDEX
    phase = np.sqrt(GLASS_INDEX**2 - instrument.na**2 * squared) if is_dry else INDEX_STEP * n / moved
    known = np.stack([np.ones(_RINGS), moved], axis=1)
    phase = phase - known @ np.linalg.lstsq(known, phase, rcond=None)[0]
    rho, theta = torch.tensor(np.sqrt(squared)), torch.zeros(_RINGS, dtype=torch.float64)
    terms = {order: float((phase * zernike(order, rho, theta).numpy()).mean()) for order in _ORDERS}
    rms = math.sqrt(sum(term**2 for term in terms.values()))
    return {order: term / rms for order, term in terms.items()}, rms
