"""b_calib(z) once more, per spatial frequency: how much power passes at a defocus.

Frames of one run show the same object, so the ratio of their power spectra at a frequency is that of the
instrument's |H(f, z)|², whatever the object. The calibration stack shows one object too, so that its own spectra
are this transfer but for a factor per frequency, which every comparison drops. It holds whatever the instrument
does: partial coherence, aberrations, gamma, the camera's own filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from focusd.focus.measurement import Spectrum, common_noise
from focusd.optics.bands import NOISE_ERROR

Array = NDArray[np.float64]

CORRELATED_BANDS = 6.0
"""Neighbouring bands err together, by the same leakage and the same anisotropy: so many count as one."""
BAND_ERROR = 0.4
"""What of a band's width counts: which of its frequencies an object holds more of, no mean tells, and they pass
differently. So many standard deviations of |f|, times the steeper slope of the transfer to a neighbouring band, is the
error (0.21 to 0.30 on training textures, near the focus and far from it, of real optics and ideal ones; more of objects
with a few strong lines)."""
ASTIGMATISM = 0.01
"""How far apart, in λ·n/NA², the foci of two directions may lie: an object need not hold all directions alike."""
LEAST_ERROR = 0.002
"""Relative error of the transfer where it has no slope at all."""
CLOSE_UNITS = 0.7
"""Planes of a stack so close, in λ·n/NA², show all of the transfer's rise and fall near the focus."""
DIMMING = 0.05
"""Standard deviation of the logarithm of a frame's power as a whole: lamps flicker and dyes bleach."""
ITERATIONS = 5
"""Of the fit of an object to its spectra: what is left then moves no χ² by a thousandth."""
ROUGH_ITERATIONS = 2
"""Enough to tell which candidate is the best."""
_LARGEST_STEP = 3.0
_LEAST_SIGNAL = 0.02
"""Of the noise: a smaller signal cannot be told from none."""
_LARGEST_LOG = 60.0
_GAP_SHARE = 8.0
"""Twice as close, the planes miss so much less, at least."""
_DEEPEST = 1.0
"""By so much at most, in the logarithm, the power falls between planes below what these tell of its logarithm."""
_DEEPEST_MISSED = 4.0
"""Where every other plane is left out: it shows how far they mislead."""
_DOUBT = 0.5
"""Share of what the two ways to interpolate differ by that is an error: of planes 0.35 to 0.7 axial units apart the
residuals are within 4 standard deviations, with more of them they were 15 and more."""
_DEPTHS = 9
"""Of a thick sample, that stand for all."""
_UNEVEN = 0.2
"""By so much of what its extent changes a thick sample differs from an even one."""
_MOST_IN_BAND = 0.3
"""Beyond that it is noise that makes the slopes."""
_LEAST_VARIANCE = 1e-6
_OBJECT_KNOWN = 1e-3
"""Inverse variance of the logarithm of an object's power in a band, before any frame has shown it."""


@dataclass(frozen=True)
class Transfer:
    """Relative power against defocus and frequency, from a calibration stack.

    Attributes:
        z_um: (planes,) defocus, ascending.
        log_power: (planes, bands) natural logarithm of the power without the noise's, up to a constant per band.
        error: (planes, bands) its standard deviation, by the stack's own noise, the width of the bands, and what may
            pass between two planes.
        log_object: (bands,) that constant, in the plane where most passes: the spectrum of the calibrated object.
        axial_unit_um: λ·n/NA².
    """

    z_um: Array
    log_power: Array
    error: Array
    log_object: Array
    axial_unit_um: float

    @classmethod
    def of_stack(
        cls, z_um: Array, spectra: Sequence[Spectrum], axial_unit_um: float, scatter: Array | float = 0.0
    ) -> Transfer:
        """The transfer that a stack shows.

        Args:
            z_um: (planes,) defocus, ascending.
            spectra: one a plane.
            axial_unit_um: λ·n/NA².
            scatter: (bands,) relative error of a plane by what changes from exposure to exposure, as vibration does.
        """
        signal, deviation = _signal(spectra)
        log_object = np.log(signal).max(0)
        log_power = np.log(signal) - log_object
        error = np.hypot(deviation / signal, band_error(log_power, spectra[0].spread))
        error = np.hypot(np.hypot(error, scatter), _gap_error(z_um, log_power, axial_unit_um))
        return cls(z_um, log_power, error, log_object, axial_unit_um)

    def thickened(self, extent_um: float) -> Transfer:
        """Return the transfer of a sample that extends so far along z, and shows other things at each depth."""
        if extent_um == 0:
            return self
        depths_um = extent_um * ((np.arange(_DEPTHS) + 0.5) / _DEPTHS - 0.5)
        power = np.exp(self.at(self.z_um[:, None] + depths_um)[0]).mean(1)
        log_power = np.log(power)
        error = np.hypot(self.error, _UNEVEN * np.abs(log_power - self.log_power))
        return replace(self, log_power=log_power, error=error)

    def at(self, defocus_um: Array, spread_um: Array | float = 0.0) -> tuple[Array, Array]:
        """Logarithm of the transfer and its deviation at any defocus, (…, bands).

        Beyond the stack it is that of the stack's end, and the less certain the further away.

        Args:
            spread_um: how far from the stated defocus the real one may be.
        """
        inside_um = np.clip(defocus_um, self.z_um[0], self.z_um[-1])
        known_um = np.hypot(ASTIGMATISM * self.axial_unit_um, spread_um)
        blur_um = np.hypot(defocus_um - inside_um, known_um)
        monotone, error, slope = np.moveaxis(self._monotone(inside_um), -2, 0)
        log_t = _log_power(self._power, inside_um, monotone)
        doubt = _DOUBT * (log_t - monotone)
        return log_t, np.sqrt(error**2 + doubt**2 + (blur_um[..., None] * slope) ** 2)

    @cached_property
    def _power(self) -> CubicSpline | None:
        return _power_between(self.z_um, self.log_power, self.axial_unit_um)

    @cached_property
    def _monotone(self) -> PchipInterpolator:
        """Logarithm of the power, its error, and its slope along z."""
        slope = np.gradient(self.log_power, self.z_um, axis=0)
        return PchipInterpolator(self.z_um, np.stack([self.log_power, self.error, slope], axis=1))


def _power_between(z_um: Array, log_power: Array, axial_unit_um: float) -> CubicSpline | None:
    """The power between planes; None where they lie so far apart that its logarithm tells it better."""
    is_close = np.median(np.diff(z_um)) <= CLOSE_UNITS * axial_unit_um
    return CubicSpline(z_um, np.exp(log_power)) if is_close else None


def _log_power(power: CubicSpline | None, at_um: Array, monotone: Array, deepest: float = _DEEPEST) -> Array:
    """Logarithm of the power between planes, (…, bands).

    Where these are close, of the power itself: it is smooth also where it vanishes, on either side of the focus. That
    it does so between two planes they can tell only roughly.

    Args:
        monotone: interpolation of its logarithm.
        deepest: by so much at most the power falls below that, in its logarithm.
    """
    if power is None:
        return monotone
    return np.asarray(np.log(np.maximum(power(at_um), np.exp(monotone - deepest))))


def _gap_error(z_um: Array, log_power: Array, axial_unit_um: float) -> Array:
    """Error between planes, (planes, bands): by how much each is missed where every other one is left out."""
    missed = np.zeros_like(log_power)
    for first in (1, 2):
        left_out = slice(first, len(z_um) - 1, 2)
        kept = np.delete(np.arange(len(z_um)), left_out)
        power = _power_between(z_um[kept], log_power[kept], 2 * axial_unit_um)
        monotone = PchipInterpolator(z_um[kept], log_power[kept])(z_um[left_out])
        found = _log_power(power, z_um[left_out], monotone, _DEEPEST_MISSED)
        missed[left_out] = found - log_power[left_out]
    return np.abs(missed) / _GAP_SHARE


def log_signal(spectra: Sequence[Spectrum]) -> Array:
    """Natural logarithm of the power without the noise's, (frames, bands)."""
    return np.asarray(np.log(_signal(spectra)[0]))


def signal_error(spectra: Sequence[Spectrum]) -> Array:
    """Relative standard deviation of `log_signal` by noise, (frames, bands)."""
    signal, deviation = _signal(spectra)
    return np.asarray(deviation / signal)


def noise_of(spectra: Sequence[Spectrum]) -> Array:
    """Power of the noise, (frames,)."""
    return common_noise(np.array([s.noise for s in spectra]))


def _signal(spectra: Sequence[Spectrum]) -> tuple[Array, Array]:
    """Power without the noise's, and its standard deviation, (frames, bands)."""
    power, noise = np.stack([s.power for s in spectra]), noise_of(spectra)[:, None]
    least = noise * np.maximum(np.sqrt(1 / spectra[0].modes), _LEAST_SIGNAL)
    signal = np.maximum(power - noise, least)
    return signal, np.sqrt((noise**2 + 2 * noise * signal) / spectra[0].modes)


def band_error(log_t: Array, spread: Array) -> Array:
    """Relative error of a transfer (…, bands) by the width of its bands.

    Args:
        spread: of the bands, as in `Spectrum`.
    """
    step = np.abs(np.diff(log_t, axis=-1))
    to_left, to_right = (
        np.concatenate(both, axis=-1) for both in ((step[..., :1], step), (step, step[..., -1:]))
    )
    return np.asarray(BAND_ERROR * np.maximum(to_left, to_right) * np.sqrt(spread))


@dataclass(frozen=True)
class Comparison:
    """How well each candidate for the focus explains the spectra of a run, of one object or of several (…).

    Attributes:
        chi2: (…, candidates) squared residuals over their variance.
        log_object: (…, candidates, bands) logarithm of the object's own spectrum under each candidate.
        bands: (…, candidates) how many of them hold more signal than noise in some frame.
        residuals: (frames, …, candidates, bands) in units of their standard deviation.
        brightness: (frames, …, candidates) of each frame, in units of what is expected (`DIMMING`).
        log_variance: (…, candidates) sum over all values of the logarithm of the variance that a candidate expects: one
            that expects little explains more, and is to be believed less for it.
    """

    chi2: Array
    log_object: Array
    bands: Array
    residuals: Array
    brightness: Array
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
    given = power, noise, *bands, *transferred, transfer.log_object
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
    brightness, given_way = _brightness(residual, weight, share)
    standard = (residual - share * (brightness[..., None] - given_way)) * np.sqrt(weight)
    relative = brightness / DIMMING
    told = (share.max(0) > 0.5).sum(-1)
    chi2 = np.einsum("f...b,f...b->...", standard, standard) + (relative**2).sum(0)
    return Comparison(chi2, log_object, told, standard, relative, -np.log(weight).sum((0, -1)))


def _brightness(residual: Array, weight: Array, share: Array) -> tuple[Array, Array]:
    """What frames that are brighter as a whole explain of the residuals (frames, …, bands), by least squares.

    Returns:
        The logarithm by which each frame is brighter, (frames, …), and by which the object is the less bright for it in
        each band, (…, bands).
    """
    shared = weight * share
    information = shared * share
    of_object = information.sum(0) + _OBJECT_KNOWN
    given = information / of_object
    coupled = -np.einsum("f...b,g...b->...fg", given, information)
    frames = np.arange(len(residual))
    coupled[..., frames, frames] += np.moveaxis(information.sum(-1), 0, -1) + DIMMING**-2
    wanted = np.einsum("f...b,f...b->...f", shared, residual)
    brightness = np.moveaxis(np.linalg.solve(coupled, wanted[..., None])[..., 0], -1, 0)
    return brightness, np.einsum("f...b,f...->...b", given, brightness)


def _first_guess(power: Array, noise: Array, log_t: Array) -> Array:
    """Object's spectrum from each frame's signal, weighted by the signal's share of the power."""
    signal = np.maximum(power - noise, _LEAST_SIGNAL * noise)
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
    log_object, modes, log_t, error = singles(log_object, like.modes, *transfer.at(defocus_um))
    variance_of = _Variance.of(error, modes, like.noise_error)
    expected, variance, _ = _expected(_exp(log_object + log_t), like.noise, variance_of)
    return np.stack([_chi2_of_pairs(*each) for each in zip(expected, variance, strict=True)])


def _chi2_of_pairs(expected: Array, variance: Array) -> Array:
    """Between each two of the hypotheses, (hypotheses, hypotheses); of one probe alone it fits into a core's cache."""
    one, other = np.triu_indices(len(expected), 1)
    difference = expected.take(one, 0) - expected.take(other, 0)
    weight = 2 / (variance.take(one, 0) + variance.take(other, 0))
    weighted = weight * difference
    of_brightness = weighted.sum(-1) ** 2 / (weight.sum(-1) + DIMMING**-2)
    chi2 = np.zeros((len(expected), len(expected)), expected.dtype)
    chi2[one, other] = chi2[other, one] = np.einsum("pb,pb->p", weighted, difference) - of_brightness
    return chi2
