"""A smooth surface through measured positions: z and its uncertainty anywhere, and where to measure next.

A Gaussian process (Rasmussen & Williams 2006, chapters 2 and 5): a plane and a smooth bow about it. How strong and how
wide the bow is nobody knows, so every prediction averages over a table of both, each as likely as the
measurements say. With one position the uncertainty is that of mountings in general; each further one narrows it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
MOST = 120
"""Of more positions, those spread most evenly make the surface, and the others check it: its cost grows with n³."""
LATEST = 40
"""Of them the last ones: a position that was just measured, because it was not trusted, makes a difference."""
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
        used: (n,) positions that make the surface.
    """

    xy_um: Array
    z_um: Array
    sigma_um: Array
    used: Flags

    def predict(self, xy_um: Array) -> tuple[Array, Array]:
        """z and its standard uncertainty at (m, 2) positions, (m,) each, µm."""
        z_um, sigma_um = self._process.predict(xy_um)
        return z_um, self.widening * sigma_um

    def slopes(self) -> tuple[Array, Array]:
        """Slope of the plane along x and y, and its standard uncertainty, (2,) each, mrad."""
        slopes, sigma = self._process.slopes()
        return 1000 * slopes, 1000 * self.widening * sigma

    def best_of(self, xy_um: Array) -> int:
        """Index of the (m, 2) positions whose measurement would narrow the prediction at all of them most.

        Of many, those spread most evenly stand for all.
        """
        noise_um = max(float(np.median(self.sigma_um)), MIN_SIGMA_UM)
        asked = np.flatnonzero(_spread(xy_um))
        return int(asked[np.argmax(self._process.gain(xy_um[asked], noise_um))])

    @cached_property
    def expected(self) -> tuple[Array, Array]:
        """Each position as the others alone expect it: z and its standard uncertainty, (n,) each, µm.

        The measurement's own σ is part of the uncertainty.
        """
        others = ~self.used
        z_um, sigma_um = np.empty_like(self.z_um), np.empty_like(self.z_um)
        z_um[self.used], sigma_um[self.used] = self._process.left_out
        z_um[others], surface_um = self._process.predict(self.xy_um[others])
        sigma_um[others] = np.hypot(surface_um, self.sigma_um[others].clip(MIN_SIGMA_UM))
        return z_um, sigma_um

    @cached_property
    def kept(self) -> Flags:
        """(n,) positions that count: those that make the surface, and others that agree with it.

        At most a seventh does not: more wrong ones are not wrong but the sample.
        """
        agree = self.used | (self.deviations <= OUTLIER)
        return np.ones_like(agree) if (~agree).sum() > len(agree) // MIN_TO_JUDGE else agree

    @property
    def deviations(self) -> Array:
        """(n,) how far each position lies from where the others alone expect it, in standard deviations."""
        z_um, sigma_um = self.expected
        return np.asarray(np.abs(self.z_um - z_um) / sigma_um)

    @cached_property
    def widening(self) -> float:
        """How much too small the uncertainties are, by the deviations of the positions that count; 1 or more."""
        if self.kept.sum() < MIN_TO_JUDGE:
            return 1.0
        return max(1.0, float(np.sqrt(np.mean(self.deviations[self.kept] ** 2))))

    @cached_property
    def _process(self) -> _Process:
        return _Process(self.xy_um[self.used], self.z_um[self.used], self.sigma_um[self.used])


def fit_surface(xy_um: Array, z_um: Array, sigma_um: Array) -> Surface:
    """The surface through (n, 2) positions, n ≥ 1, the latest last.

    The worst are left out while they contradict the others; at most a seventh is.
    """
    used = _spread(xy_um)
    used[used] = _agreeing(_Process(xy_um[used], z_um[used], sigma_um[used]))
    return Surface(xy_um, z_um, sigma_um, used)


def _spread(xy_um: Array) -> Flags:
    """(n,) the latest positions, and those others that each lie furthest from all chosen before them; `MOST` in all."""
    chosen = np.ones(len(xy_um), np.bool_)
    if len(xy_um) <= MOST:
        return chosen
    chosen[:-LATEST] = False
    apart_um = np.full(len(xy_um), np.inf)
    for place in xy_um[-LATEST:]:
        apart_um = np.minimum(apart_um, np.linalg.norm(xy_um - place, axis=1))
    for _ in range(MOST - LATEST):
        furthest = int(np.argmax(np.where(chosen, -1.0, apart_um)))
        chosen[furthest] = True
        apart_um = np.minimum(apart_um, np.linalg.norm(xy_um - xy_um[furthest], axis=1))
    return chosen


def _agreeing(process: _Process) -> Flags:
    """Which of the positions of a process to keep: the worst are left out, one after the other."""
    kept = np.ones(len(process.z_um), np.bool_)
    for _ in range(len(kept) // MIN_TO_JUDGE):
        z_um, sigma_um = process.left_out
        off = np.abs(process.z_um - z_um) / sigma_um
        if off.max() <= OUTLIER:
            break
        worst = int(np.argmax(off))
        kept[np.flatnonzero(kept)[worst]] = False
        process = process.without(worst)
    return kept


class _Process:
    """The Gaussian process through all of its positions, under each hypothesis of the bow.

    Attributes:
        xy_um: (n, 2) positions.
        z_um, sigma_um: (n,) measured there.
    """

    def __init__(
        self,
        xy_um: Array,
        z_um: Array,
        sigma_um: Array,
        known: tuple[Array, Array, Array, float] | None = None,
    ) -> None:
        """Fit it.

        Args:
            known: (h, n, n) inverse covariances, (h,) logarithms of their determinants, (2,) the plane's middle and its
                level, where they are known already.
        """
        self.xy_um, self.z_um, self.sigma_um = xy_um, z_um, sigma_um
        if known is None:
            self._middle_um, self._level_um = np.asarray(xy_um.mean(0)), float(np.median(z_um))
            covariances = self._prior(xy_um, xy_um) + np.diag(sigma_um.clip(MIN_SIGMA_UM) ** 2)
            self._inverses = np.linalg.inv(covariances)
            self._log_determinants = np.linalg.slogdet(covariances)[1]
        else:
            self._inverses, self._log_determinants, self._middle_um, self._level_um = known
        self._weights = self._inverses @ (z_um - self._level_um)
        self._evidence = -0.5 * (self._weights @ (z_um - self._level_um) + self._log_determinants)
        self._likely = _normalised(self._evidence)

    def without(self, index: int) -> _Process:
        """The process without one of its positions: by the inverse of a bordered matrix, not by another inversion."""
        rest = np.arange(len(self.z_um)) != index
        column, pivot = self._inverses[:, rest, index], self._inverses[:, index, index]
        left = self._inverses[:, rest][:, :, rest] - column[:, :, None] * (column / pivot[:, None])[:, None]
        known = left, self._log_determinants + np.log(pivot), self._middle_um, self._level_um
        return _Process(self.xy_um[rest], self.z_um[rest], self.sigma_um[rest], known)

    @cached_property
    def left_out(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each measurement given the others (Rasmussen & Williams, equation 5.12)."""
        variances = 1 / np.diagonal(self._inverses, axis1=1, axis2=2)
        means = self.z_um - self._weights * variances
        density = -0.5 * (np.log(variances) + (self.z_um - means) ** 2 / variances)
        mean, variance = _mixed(means, variances, _normalised(self._evidence[:, None] - density))
        return mean, np.sqrt(variance)

    def predict(self, xy_um: Array) -> tuple[Array, Array]:
        """z and its standard deviation at (m, 2) positions, (m,) each."""
        cross = self._prior(xy_um, self.xy_um)
        means = (cross @ self._weights[:, :, None])[:, :, 0]
        level = LEVEL_UM**2 + SLOPE**2 * ((xy_um - self._middle_um) ** 2).sum(1)
        own = level + np.array([bow_um**2 for bow_um, _ in _HYPOTHESES])[:, None]
        mean, variance = _mixed(means, own - ((cross @ self._inverses) * cross).sum(2), self._likely[:, None])
        return mean + self._level_um, np.sqrt(variance)

    def slopes(self) -> tuple[Array, Array]:
        """Slope of the plane along x and y, and its standard deviation, (2,) each."""
        offset = (self.xy_um - self._middle_um).T * SLOPE**2
        told = ((offset @ self._inverses) * offset).sum(2)
        mean, variance = _mixed(self._weights @ offset.T, SLOPE**2 - told, self._likely[:, None])
        return mean, np.sqrt(variance)

    def gain(self, xy_um: Array, noise_um: float) -> Array:
        """By how much a measurement at each of (m, 2) positions narrows the prediction at all of them, (m,), µm²."""
        gain = np.zeros(len(xy_um))
        for number in np.flatnonzero(self._likely >= NEGLIGIBLE):
            bow = _HYPOTHESES[number : number + 1]
            cross, own = self._prior(xy_um, self.xy_um, bow)[0], self._prior(xy_um, xy_um, bow)[0]
            left = own - cross @ self._inverses[number] @ cross.T
            gain += self._likely[number] * (left**2).sum(0) / (np.diag(left).clip(0) + noise_um**2)
        return gain

    def _prior(self, a_um: Array, b_um: Array, bows: Sequence[tuple[float, float]] = _HYPOTHESES) -> Array:
        """Covariance between (m, 2) and (n, 2) positions before anything is measured, (h, m, n): a plane and a bow."""
        a, b = a_um - self._middle_um, b_um - self._middle_um
        plane = LEVEL_UM**2 + SLOPE**2 * (a @ b.T)
        distance = _ROOT5 * np.linalg.norm(a[:, None] - b[None, :], axis=-1)
        shapes = {width_um: _matern(distance / width_um) for width_um in {width_um for _, width_um in bows}}
        return np.array([plane + bow_um**2 * shapes[width_um] for bow_um, width_um in bows])


def _matern(distance: Array) -> Array:
    """The correlation (Matérn 5/2) over distances in widths, times √5."""
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def _normalised(log_weights: Array) -> Array:
    """Weights of the hypotheses, along the first axis."""
    weights = np.exp(log_weights - log_weights.max(0))
    return np.asarray(weights / weights.sum(0))


def _mixed(means: Array, variances: Array, likely: Array) -> tuple[Array, Array]:
    """Mean and variance over the hypotheses, along the first axis."""
    mean = (likely * means).sum(0)
    return mean, (likely * (variances.clip(0) + (means - mean) ** 2)).sum(0)
