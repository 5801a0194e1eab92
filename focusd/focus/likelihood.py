"""The likelihood of a focus: how well a calibrated transfer and one object, unknown, explain the frames of a run.

Frame k, exposed at z_k, has the power

    log P_k(f) = log( O(f) · T(f, z_k − z₀) · exp(Σ_n c_kn · s_n(f)) + N_k ) + ε_k(f)

with the object O, the transfer T, the focus z₀, and the noise N_k. Each frame differs from the others as a whole, too:
its lamp was brighter, or the microscope shook while it was exposed. The nuisances s_n(f) say by how much, in standard
deviations of the logarithm of the power; c_kn is standard normal. The focus counts for

    χ²(z₀) = min over O and c of   Σ_k Σ_f ε_k(f)² / v_k(f)  +  Σ_k Σ_n c_kn²

The variance v of a value that is signal to a share s comes from the transfer's error, from the number of independent
Fourier modes m behind it, and from what is not known of the noise: v(s) = s²·ε_T² + (1 − s²)/m + (1 − s)²·ε_N².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusd.focus.measurement import Spectrum
from focusd.focus.transfer import LEAST_SIGNAL, Transfer, noise_of
from focusd.optics.bands import NOISE_ERROR

Array = NDArray[np.float64]

CORRELATED_BANDS = 6.0
"""Neighbouring bands err together, by the same leakage and the same anisotropy: so many count as one."""
ITERATIONS = 5
"""Of the fit of an object to its spectra: what is left then moves no χ² by a thousandth."""
ROUGH_ITERATIONS = 2
"""Enough to tell which candidate is the best."""
LEAST_ERROR = 0.01
"""Relative error of the transfer where it has no slope at all: objects are not isotropic, and pupils hardly ever quite
round. Between 0.005 and 0.02 the error of a search at 10×/0.3 changes by half, the exposures by 0.1 (tuning)."""
_LARGEST_STEP = 3.0
_LARGEST_LOG = 60.0
_MOST_IN_BAND = 0.3
"""Beyond that it is noise that makes the slopes."""
_LEAST_VARIANCE = 1e-6
_OBJECT_KNOWN = 1e-3
"""Inverse variance of the logarithm of an object's power in a band, before any frame has shown it."""


@dataclass(frozen=True)
class Comparison:
    """How well each candidate for the focus explains the spectra of a run, of one object or of several (…).

    Attributes:
        chi2: (…, candidates) squared residuals over their variance.
        log_object: (…, candidates, bands) logarithm of the object's own spectrum under each candidate.
        bands: (…, candidates) how many of them hold more signal than noise in some frame.
        residuals: (frames, …, candidates, bands) in units of their standard deviation.
        nuisances: (frames · nuisances, …, candidates) size of each in each frame, in standard deviations.
        log_variance: (…, candidates) sum over all values of the logarithm of the variance that a candidate expects: one
            that expects little explains more, and is to be believed less for it.
    """

    chi2: Array
    log_object: Array
    bands: Array
    residuals: Array
    nuisances: Array
    log_variance: Array


def compare(
    z_um: Array,
    spectra: Sequence[Spectrum],
    transfer: Transfer,
    candidates_um: Array,
    spacing_um: float = 0.0,
    iterations: int = ITERATIONS,
) -> Comparison:
    """Explain power = object · transfer(z − focus) + noise for each candidate; the object is whatever fits best.

    Args:
        z_um: (frames,) where the frames were exposed; one frame fits every candidate.
        spectra: of the frames, of the same blocks.
        candidates_um: (candidates,) positions of the focus.
        spacing_um: of candidates that stand for all positions up to the next one.
        iterations: of the fit of the object.
    """
    return compare_at(
        np.subtract.outer(z_um, candidates_um), spectra, transfer, spacing_um / 2, iterations=iterations
    )


def compare_at(
    defocus_um: Array,
    spectra: Sequence[Spectrum],
    transfer: Transfer,
    spread_um: Array | float = 0.0,
    *,
    iterations: int = ITERATIONS,
) -> Comparison:
    """`compare` for candidates that say the defocus of each frame themselves.

    Args:
        defocus_um: (frames, …) of each frame under each candidate.
        spread_um: how far from that the real one may be, as for `Transfer.at`.
    """
    of_frames = (len(spectra),) + (1,) * (defocus_um.ndim - 1)
    power = np.stack([s.power for s in spectra]).reshape(*of_frames, -1)
    noise = noise_of(spectra).reshape(*of_frames, 1)
    bands = spectra[0].modes, spectra[0].spread
    transferred = transfer.at(defocus_um, spread_um)
    given = power, noise, *bands, *transferred, transfer.log_object, transfer.nuisances
    return explain(*singles(*given), noise_error=spectra[0].noise_error, iterations=iterations)


def singles(*parts: Array) -> tuple[Any, ...]:
    """In single precision: `explain` takes half the time, and moves no focus by a thousandth of its σ."""
    return tuple(part.astype(np.float32) for part in parts)


def explain(
    power: Array,
    noise: Array,
    modes: Array,
    spread: Array,
    log_t: Array,
    error: Array,
    log_calibrated: Array,
    nuisances: Array,
    *,
    noise_error: Array | float = NOISE_ERROR,
    iterations: int = ITERATIONS,
) -> Comparison:
    """`compare` for one object or many, (frames, …, candidates, bands) or what broadcasts to that.

    Args:
        power: of the frames.
        noise: its power.
        modes, spread: of the bands, as in `Spectrum`.
        log_t, error: the transfer under each candidate.
        log_calibrated: (bands,) the spectrum of the object that the transfer was taken with, up to a constant.
        nuisances: (nuisances, bands) as `Transfer.nuisances`.
        noise_error: relative error of the noise's power.
        iterations: of the fit of the object.
    """
    log_object = _first_guess(power, noise, log_t)
    log_t = log_t + _in_band(log_object - log_calibrated, log_t, spread)
    measured = _full(np.log(power), log_t)
    passed = _exp(log_t)
    variance_of = _Variance.of(error, modes, noise_error)
    for _ in range(iterations):
        residual, weight, share = _residual(measured, noise, passed, variance_of, log_object)
        shared = weight * share
        step = (shared * residual).sum(0) / ((shared * share).sum(0) + _OBJECT_KNOWN)
        log_object = log_object + step.clip(-_LARGEST_STEP, _LARGEST_STEP)
    residual, weight, share = _residual(measured, noise, passed, variance_of, log_object)
    sizes, left = _nuisances(residual, weight, share, nuisances)
    standard = left * np.sqrt(weight)
    told = (share.max(0) > 0.5).sum(-1)
    chi2 = np.einsum("f...b,f...b->...", standard, standard) + (sizes**2).sum(0)
    return Comparison(chi2, log_object, told, standard, sizes, -np.log(weight).sum((0, -1)))


def _nuisances(residual: Array, weight: Array, share: Array, nuisances: Array) -> tuple[Array, Array]:
    """What the nuisances explain of the residuals (frames, …, bands), by least squares.

    Returns:
        The size of each nuisance in each frame, (frames · nuisances, …), in standard deviations, and what they leave of
        the residuals where the object gives way to them.
    """
    information = weight * share * share
    given = information / (information.sum(0) + _OBJECT_KNOWN)
    kinds, frames = len(nuisances), len(residual)
    coupled = np.empty((*residual.shape[1:-1], kinds, frames, kinds, frames), residual.dtype)
    for one, other in np.ndindex(kinds, kinds):
        both = nuisances[one] * nuisances[other]
        of_pair = -np.einsum("f...b,g...b->...fg", given * both, information)
        diagonal = np.arange(frames)
        of_pair[..., diagonal, diagonal] += np.moveaxis((information * both).sum(-1), 0, -1) + (one == other)
        coupled[..., one, :, other, :] = of_pair
    wanted = np.stack(
        [np.moveaxis((weight * share * residual * each).sum(-1), 0, -1) for each in nuisances], -2
    )
    values = kinds * frames
    square = coupled.reshape(*residual.shape[1:-1], values, values)
    sizes = np.linalg.solve(square, wanted.reshape(*wanted.shape[:-2], values, 1))[..., 0]
    of_frames = np.moveaxis(sizes.reshape(wanted.shape), -1, 0)
    brighter = np.einsum("f...n,nb->f...b", of_frames, nuisances)
    brighter -= np.einsum("f...b,f...b->...b", given, brighter)
    return np.moveaxis(sizes, -1, 0), residual - share * brighter


def _first_guess(power: Array, noise: Array, log_t: Array) -> Array:
    """Object's spectrum from each frame's signal, weighted by the signal's share of the power."""
    signal = np.maximum(power - noise, LEAST_SIGNAL * noise)
    weight = (signal / power) ** 2
    return np.asarray(((np.log(signal) - log_t) * weight).sum(0) / weight.sum(0))


def _in_band(log_object: Array, log_t: Array, spread: Array) -> Array:
    """What the slopes of object and transfer across a band add to the logarithm of its mean power.

    Of a steep object a band shows its lower frequencies, where more is transferred. The object is that of the frames
    over the calibrated one, whose slope the transfer holds already.
    """
    slopes = np.gradient(log_object, axis=-1) * np.gradient(log_t, axis=-1)
    return np.asarray((spread * slopes).clip(-_MOST_IN_BAND, _MOST_IN_BAND))


def _full(values: Array, like: Array) -> Array:
    """In the shape of others: steps between equal shapes take half the time of those that repeat a few bands."""
    return np.broadcast_to(values, like.shape).copy()


@dataclass(frozen=True)
class _Variance:
    """Variance of the logarithm of the power, by the share s of it that is signal.

    object · s² + (1 − s²) / modes + noise² · (1 − s)², in half as many steps: it is worked out again for each guess of
    the object.
    """

    of_noise: Array
    curved: Array
    twice: NDArray[np.float32]

    @classmethod
    def of(cls, error: Array, modes: Array, noise_error: Array | float) -> _Variance:
        """Of a transfer's error and the noise's; `_LEAST_VARIANCE` on top."""
        twice = 2 * np.square(np.asarray(noise_error, dtype=np.float32))
        of_noise = _full(1 / modes + (twice / 2 + np.float32(_LEAST_VARIANCE)), error)
        of_object = error**2 + (np.float32(LEAST_ERROR**2 + _LEAST_VARIANCE) + twice)
        return cls(of_noise, of_object - of_noise, twice)

    def __call__(self, share: Array) -> Array:
        """At these shares."""
        return (self.curved * share - self.twice) * share + self.of_noise


def _residual(
    measured: Array, noise: Array, passed: Array, variance_of: _Variance, log_object: Array
) -> tuple[Array, Array, Array]:
    """Of the logarithm of the power, (frames, candidates, bands): residual, weight, and the signal's share.

    Args:
        passed: share of the object's power that each frame shows.
    """
    expected, variance, share = _expected(_exp(log_object) * passed, noise, variance_of)
    return measured - expected, 1 / variance, share


def _exp(log_power: Array) -> Array:
    """Power, not beyond what single precision can hold."""
    return np.asarray(np.exp(log_power.clip(-_LARGEST_LOG, _LARGEST_LOG)))


def _expected(signal: Array, noise: Array | float, variance_of: _Variance) -> tuple[Array, Array, Array]:
    """Of the logarithm of signal and noise together: value, variance, and the signal's share of the power."""
    power = signal + noise
    share = signal / power
    return np.log(power), variance_of(share), share


def distances(log_object: Array, like: Spectrum, transfer: Transfer, defocus_um: Array) -> Array:
    """χ² by which one more frame would tell each pair of hypotheses apart, (probes, hypotheses, hypotheses).

    Args:
        log_object: (hypotheses, bands) the object under each hypothesis.
        like: a frame of the same noise.
        defocus_um: (probes, hypotheses) of the frame under each hypothesis.
    """
    given = log_object, like.modes, *transfer.at(defocus_um), transfer.nuisances
    log_object, modes, log_t, error, nuisances = singles(*given)
    variance_of = _Variance.of(error, modes, like.noise_error)
    expected, variance, _ = _expected(_exp(log_object + log_t), like.noise, variance_of)
    return np.stack([_chi2_of_pairs(*each, nuisances) for each in zip(expected, variance, strict=True)])


def _chi2_of_pairs(expected: Array, variance: Array, nuisances: Array) -> Array:
    """Between each two of the hypotheses, (hypotheses, hypotheses); of one probe alone it fits into a core's cache."""
    one, other = np.triu_indices(len(expected), 1)
    difference = expected.take(one, 0) - expected.take(other, 0)
    weight = 2 / (variance.take(one, 0) + variance.take(other, 0))
    weighted = weight * difference
    wanted = weighted @ nuisances.T
    kinds = len(nuisances)
    products = (nuisances[:, None] * nuisances).reshape(kinds**2, -1)
    known = (weight @ products.T).reshape(-1, kinds, kinds) + np.eye(kinds, dtype=weight.dtype)
    explained = np.einsum("pn,pn->p", wanted, np.linalg.solve(known, wanted[..., None])[..., 0])
    chi2 = np.zeros((len(expected), len(expected)), expected.dtype)
    chi2[one, other] = chi2[other, one] = np.einsum("pb,pb->p", weighted, difference) - explained
    return chi2
