"""Planes of a calibration that are exposed twice: how well an exposure repeats itself, beyond its noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from focusd.focus.measurement import Measurement, blocks_with_structure
from focusd.focus.transfer import Repeats, log_signal, signal_error
from focusd.optics.bands import ring_radii

Array = NDArray[np.float64]

_SMOOTH_BANDS = 3.0
"""Few planes are repeated: what neighbouring bands show together is believed."""
_STEADY = 0.02
"""Relative error of the power below which an exposure does not repeat itself, whatever the light."""
_SIGNIFICANT = 4.0
"""Standard deviations that chance does not reach."""
_LOST = 0.3
"""Relative error by noise from which a band tells nothing of this."""


def repeats_of(planes: Sequence[Measurement], repeated: Sequence[Measurement]) -> Repeats:
    """How well an exposure repeats itself, as planes that were exposed twice show it.

    A microscope that shakes smears its images, more in one exposure and less in the next, which takes power from all
    frequencies together: as f² where it is little. What the pairs differ by beyond that, as where a stage does not
    come back to the same z, is an error of each band. Noise and a lamp that flickers do not count.
    """
    if not repeated:
        return Repeats(np.zeros(len(planes[0].blocks.modes)))
    chosen = blocks_with_structure(planes)
    pairs = [_Pair.of(_first_of(planes, again), again, chosen) for again in repeated]
    steep = (radii := ring_radii(planes[0].blocks.size_px)) ** 2 / radii.max() ** 2
    as_a_whole, smeared = np.ones((1, len(steep))), np.stack([steep, steep**2])
    shaken = _shaken(pairs, as_a_whole, smeared)
    if shaken is not None:
        as_a_whole = np.vstack([as_a_whole, smeared])
    found = np.array([pair.excess(as_a_whole) for pair in pairs])
    smooth: Array = gaussian_filter1d(found.mean(0), _SMOOTH_BANDS, mode="nearest")
    return Repeats(np.sqrt(smooth.clip(0) / 2), shaken)


def _shaken(pairs: Sequence[_Pair], as_a_whole: Array, smeared: Array) -> Array | None:
    """As `Transfer.shaken`: principal components of what smearing makes of the pairs; None: noise explains them."""
    fits = [pair.fitted(np.vstack([as_a_whole, smeared])) for pair in pairs]
    sizes, errors = (np.array(each)[..., len(as_a_whole) :] for each in zip(*fits, strict=True))
    errors = errors[:, len(as_a_whole) :]
    surprise = sum(size @ np.linalg.solve(error, size) for size, error in zip(sizes, errors, strict=True))
    values = sizes.size
    if surprise < values + _SIGNIFICANT * np.sqrt(2 * values):
        return None
    covariance = np.mean(
        [np.outer(size, size) - error for size, error in zip(sizes, errors, strict=True)], axis=0
    )
    variance, axes = np.linalg.eigh(covariance / 2)
    real = variance > 0
    return np.sqrt(variance[real])[:, None] * (axes.T[real] @ smeared) if real.any() else None


def _first_of(planes: Sequence[Measurement], again: Measurement) -> Measurement:
    return min(planes, key=lambda m: abs(m.z_um - again.z_um))


@dataclass(frozen=True)
class _Pair:
    """Two exposures of one z: difference of the logarithms of their power, and what noise makes of its variance."""

    difference: Array
    variance: Array

    @classmethod
    def of(cls, first: Measurement, again: Measurement, chosen: NDArray[np.bool_]) -> _Pair:
        both = [m.spectrum(chosen) for m in (first, again)]
        return cls(np.subtract(*log_signal(both)), (signal_error(both) ** 2).sum(0))

    def fitted(self, profiles: Array) -> tuple[Array, Array]:
        """How much of each profile (profiles, bands) the difference holds, and the covariance of that."""
        weight = 1 / (self.variance + _STEADY**2)
        covariance = np.linalg.inv(np.einsum("b,pb,qb->pq", weight, profiles, profiles))
        return covariance @ (profiles @ (weight * self.difference)), covariance

    def excess(self, profiles: Array) -> Array:
        """Squared difference beyond what these profiles and noise explain, (bands,); 0 where noise hides it."""
        left = self.difference - self.fitted(profiles)[0] @ profiles
        return np.asarray((left**2 - self.variance) * (self.variance < _LOST**2))
