"""The scale of z: how far the focus really moves for each µm of z, compared with the calibration.

Optics that differ somewhat from those calibrated (NA, wavelength, condenser, immersion) stretch the axis by some
percent, and so does a stage that is not quite what it says. One run tells the scale when its frames lie near the focus
as well as far from it. Runs of one rig share it, so that what the last ones told counts for the next.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

USUAL = 0.07
"""Standard deviation of the scale, before any run has told it: NA and wavelength within some percent of those
calibrated stretch the axis by up to 15 %."""
ANY = 0.01
"""Probability of a scale that neither the runs before nor what is usual explain."""
STEADY = 0.005
"""How steady the scale of one rig is at best."""
TELLING = 0.03
"""Standard uncertainty of the scale beyond which a run says nothing about that of the next."""
REMEMBERED = 20
"""Runs: of more of them the optics may have been changed."""
_CELL = 1 / math.sqrt(12)
"""Standard deviation within a cell of unit width."""


@dataclass(frozen=True)
class Scale:
    """A scale of z and its standard uncertainty, 1 where the calibration is true."""

    value: float
    sigma: float


class ScaleMemory:
    """What the last runs with one calibration told of the scale."""

    def __init__(self) -> None:
        self._told: deque[Scale] = deque(maxlen=REMEMBERED)

    def learn(self, scale: Scale) -> None:
        """Remember what a run told, if it told the scale well enough."""
        if scale.sigma <= TELLING:
            self._told.append(scale)

    def prior(self) -> ScalePrior:
        """What is known of the scale before the next run."""
        if not self._told:
            return ScalePrior(Scale(1.0, USUAL), 0.0)
        value, sigma = (np.array([getattr(s, name) for s in self._told]) for name in ("value", "sigma"))
        weight = 1 / (sigma**2 + STEADY**2)
        mean = float((weight * value).sum() / weight.sum())
        runs, known = len(value), float(weight.sum())
        chi2 = float((weight * (value - mean) ** 2).sum())
        scatter = (chi2 - (runs - 1)) / known  # beyond what each run is unsure of
        unsure = math.sqrt(max(0.0, scatter) + 1 / known + STEADY**2)
        return ScalePrior(Scale(mean, unsure), runs / (runs + 1))


@dataclass(frozen=True)
class ScalePrior:
    """Probability of the scale of a run: near that of the runs before, or else anything usual.

    Attributes:
        learnt: from the runs before.
        share: the probability that this run's scale is theirs.
    """

    learnt: Scale
    share: float

    def chances(self, relative: Array) -> Array:
        """Return the probability of each scale, with unit sum; each stands for those nearest to it.

        Args:
            relative: to the learnt scale, ascending.
        """
        scales = relative * self.learnt.value
        widths = np.gradient(scales)
        usual = _density(np.log(scales), 0.0, USUAL) * widths / scales
        near = (
            _density(scales, self.learnt.value, math.hypot(self.learnt.sigma, _CELL * widths.min())) * widths
        )
        mixed = self.share * near / max(near.sum(), 1e-300) + (1 - self.share) * usual / usual.sum()
        return np.asarray((1 - ANY) * mixed / mixed.sum() + ANY / len(scales))


def _density(values: Array, mean: float, sigma: float) -> Array:
    return np.asarray(np.exp(-0.5 * ((values - mean) / sigma) ** 2) / sigma)
