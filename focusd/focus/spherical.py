"""Spherical aberration that a calibration does not know: by a cover glass of another thickness, or a deep sample.

Its shape hardly depends on the layer (`optics.layer`), so that one number, its RMS in waves, says how much there is.
What it changes of the calibrated transfer is what it changes of a model of the optics.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.optics.bands import banded_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.layer import layer_over

Array = NDArray[np.float64]

WAVES = (-0.12, -0.06, 0.06, 0.12)
"""That are tried, RMS; the sign says to which side of the focus the image blurs more evenly."""
LAYER_UM = 50.0
"""Of a layer, at most: cover glasses vary by 20 µm, and samples lie some tens of µm below them."""
SHARE = 0.6
"""Of what is changed: how well it is known, as a relative error of the power."""
MOST = 2.0
"""Of the change of the power's logarithm: more comes of zeros of the model's transfer, where that is not true."""
_NEAR, _FAR = np.arange(0.0, 6.0, 0.5), np.arange(6.0, 17.0, 1.0)
_UNITS = np.concatenate([-_FAR[::-1], -_NEAR[:0:-1], _NEAR, _FAR])
"""Planes at which it is computed, in λ·n/NA²; beyond it stays the same."""


def aberrated(calibration: Calibration, waves: float, instrument: Instrument, block_px: int) -> Calibration:
    """Return the calibration of the same optics with so much more spherical aberration.

    Args:
        waves: RMS over the pupil; 0: it stays as it is.
        block_px: size of the blocks whose bands the calibration tells.
    """
    if waves == 0:
        return calibration
    changes = _changes(waves, instrument, block_px)
    transfer = calibration.transfer
    at = transfer.z_um / instrument.axial_unit_um
    change = np.stack([np.interp(at, _UNITS, band) for band in changes.T], axis=1)
    error = np.hypot(transfer.error, SHARE * np.abs(change))
    return replace(
        calibration, transfer=replace(transfer, log_power=transfer.log_power + change, error=error)
    )


def may_be_aberrated(instrument: Instrument) -> bool:
    """Return whether a layer aberrates as much as is tried: that goes as the fourth power of NA."""
    return LAYER_UM * layer_over(instrument).waves_per_um >= min(map(abs, WAVES))


def _changes(waves: float, instrument: Instrument, block_px: int) -> Array:
    """What the logarithm of the power changes by in the planes at `_UNITS`, (planes, bands)."""
    changed, plain = (_log_power(each, instrument, block_px) for each in (waves, 0.0))
    return (changed - plain).clip(-MOST, MOST)


@lru_cache(maxsize=32)
def _log_power(waves: float, instrument: Instrument, block_px: int) -> Array:
    """Of the model of the optics, (planes, bands)."""
    shape = layer_over(instrument).shape.items() if waves else ()
    aberrations = {order: waves * share for order, share in shape}
    return np.asarray(np.log(banded_transfer(_UNITS, instrument, aberrations, block_px)))
