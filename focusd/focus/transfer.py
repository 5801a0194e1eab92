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
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from focusd.focus.measurement import Spectrum, common_noise

Array = NDArray[np.float64]

BAND_ERROR = 0.4
"""What of a band's width counts: which of its frequencies an object holds more of, no mean tells, and they pass
differently. So many standard deviations of |f|, times the steeper slope of the transfer to a neighbouring band, is the
error (0.21 to 0.30 on training textures, near the focus and far from it, of real optics and ideal ones; more of objects
with a few strong lines)."""
ASTIGMATISM = 0.01
"""How far apart, in λ·n/NA², the foci of two directions may lie: an object need not hold all directions alike."""
CLOSE_UNITS = 0.7
"""Planes of a stack so close, in λ·n/NA², show all of the transfer's rise and fall near the focus."""
LEAST_SIGNAL = 0.02
"""Of the noise: a smaller signal cannot be told from none."""
DIMMING = 0.05
"""Standard deviation of the logarithm of a frame's power as a whole: lamps flicker and dyes bleach."""
_GAP_SHARE = 8.0
"""Twice as close, the planes miss so much less, at least."""
_DEEPEST = 1.0
"""By so much at most, in the logarithm, the power falls between planes below what these tell of its logarithm."""
_DEEPEST_MISSED = 4.0
"""Where every other plane is left out: it shows how far they mislead."""
_DOUBT = 0.5
"""Share of what the two ways to interpolate differ by that is an error: of planes 0.35 to 0.7 axial units apart the
residuals are within 4 standard deviations, with more of them they were 15 and more."""
_DENSE_UNITS = 0.35
"""Of planes so close, in λ·n/NA², all interpolations tell the same."""
_MOST_PARTS = 8
"""Of the gap between two planes: the widest that a stack may have, 2 axial units, takes 6."""
_MODEL_SHARE = 4.0
"""By so much less than planes twice as far apart do those of a stack miss what a model of the optics does not know."""
_DEPTHS = 9
"""Of a thick sample, that stand for all."""
_UNEVEN = 0.2
"""By so much of what its extent changes a thick sample differs from an even one."""


class OpticalModel(Protocol):
    """What optics pass, by their physics."""

    def log_power(self, defocus_um: Array) -> Array:
        """Logarithm of what each band passes, (planes, bands)."""
        ...


@dataclass(frozen=True)
class Repeats:
    """How well an exposure repeats itself, beyond its noise.

    Attributes:
        scatter: (bands,) relative error of one exposure's power, independent from band to band.
        shaken: as in `Transfer`.
    """

    scatter: Array
    shaken: Array | None = None


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
        shaken: (ways, bands) of the logarithm of the power that shaking takes from a frame, standard deviations that
            are independent of each other; None: the microscope is steady.
    """

    z_um: Array
    log_power: Array
    error: Array
    log_object: Array
    axial_unit_um: float
    shaken: Array | None = None

    @classmethod
    def of_stack(
        cls,
        z_um: Array,
        spectra: Sequence[Spectrum],
        axial_unit_um: float,
        repeats: Repeats | None = None,
        model: OpticalModel | None = None,
    ) -> Transfer:
        """The transfer that a stack shows.

        Args:
            z_um: (planes,) defocus, ascending.
            spectra: one a plane.
            axial_unit_um: λ·n/NA².
            repeats: how well an exposure repeats itself; None: but for its noise, exactly.
            model: of the optics, which tells what passes between planes that lie far apart; None: it is interpolated.
        """
        signal, deviation = _signal(spectra)
        log_object = np.log(signal).max(0)
        log_power = np.log(signal) - log_object
        error = np.hypot(deviation / signal, band_error(log_power, spectra[0].spread))
        if repeats is not None:
            error = np.hypot(error, repeats.scatter)
        shaken = repeats.shaken if repeats else None
        if model is None:
            error = np.hypot(error, _gap_error(z_um, log_power, axial_unit_um))
            return cls(z_um, log_power, error, log_object, axial_unit_um, shaken)
        dense = _between(z_um, log_power, error, model, axial_unit_um)
        return cls(*dense, log_object, axial_unit_um, shaken)

    @cached_property
    def nuisances(self) -> Array:
        """(nuisances, bands) by how much frames differ as a whole: standard deviations of the logarithm of the power.

        Shaking takes power from the frame, and from the plane of the calibration that it is compared with.
        """
        shaken = None if self.shaken is None else np.sqrt(2) * self.shaken
        return nuisances_of(shaken, self.log_power.shape[1])

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
    return CubicSpline(z_um, np.exp(log_power)) if _are_close(z_um, axial_unit_um) else None


def _are_close(z_um: Array, axial_unit_um: float) -> bool:
    return bool(np.median(np.diff(z_um)) <= CLOSE_UNITS * axial_unit_um)


def _between(
    z_um: Array, log_power: Array, error: Array, model: OpticalModel, axial_unit_um: float
) -> tuple[Array, Array, Array]:
    """Planes between those of a stack: z, logarithm of the power, and its error.

    A model of the optics knows how the power rises and falls; by what the stack differs from it changes slowly.
    """
    parts = np.ceil(np.diff(z_um) / (_DENSE_UNITS * axial_unit_um)).clip(1, _MOST_PARTS).astype(int)
    exposed = np.concatenate([[0], np.cumsum(parts)])
    dense_um = np.interp(np.arange(exposed[-1] + 1), exposed, z_um)
    modelled = model.log_power(dense_um)
    beyond_model = log_power - modelled[exposed]
    interpolated, of_planes = np.moveaxis(
        PchipInterpolator(z_um, np.stack([beyond_model, error], axis=1))(dense_um), 1, 0
    )
    doubt = np.zeros_like(beyond_model)
    for first in (1, 2):
        left_out = slice(first, len(z_um) - 1, 2)
        kept = np.delete(np.arange(len(z_um)), left_out)
        told = PchipInterpolator(z_um[kept], beyond_model[kept])(z_um[left_out])
        doubt[left_out] = np.abs(told - beyond_model[left_out]) / _MODEL_SHARE
    doubtful = PchipInterpolator(z_um, doubt)(dense_um)
    doubtful[exposed] = 0.0
    return dense_um, modelled + interpolated, np.hypot(of_planes, doubtful)


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


def nuisances_of(shaken: Array | None, bands: int) -> Array:
    """By how much frames differ as a whole, (nuisances, bands): in brightness, and by shaking as in `Transfer`."""
    brightness = np.full((1, bands), DIMMING)
    return brightness if shaken is None else np.vstack([brightness, shaken])


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
    least = noise * np.maximum(np.sqrt(1 / spectra[0].modes), LEAST_SIGNAL)
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
