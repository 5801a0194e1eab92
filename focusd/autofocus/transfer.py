"""b_calib(z) once more, per spatial frequency: how much power passes at a defocus (DESIGN §3).

Frames of one run show the same object, so the ratio of their power spectra at a frequency is that of the
instrument's |H(f, z)|², whatever the object. The calibration stack shows one object too, so that its own spectra
are this transfer but for a factor per frequency, which every comparison drops. It holds whatever the instrument
does: partial coherence, aberrations, gamma, the camera's own filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from focusd.autofocus.observation import Spectrum

Array = NDArray[np.float64]

TRANSFER_ERROR = 0.05
"""Relative error of the transfer from one sample to the next: anisotropic objects, leakage of the window."""
LEAKAGE = 0.05
"""Share of the power by which a band exceeds its neighbour that the window leaks into that: zeros of the transfer
are filled by as much of the object as lies beside them."""
NOISE_ERROR = 0.05
"""Relative error of the noise's power, which is never quite white."""

ITERATIONS = 5
"""Of the fit of an object to its spectra: what is left then moves no χ² by a thousandth."""
ROUGH_ITERATIONS = 2
"""Enough to tell which candidate is the best."""
_LARGEST_STEP = 3.0
_LEAST_SIGNAL = 0.02
"""Of the noise: a smaller signal cannot be told from none."""
_LARGEST_LOG = 60.0
_MOST_IN_BAND = 0.3
"""Beyond that it is noise that makes the slopes."""
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Transfer:
    """Relative power against defocus and frequency, from a calibration stack.

    Attributes:
        z_um: (planes,) defocus, ascending.
        log_power: (planes, bands) natural logarithm of the power without the noise's, up to a constant per band.
        error: (planes, bands) its standard deviation from the stack's own noise.
    """

    z_um: Array
    log_power: Array
    error: Array

    @classmethod
    def of_stack(cls, z_um: Array, spectra: Sequence[Spectrum]) -> Transfer:
        """The transfer that a stack shows.

        Args:
            z_um: (planes,) defocus, ascending.
            spectra: one a plane.
        """
        power = np.stack([s.power for s in spectra])
        noise = min(s.noise for s in spectra)
        deviation = noise * np.sqrt(1 / spectra[0].modes)
        signal = np.maximum(power - noise, np.maximum(deviation, _LEAST_SIGNAL * noise))
        error = np.hypot(deviation / signal, _leakage(signal))
        return cls(z_um, np.log(signal) - np.log(signal).max(0), error)

    @property
    def tables(self) -> tuple[Array, Array]:
        """Logarithm of the power and its deviation, on the planes."""
        return self.log_power, self.error

    def at(self, defocus_um: Array) -> tuple[Array, Array]:
        """Logarithm of the transfer and its deviation at any defocus, (…, bands); constant beyond the stack."""
        both = self._interpolator(np.clip(defocus_um, self.z_um[0], self.z_um[-1]))
        return both[..., 0, :], both[..., 1, :]

    @cached_property
    def _interpolator(self) -> PchipInterpolator:
        return PchipInterpolator(self.z_um, np.stack([self.log_power, self.error], axis=1))


@dataclass(frozen=True)
class Comparison:
    """How well each candidate for the focus explains the spectra of a run, of one object or of several (…).

    Attributes:
        chi2: (…, candidates) squared residuals over their variance.
        log_object: (…, candidates, bands) logarithm of the object's own spectrum under each candidate.
        bands: (…, candidates) how many of them hold more signal than noise in some frame.
        residuals: (frames, …, candidates, bands) in units of their standard deviation.
    """

    chi2: Array
    log_object: Array
    bands: Array
    residuals: Array

    def joined(self, other: Comparison, order: NDArray[np.intp]) -> Comparison:
        """The candidates of both comparisons, of one object, in an order of their own."""
        return Comparison(
            np.concatenate([self.chi2, other.chi2])[order],
            np.concatenate([self.log_object, other.log_object])[order],
            np.concatenate([self.bands, other.bands])[order],
            np.concatenate([self.residuals, other.residuals], axis=1)[:, order],
        )


def compare(
    z_um: Array,
    spectra: Sequence[Spectrum],
    transfer: Transfer,
    candidates_um: Array,
    iterations: int = ITERATIONS,
) -> Comparison:
    """Explain power = object · transfer(z − focus) + noise for each candidate; the object is whatever fits best.

    Args:
        z_um: (frames,) where the frames were exposed; one frame fits every candidate.
        spectra: of the frames, of the same blocks.
        candidates_um: (candidates,) positions of the focus.
        iterations: of the fit of the object.
    """
    power = np.stack([s.power for s in spectra])[:, None, :]
    noise = np.array(min(s.noise for s in spectra))
    transferred = transfer.at(np.subtract.outer(z_um, candidates_um))
    return explain(power, noise, spectra[0].modes, spectra[0].spread, *transferred, iterations)


def explain(
    power: Array,
    noise: Array,
    modes: Array,
    spread: Array,
    log_t: Array,
    error: Array,
    iterations: int = ITERATIONS,
) -> Comparison:
    """`compare` for one object or many, (frames, …, candidates, bands) or what broadcasts to that.

    Args:
        power: of the frames.
        noise: its power, the same in all frames.
        modes, spread: of the bands, as in `Spectrum`.
        log_t, error: the transfer under each candidate.
        iterations: of the fit of the object.
    """
    measured = np.log(power)
    log_object = _first_guess(measured, noise, log_t)
    log_t = log_t + _in_band(log_object, log_t, spread)
    for _ in range(iterations):
        residual, weight, share = _residual(measured, noise, modes, log_t, error, log_object)
        step = (weight * share * residual).sum(0) / ((weight * share**2).sum(0) + 1e-3)
        log_object = log_object + step.clip(-_LARGEST_STEP, _LARGEST_STEP)
    residual, weight, share = _residual(measured, noise, modes, log_t, error, log_object)
    standard = residual * np.sqrt(weight)
    told = (share.max(0) > 0.5).sum(-1)
    return Comparison((standard**2).sum((0, -1)), log_object, told, standard)


def _leakage(signal: Array) -> Array:
    """Relative error of the signal, (planes, bands), by leakage from the stronger neighbour."""
    beside = np.pad(signal, ((0, 0), (1, 1)), mode="edge")
    stronger = np.maximum(beside[:, :-2], beside[:, 2:])
    return np.asarray(LEAKAGE * (stronger / signal - 1).clip(0))


def _first_guess(measured: Array, noise: Array, log_t: Array) -> Array:
    """Object's spectrum from each frame's signal, weighted by the signal's share of the power."""
    power = np.exp(measured)
    signal = np.maximum(power - noise, _LEAST_SIGNAL * noise)
    weight = (signal / power) ** 2
    return np.asarray(((np.log(signal) - log_t) * weight).sum(0) / weight.sum(0))


def _in_band(log_object: Array, log_t: Array, spread: Array) -> Array:
    """What the slopes of object and transfer across a band add to the logarithm of its mean power.

    Of a steep object a band shows its lower frequencies, where more is transferred; calibrated was another object.
    """
    slopes = np.gradient(log_object, axis=-1) * np.gradient(log_t, axis=-1)
    return np.asarray((spread * slopes).clip(-_MOST_IN_BAND, _MOST_IN_BAND))


def _residual(
    measured: Array, noise: Array, modes: Array, log_t: Array, error: Array, log_object: Array
) -> tuple[Array, Array, Array]:
    """Of the logarithm of the power, (frames, candidates, bands): residual, weight, and the signal's share."""
    expected, variance, share = _expected(log_object + log_t, error, noise, modes)
    return measured - expected, 1 / variance, share


def _expected(
    log_signal: Array, error: Array, noise: Array | float, modes: Array
) -> tuple[Array, Array, Array]:
    """Of the logarithm of signal and noise together: value, variance, and the signal's share of the power."""
    signal = np.exp(log_signal.clip(-_LARGEST_LOG, _LARGEST_LOG))
    share = signal / (signal + noise)
    from_object = (TRANSFER_ERROR**2 + error**2) * share**2
    from_noise = (1 - share**2) / modes + (NOISE_ERROR * (1 - share)) ** 2
    return np.log(signal + noise), from_object + from_noise + _LEAST_VARIANCE, share


def distances(log_object: Array, noise: float, modes: Array, transfer: Transfer, defocus_um: Array) -> Array:
    """χ² by which one more frame would tell each pair of hypotheses apart, (probes, hypotheses, hypotheses).

    Args:
        log_object: (hypotheses, bands) the object under each hypothesis.
        defocus_um: (probes, hypotheses) of the frame under each hypothesis.
    """
    log_t, error = transfer.at(defocus_um)
    expected, variance, _ = _expected(log_object + log_t, error, noise, modes)
    return np.stack([_chi2_of_pairs(*each) for each in zip(expected, variance, strict=True)])


def _chi2_of_pairs(expected: Array, variance: Array) -> Array:
    """Between each two of the hypotheses, (hypotheses, hypotheses); of one probe alone it fits into a core's cache."""
    difference = expected[:, None, :] - expected[None, :, :]
    scaled = variance[:, None, :] + variance[None, :, :]
    return np.asarray((2 * difference**2 / scaled).sum(-1))
