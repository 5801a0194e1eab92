"""Where the focus is, given all frames of a run: a probability over z (docs/explanation/method.md).

Two kinds of evidence. Each frame's score against b_calib(z): far-sighted and coarse. The spectra of all frames
together against the calibrated transfer: fine, and independent of the sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.focus.likelihood import CORRELATED_BANDS, ITERATIONS, ROUGH_ITERATIONS, Comparison, compare
from focusd.focus.measurement import Spectrum

Array = NDArray[np.float64]

COARSE_STEPS = 201
FINE_STEPS = 81
SCORE_FREEDOM = 3.0
"""Of Student's t for the scores: a texture that the network reads wrongly is rare, not impossible."""
CURVE_ERROR = 0.01
"""Of b_calib, in units of b, from one sample to the next."""
_TEMPERING = 10.0
"""Values that count as if they had errors as large as expected, before any is seen."""
UNIFORM_SHARE = 0.01
"""Of the probability that a warm start leaves to the rest of the range: the sample may have been moved."""


@dataclass(frozen=True)
class Evidence:
    """What a decision sees of one exposure.

    Attributes:
        z_um: where it was exposed.
        b: score of the field; None: it has not been scored.
        sigma: its standard deviation.
        spectrum: of the blocks that hold something.
    """

    z_um: float
    b: float | None
    sigma: float
    spectrum: Spectrum


@dataclass(frozen=True)
class Prior:
    """What is known before the first exposure: the last focus and the drift since."""

    focus_um: float
    sigma_um: float


@dataclass(frozen=True)
class Posterior:
    """Probability of the focus.

    Attributes:
        z_um: (n,) ascending, closer together near the maximum.
        weight: (n,) probability of each, with unit sum.
        log_object: (n, bands) logarithm of the object's spectrum, were the focus there.
        misfit: χ² per value of the best explanation, at least 1; it widens the probability.
    """

    z_um: Array
    weight: Array
    log_object: Array
    misfit: float

    @cached_property
    def best_um(self) -> float:
        """Mean within the main mode."""
        inside = self._main_mode
        return float((self.weight * self.z_um)[inside].sum() / self.weight[inside].sum())

    @cached_property
    def mode_um(self) -> float:
        """The most probable position."""
        return float(self.z_um[int(np.argmax(self.density))])

    @cached_property
    def sigma_um(self) -> float:
        """Standard deviation over the whole range: it also tells an ambiguity."""
        mean = float((self.weight * self.z_um).sum())
        return float(np.sqrt((self.weight * (self.z_um - mean) ** 2).sum()))

    @cached_property
    def mode_sigma_um(self) -> float:
        """Standard deviation within the main mode."""
        inside = self._main_mode
        weight = self.weight[inside] / self.weight[inside].sum()
        return float(np.sqrt((weight * (self.z_um[inside] - self.best_um) ** 2).sum()))

    @cached_property
    def certainty(self) -> float:
        """Probability of the main mode."""
        return float(self.weight[self._main_mode].sum())

    @property
    def at_edge(self) -> bool:
        """Whether the most probable position is an end of what could be looked at."""
        index = int(np.argmax(self.density))
        return index <= 1 or index >= len(self.z_um) - 2

    @cached_property
    def density(self) -> Array:
        """(n,) probability per µm."""
        return np.asarray(self.weight / np.gradient(self.z_um))

    @cached_property
    def _main_mode(self) -> NDArray[np.bool_]:
        """The stretch around the maximum in which the density does not rise again by more than a little."""
        density = self.density
        top = int(np.argmax(density))
        left = top - _descent(density[top::-1])
        right = top + _descent(density[top:])
        inside = np.zeros(len(density), dtype=bool)
        inside[left : right + 1] = True
        return inside


def _descent(density: Array) -> int:
    """Steps from a maximum to where the density rises again to e times its lowest so far; the lowest's index."""
    lowest = np.minimum.accumulate(density)
    rises = np.flatnonzero(density > np.e * lowest + 1e-12 * density[0])
    return int(np.argmin(density[: rises[0]])) if len(rises) else len(density) - 1


def survey(
    evidence: Sequence[Evidence],
    calibration: Calibration,
    within_um: tuple[float, float],
    iterations: int = ITERATIONS,
) -> Comparison:
    """What the spectra say over the whole range, coarsely: it does not depend on the scores."""
    z_um = _coarse_um(within_um)
    return _compared(z_um, evidence, calibration, z_um[1] - z_um[0], iterations)


def posterior(
    evidence: Sequence[Evidence],
    calibration: Calibration,
    within_um: tuple[float, float],
    prior: Prior | None = None,
    surveyed: Comparison | None = None,
    iterations: int = ITERATIONS,
) -> Posterior:
    """The probability of the focus after one exposure or more.

    Args:
        within_um: the focus is not looked for beyond these two places.
        surveyed: the `survey` of this evidence, where it has been made.
        iterations: of the fit of the object; fewer are quicker.
    """
    coarse_um = _coarse_um(within_um)
    surveyed = surveyed or survey(evidence, calibration, within_um, iterations)
    coarse = _weighed(coarse_um, surveyed, evidence, calibration, prior)
    near_um = coarse.mode_um
    return _refined(coarse, posterior_near(near_um, evidence, calibration, within_um, prior, iterations))


def posterior_near(
    near_um: float,
    evidence: Sequence[Evidence],
    calibration: Calibration,
    within_um: tuple[float, float],
    prior: Prior | None = None,
    iterations: int = ROUGH_ITERATIONS,
) -> Posterior:
    """The `posterior` of a focus that is known to lie near a z, and is not looked for elsewhere."""
    z_um = np.unique(_around(near_um, _coarse_um(within_um)))
    comparison = _compared(z_um, evidence, calibration, 0.0, iterations)
    return _weighed(z_um, comparison, evidence, calibration, prior)


def _refined(coarse: Posterior, fine: Posterior) -> Posterior:
    """The coarse one, its mode as the fine one has it.

    Of how probable the mode is the coarse one tells: its places stand for all up to the next, as is fair to all modes.
    """
    outside = (coarse.z_um < fine.z_um[0]) | (coarse.z_um > fine.z_um[-1])
    z_um = np.concatenate([coarse.z_um[outside], fine.z_um])
    mass = coarse.weight[~outside].sum()
    density = np.concatenate([coarse.density[outside], mass * fine.density])
    log_object = np.concatenate([coarse.log_object[outside], fine.log_object])
    order = np.argsort(z_um)
    return _of_density(z_um[order], density[order], log_object[order], fine.misfit)


def _of_density(z_um: Array, density: Array, log_object: Array, misfit: float) -> Posterior:
    weight = density * np.gradient(z_um)
    return Posterior(z_um, weight / weight.sum(), log_object, misfit)


def _coarse_um(within_um: tuple[float, float]) -> Array:
    """Where the focus may lie, evenly spaced."""
    return np.linspace(*within_um, COARSE_STEPS)


def _around(z_um: float, coarse_um: Array) -> Array:
    """Positions closer together, inside the range of the coarse ones."""
    reach_um = 3 * (coarse_um[1] - coarse_um[0])
    fine_um = z_um + np.linspace(-reach_um, reach_um, FINE_STEPS)
    return np.asarray(fine_um.clip(coarse_um[0], coarse_um[-1]))


def _compared(
    z_um: Array,
    evidence: Sequence[Evidence],
    calibration: Calibration,
    spacing_um: float,
    iterations: int = ITERATIONS,
) -> Comparison:
    frames_um, spectra = np.array([e.z_um for e in evidence]), [e.spectrum for e in evidence]
    return compare(frames_um, spectra, calibration.transfer, z_um, spacing_um, iterations)


def _weighed(
    z_um: Array,
    comparison: Comparison,
    evidence: Sequence[Evidence],
    calibration: Calibration,
    prior: Prior | None,
) -> Posterior:
    misfit = float(misfit_of(comparison, len(evidence)))
    tempered = float(tempered_misfit_of(comparison, len(evidence)))
    log_weight = -0.5 * comparison.chi2 / (tempered * CORRELATED_BANDS)
    log_weight += log_scores(np.subtract.outer([e.z_um for e in evidence], z_um), evidence, calibration)
    if prior:
        log_weight += log_prior(z_um, prior, float(np.ptp(z_um)))
    return _of_density(z_um, np.exp(log_weight - log_weight.max()), comparison.log_object, misfit)


def misfit_of(comparison: Comparison, frames: int) -> Array:
    """χ² per value at its best, (…), at least 1; a run that the transfer explains badly counts for less."""
    return np.maximum(1.0, raw_misfit_of(comparison, frames))


def tempered_misfit_of(comparison: Comparison, frames: int) -> Array:
    """χ² per value at its best, (…), as the errors are to be scaled by: below 1 they are smaller than they are taken to
    be, which few values do not prove."""
    freedom, raw = _freedom(comparison, frames), raw_misfit_of(comparison, frames)
    return np.asarray(np.maximum(raw, (raw * freedom + _TEMPERING) / (freedom + _TEMPERING)))


def raw_misfit_of(comparison: Comparison, frames: int) -> Array:
    """χ² per value at its best, (…); below 1 the errors are smaller than they are taken to be."""
    return np.asarray(comparison.chi2.min(-1) / _freedom(comparison, frames))


def _freedom(comparison: Comparison, frames: int) -> Array:
    """How many values are free to disagree, (…)."""
    return np.asarray(np.maximum(1.0, comparison.bands.mean(-1) * (frames - 1)))


def log_scores(defocus_um: Array, evidence: Sequence[Evidence], calibration: Calibration) -> Array:
    """Logarithm of the likelihood of the scores, (…); those of one field err together, so that all count as one.

    Args:
        defocus_um: (frames, …) of each frame.
    """
    scored = [frame for frame, e in enumerate(evidence) if e.b is not None]
    defocus = defocus_um[scored].reshape(len(scored), -1)
    difference = calibration.excess(np.array([[evidence[frame].b] for frame in scored]), defocus)
    variance = np.array([[evidence[frame].sigma ** 2 + CURVE_ERROR**2] for frame in scored])
    log = -0.5 * (SCORE_FREEDOM + 1) * np.log1p(difference**2 / variance / SCORE_FREEDOM)
    return np.asarray(log.mean(0).reshape(defocus_um.shape[1:]))


def log_prior(z_um: Array, prior: Prior, range_um: float, anywhere: Array | float = UNIFORM_SHARE) -> Array:
    """Logarithm of the probability per µm of the focus before the first exposure.

    Args:
        range_um: that of all places where the focus may lie.
        anywhere: probability that the prior says nothing, and the focus may lie in any of them.
    """
    known = np.exp(-0.5 * ((z_um - prior.focus_um) / prior.sigma_um) ** 2) / prior.sigma_um
    return np.log((1 - anywhere) * known + anywhere / range_um)
