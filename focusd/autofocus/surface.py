"""A smooth surface through measured positions: z and its uncertainty anywhere, and where to measure next.

A Gaussian process (Rasmussen & Williams 2006, chapters 2 and 5): a plane and a smooth bow about it. How strong and how
wide the bow is nobody knows, so every prediction averages over a table of both, each as likely as the
measurements say. With one position the uncertainty is that of mountings in general; each further one narrows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

BOW_UM = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Standard deviations of the bow: from a ground wafer to the bottom of a well plate."""
WIDTH_UM = (1e3, 3e3, 1e4, 3e4)
"""Distances over which the bow changes: from a cover glass to a plate."""
LEVEL_UM = 100.0
"""Standard deviation of the plane's height, before anything is measured, about the positions' median."""
SLOPE = 0.005
"""Standard deviation of the plane's slopes: 5 mrad, 100 µm over 20 mm."""
MIN_SIGMA_UM = 0.01
"""No focus is known better, and the equations need some."""
OUTLIER = 4.0
"""A position further from where the others expect it, in standard deviations, is left out."""
MIN_TO_JUDGE = 7
"""Fewer positions than this cannot tell which of them is wrong."""
NEGLIGIBLE = 1e-3
"""Hypotheses less likely than this have no say in where to measure next."""

_HYPOTHESES = tuple(product(BOW_UM, WIDTH_UM))
_ROOT5 = float(np.sqrt(5))


@dataclass(frozen=True)
class Surface:
    """A surface fitted to positions.

    Attributes:
        xy_um: (n, 2) positions.
        z_um, sigma_um: (n,) measured there.
        kept: (n,) positions that count; the others lie where nothing else says they should.
    """

    xy_um: Array
    z_um: Array
    sigma_um: Array
    kept: Flags

    def predict(self, xy_um: Array) -> tuple[Array, Array]:
        """z and its standard uncertainty at (m, 2) positions, (m,) each, µm."""
        means, covariances = [], []
        for posterior in self._posteriors:
            cross = posterior.prior(xy_um, self._xy_um)
            means.append(cross @ posterior.weights)
            own = posterior.prior_variance(xy_um)
            covariances.append(own - ((cross @ posterior.inverse) * cross).sum(1))
        mean, variance = _mixed(np.array(means), np.array(covariances), self._likely[:, None])
        return mean + self._level_um, self.widening * np.sqrt(variance)

    def slopes(self) -> tuple[Array, Array]:
        """Slope of the plane along x and y, and its standard uncertainty, (2,) each, mrad."""
        offset = (self._xy_um - self._middle_um).T * SLOPE**2
        means = np.array([offset @ p.weights for p in self._posteriors])
        told = np.array([((offset @ p.inverse) * offset).sum(1) for p in self._posteriors])
        mean, variance = _mixed(means, SLOPE**2 - told, self._likely[:, None])
        return 1000 * mean, 1000 * self.widening * np.sqrt(variance)

    def best_of(self, xy_um: Array) -> int:
        """Index of the (m, 2) positions whose measurement would narrow the prediction at all of them most."""
        gain = np.zeros(len(xy_um))
        noise = max(float(np.median(self.sigma_um)), MIN_SIGMA_UM) ** 2
        for posterior, likely in zip(self._posteriors, self._likely, strict=True):
            if likely < NEGLIGIBLE:
                continue
            cross = posterior.prior(xy_um, self._xy_um)
            left = posterior.prior(xy_um, xy_um) - cross @ posterior.inverse @ cross.T
            gain += likely * (left**2).sum(0) / (np.diag(left).clip(0) + noise)
        return int(np.argmax(gain))

    @cached_property
    def expected(self) -> tuple[Array, Array]:
        """Each position that counts as the others alone expect it: z and its standard uncertainty, (kept,) each, µm.

        The measurement's own σ is part of the uncertainty.
        """
        left_out = [posterior.leave_one_out(self._z_um) for posterior in self._posteriors]
        means, variances = (np.array(values) for values in zip(*left_out, strict=True))
        density = -0.5 * (np.log(variances) + (self._z_um - means) ** 2 / variances)
        likely = _normalised(self._evidence[:, None] - density)
        mean, variance = _mixed(means, variances, likely)
        return mean + self._level_um, np.sqrt(variance)

    @cached_property
    def widening(self) -> float:
        """How much too small the uncertainties are, by the positions' own leave-one-out errors; 1 or more."""
        if self.kept.sum() < MIN_TO_JUDGE:
            return 1.0
        mean, sigma = self.expected
        return max(1.0, float(np.sqrt(np.mean(((self.z_um[self.kept] - mean) / sigma) ** 2))))

    @cached_property
    def _posteriors(self) -> list[_Posterior]:
        sigma = self.sigma_um[self.kept].clip(MIN_SIGMA_UM)
        args = self._xy_um, self._z_um, sigma, self._middle_um
        return [_posterior(bow, width, *args) for bow, width in _HYPOTHESES]

    @cached_property
    def _evidence(self) -> Array:
        return np.array([posterior.log_evidence for posterior in self._posteriors])

    @cached_property
    def _likely(self) -> Array:
        return _normalised(self._evidence)

    @cached_property
    def _xy_um(self) -> Array:
        return self.xy_um[self.kept]

    @cached_property
    def _middle_um(self) -> Array:
        return np.asarray(self._xy_um.mean(0))

    @cached_property
    def _level_um(self) -> float:
        return float(np.median(self.z_um[self.kept]))

    @cached_property
    def _z_um(self) -> Array:
        return self.z_um[self.kept] - self._level_um


def fit_surface(xy_um: Array, z_um: Array, sigma_um: Array) -> Surface:
    """The surface through (n, 2) positions, n ≥ 1; the worst are left out while they contradict the others.

    At most a seventh is: more wrong ones are not wrong but the sample.
    """
    kept = np.ones(len(z_um), np.bool_)
    surface = Surface(xy_um, z_um, sigma_um, kept)
    for _ in range(len(z_um) // MIN_TO_JUDGE):
        mean, sigma = surface.expected
        off = np.abs(z_um[surface.kept] - mean) / sigma
        if off.max() <= OUTLIER:
            break
        kept = surface.kept.copy()
        kept[np.flatnonzero(kept)[np.argmax(off)]] = False
        surface = Surface(xy_um, z_um, sigma_um, kept)
    return surface


@dataclass(frozen=True)
class _Posterior:
    """The Gaussian process under one hypothesis of the bow; `weights` is K⁻¹z, `inverse` K⁻¹."""

    bow_um: float
    width_um: float
    middle_um: Array
    weights: Array
    inverse: Array
    log_evidence: float

    def prior(self, a_um: Array, b_um: Array) -> Array:
        """Covariance between (m, 2) and (n, 2) positions before anything is measured."""
        return _covariance(a_um, b_um, self.middle_um, self.bow_um, self.width_um)

    def prior_variance(self, xy_um: Array) -> Array:
        """Diagonal of `prior(xy_um, xy_um)`."""
        return np.asarray(LEVEL_UM**2 + self.bow_um**2 + SLOPE**2 * ((xy_um - self.middle_um) ** 2).sum(1))

    def leave_one_out(self, z_um: Array) -> tuple[Array, Array]:
        """Mean and variance of each measurement given the others (Rasmussen & Williams, equation 5.12)."""
        precision = np.diag(self.inverse)
        return z_um - self.weights / precision, 1 / precision


def _posterior(
    bow_um: float, width_um: float, xy_um: Array, z_um: Array, sigma_um: Array, middle_um: Array
) -> _Posterior:
    covariance = _covariance(xy_um, xy_um, middle_um, bow_um, width_um) + np.diag(sigma_um**2)
    inverse = np.asarray(np.linalg.inv(covariance), np.float64)
    weights = inverse @ z_um
    evidence = -0.5 * float(z_um @ weights + np.linalg.slogdet(covariance)[1])
    return _Posterior(bow_um, width_um, middle_um, weights, inverse, evidence)


def _covariance(a_um: Array, b_um: Array, middle_um: Array, bow_um: float, width_um: float) -> Array:
    """Of a plane and a bow (Matérn 5/2)."""
    a, b = a_um - middle_um, b_um - middle_um
    distance = _ROOT5 * np.linalg.norm(a[:, None] - b[None, :], axis=-1) / width_um
    bow = bow_um**2 * (1 + distance + distance**2 / 3) * np.exp(-distance)
    return np.asarray(LEVEL_UM**2 + SLOPE**2 * (a @ b.T) + bow)


def _normalised(log_weights: Array) -> Array:
    """Weights of the hypotheses, along the first axis."""
    weights = np.exp(log_weights - log_weights.max(0))
    return np.asarray(weights / weights.sum(0))


def _mixed(means: Array, variances: Array, likely: Array) -> tuple[Array, Array]:
    """Mean and variance over the hypotheses, along the first axis."""
    mean = (likely * means).sum(0)
    return mean, (likely * (variances.clip(0) + (means - mean) ** 2)).sum(0)
