"""Planes of a calibration that are exposed twice: how well an exposure repeats itself, beyond its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from focusd.focus.measurement import Measurement, blocks_with_structure
from focusd.focus.transfer import log_signal, signal_error

Array = NDArray[np.float64]

_SMOOTH_BANDS = 3.0
"""Few planes are repeated: what neighbouring bands show together is believed."""
_STEADY = 0.02
"""Relative error of the power below which an exposure does not repeat itself, whatever the light."""
_LOST = 0.3
"""Relative error by noise from which a band tells nothing of this."""


def scatter_of(planes: Sequence[Measurement], repeated: Sequence[Measurement]) -> Array:
    """Relative error of one exposure's power, (bands,), as planes that were exposed twice show it.

    A stage that does not come back to the same z and a microscope that shakes make it; noise and a lamp that flickers
    do not count.
    """
    bands = len(planes[0].blocks.modes)
    if not repeated:
        return np.zeros(bands)
    chosen = blocks_with_structure(planes)
    found = np.array([_excess(_first_of(planes, again), again, chosen) for again in repeated])
    smooth: Array = gaussian_filter1d(found.mean(0), _SMOOTH_BANDS, mode="nearest")
    return np.sqrt(smooth.clip(0) / 2)


def _first_of(planes: Sequence[Measurement], again: Measurement) -> Measurement:
    return min(planes, key=lambda m: abs(m.z_um - again.z_um))


def _excess(first: Measurement, again: Measurement, chosen: NDArray[np.bool_]) -> Array:
    """Squared difference of two logarithms of power beyond what noise explains, (bands,)."""
    both = [m.spectrum(chosen) for m in (first, again)]
    variance = (signal_error(both) ** 2).sum(0)
    weight = 1 / (variance + _STEADY**2)
    difference = np.subtract(*log_signal(both))
    difference -= (weight * difference).sum() / weight.sum()
    return np.asarray((difference**2 - variance) * (variance < _LOST**2))
