"""The noise of a camera as its frames hold it: its spectrum, and its power in a frame.

Behind demosaicing, smoothing or compression noise is not white. Two frames of one z differ by noise alone, whose
spectrum the calibration measures so. All spectra are divided by it: noise is white again, and the transfer and the
object, which every comparison leaves free by a factor per frequency, lose nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from focusd.focus.measurement import Measurement, independent_blocks
from focusd.optics.bands import NOISE_ERROR, BlockSpectra

Array = NDArray[np.float64]

LEAST_COLOURED = 0.1
"""Relative difference from white up to which noise counts as white; pairs of frames tell it to some percent."""
LEAST_SHARE = 1e-6
"""Of the strongest band's noise: less than that a camera with whole numbers does not have."""
MOST_LIGHT_IN_CORNERS = 1.3
"""Power in the corners over that of the noise there: beyond that the corners hold the sample too, as those of a colour
mosaic do, and do not tell a frame's noise."""
LEAST_IN_CORNERS = 0.05
"""Of the strongest band's noise: a camera that leaves less of it in the corners does not show it there."""
_SMOOTH_BANDS = 1.0
"""Noise changes slowly from band to band."""
_SIGNIFICANT = 4.0
"""Standard deviations that chance does not reach in any of the bands."""


@dataclass(frozen=True)
class Noise:
    """What a calibration knows of its camera's noise.

    Attributes:
        shape: (bands,) power of the noise in each band over that in the corners of the spectrum.
        error: (bands,) relative error of that: what compression leaves depends on what the image shows.
        per_count: power in the corners for each count of a frame's mean, where the corners do not tell a frame's noise;
            None: they do.
    """

    shape: Array
    error: Array
    per_count: float | None = None

    def whiten(self, blocks: BlockSpectra) -> BlockSpectra:
        """Divide the spectra by that of the noise."""
        noise = blocks.noise
        if self.per_count is not None:
            noise = np.full_like(noise, self.per_count * blocks.level)
        return replace(blocks, power=blocks.power / self.shape, noise=noise, noise_error=self.error)

    def colour(self, blocks: BlockSpectra) -> BlockSpectra:
        """Undo `whiten`, but for the level of the noise."""
        return replace(blocks, power=blocks.power * self.shape)


def noise_in(measurements: Sequence[Measurement]) -> Noise | None:
    """Measure the noise of the camera from the pairs of frames of one z; None: it is white as far as they tell."""
    told = [m.noise for m in measurements if m.noise is not None]
    if not told:
        return None
    pairs = [pair.spectra for pair in told]
    powers, corners = (
        np.array([p.power.mean((0, 1)) for p in pairs]),
        float(np.mean([p.noise.mean() for p in pairs])),
    )
    if any(pair.moved_px for pair in told):  # of images that are smeared the differences hold the sample, too
        powers = np.broadcast_to(powers.min(0), powers.shape)
    shape = _smooth(powers.mean(0) / corners)
    shape = np.maximum(shape, LEAST_SHARE * shape.max())
    seen = float(np.quantile([m.blocks.noise.mean() for m in measurements], 0.9))
    is_known = seen <= MOST_LIGHT_IN_CORNERS * corners and shape.max() * LEAST_IN_CORNERS <= 1
    unsure = _sampling_error(pairs)
    if is_known and (np.abs(shape - 1) <= np.maximum(LEAST_COLOURED, _SIGNIFICANT * unsure)).all():
        return None
    varies = np.std([np.log(_smooth(power)) for power in powers], axis=0)
    error = np.hypot(NOISE_ERROR, np.sqrt((varies**2 - len(pairs) * unsure**2).clip(0)))
    level = float(np.mean([p.level for p in pairs]))
    return Noise(shape, error, None if is_known else corners / level)


def _smooth(power: Array) -> Array:
    return np.asarray(np.exp(gaussian_filter1d(np.log(power), _SMOOTH_BANDS, mode="nearest")))


def _sampling_error(pairs: Sequence[BlockSpectra]) -> Array:
    """Relative standard deviation of the power of noise, (bands,), as so many differences tell it."""
    blocks = sum(independent_blocks(p.noise.size) for p in pairs)
    return np.asarray(1 / np.sqrt(pairs[0].modes * blocks))
