"""What the paper says of a set of curves s(z), one a texture: spread, conditional entropy, range, dz."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BINS = 50
"""Bins of the score for the conditional entropy."""

SPREAD_WITHIN_UM = 50.0
"""The paper's 100 µm range, over which SD is taken."""


@dataclass(frozen=True)
class Curves:
    """A focus measure over depth.

    Attributes:
        z_um: (planes,) ascending, 0 in focus.
        values: (textures, planes), any sign: larger may be sharper or more blurred.
        sigma: (textures,) the mean uncertainty that the measure itself states within ±50 µm; None if it states none.
    """

    z_um: Array
    values: Array
    sigma: Array | None = None

    def normalised(self, within_um: float = SPREAD_WITHIN_UM) -> Array:
        """Each texture's curve scaled to 0…1 over the planes around the focus (DeepFocus, section 3.1)."""
        inner = self.values[:, np.abs(self.z_um) <= within_um]
        low, high = inner.min(1, keepdims=True), inner.max(1, keepdims=True)
        return np.asarray((self.values - low) / np.maximum(high - low, 1e-12))

    def within(self) -> Array:
        """Normalised curves on the planes within ±50 µm."""
        return self.normalised()[:, np.abs(self.z_um) <= SPREAD_WITHIN_UM]

    def spread(self) -> float:
        """SD over textures, averaged over the planes within ±50 µm."""
        return float(self.within().std(0).mean())

    def robust_spread(self) -> float:
        """The same with 1.4826 × the median absolute deviation, which a few odd textures do not move."""
        curves = self.within()
        return float(1.4826 * np.median(np.abs(curves - np.median(curves, 0)), 0).mean())

    def best(self, share: float) -> Curves | None:
        """The textures of which the measure itself is surest; None if it does not say."""
        if self.sigma is None:
            return None
        kept = np.argsort(self.sigma)[: max(2, round(share * len(self.sigma)))]
        return Curves(self.z_um, self.values[kept], self.sigma[kept])

    def entropy(self) -> float:
        """H(z | score) per plane in nats; each curve scaled to 0…1 over all its planes, the score in 50 bins.

        0: the score tells the plane. ln(planes): it tells nothing. A perfect score of |z| has ln 2 for the sign,
        and what the bins lump together.
        """
        index = np.clip((self.normalised(np.inf) * BINS).astype(int), 0, BINS - 1)
        joint = np.zeros((BINS, len(self.z_um)))
        np.add.at(joint, (index, np.broadcast_to(np.arange(len(self.z_um)), index.shape)), 1.0)
        joint /= joint.sum()
        given = joint / np.maximum(joint.sum(1, keepdims=True), 1e-300)
        seen = joint > 0
        return float(-(joint[seen] * np.log(given[seen])).sum())

    def depth_uncertainty_um(self) -> Array:
        """dz(z) = σ_b / |db/dz|, (planes,): the depth that one field's score leaves open."""
        curves = self.normalised()
        slope = np.gradient(curves.mean(0), self.z_um)
        return np.asarray(curves.std(0) / np.maximum(np.abs(slope), 1e-9))

    def range_um(self, depth_of_field_um: float) -> float:
        """How far from focus, to the nearer side, slope × DOF stays above half an SD (planes beside the focus,
        where every score is flat, do not end it)."""
        tells = depth_of_field_um > 0.5 * self.depth_uncertainty_um()
        reach = []
        for side in (self.z_um > depth_of_field_um, self.z_um < -depth_of_field_um):
            distance = np.sort(np.abs(self.z_um[side]))
            good = tells[side][np.argsort(np.abs(self.z_um[side]))]
            reach.append(
                float(distance[-1] if good.all() else distance[max(0, int(np.argmin(good)) - 1)] * good[0])
            )
        return min(reach)
