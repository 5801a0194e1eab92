"""The origin of a calibration: the plane of the pupil's zero defocus, which is that of the highest Strehl ratio.

The sharpest plane is not it: with spherical aberration it moves by some tenths of a µm from sample to sample. A
model of the pupil, fitted to the spectra of the stack near the focus, tells the two apart.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from focusd.focus.likelihood import CORRELATED_BANDS, explain
from focusd.focus.measurement import Spectrum
from focusd.focus.moffat import fit_moffat
from focusd.focus.transfer import band_error, log_signal, noise_of, nuisances_of
from focusd.optics.bands import banded_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.zernike import ASTIGMATISM_VERTICAL, COMA_X, SPHERICAL

Array = NDArray[np.float64]

PUPIL, SHARPEST = "pupil", "sharpest"
"""How an origin was found."""
REACH_UNITS = 5.0
"""The fit looks at planes so many axial units λ·n/NA² from the sharpest one."""
MOST_PLANES = 16
LEAST_PLANES = 7
"""That tell the sharpest plane."""
FADED = 1.5
"""Natural logarithm of the power that a band has lost then."""
MAX_MISFIT = 4.0
"""χ² per value above which the model is not this instrument's."""
MAX_MISFIT_AGREEING, AGREE = 16.0, 2.0
"""The same where the sharpest plane lies within so many standard uncertainties of the model's origin."""
AXIAL_SCALE_ERROR = 0.05
"""To which NA, wavelength and the stage's scale are known."""
MODEL_ERROR = 0.02
"""Relative error of the model's transfer: objects are not isotropic, and pupils have more aberrations than three."""
SHARPEST_UNITS = 0.1
"""Standard uncertainty of the sharpest plane as an origin, in λ·n/NA²: spherical aberration moves it from sample to
sample."""
SHARPEST_PLANES = 0.1
"""The same in distances of planes, where the optics are not known."""
FLAT = np.zeros(1)
"""The spectrum of the object that the model transfers."""

_TOLERANCE = 1e-2
"""Of the fit: the origin is then within 0.005 axial units of where it would end, in half the time."""
_TERMS = (SPHERICAL, ASTIGMATISM_VERTICAL, COMA_X)
_START = (0.0, 0.0, 0.02, 0.02, 1.0)
"""Origin (axial units), spherical aberration, astigmatism, coma (waves RMS), and scale of the axial unit."""
_OTHER_STARTS = ((0.0, 0.05, 0.02, 0.02, 1.0), (0.0, -0.05, 0.02, 0.02, 1.0))
"""If the fit explains nothing, it has ended in a wrong place."""
_SCALE = (0.2, 0.02, 0.02, 0.02, 0.02)
_FAR_FROM_ZERO = 10.0
"""Added to the parameters in units of their scale: the fit's steps are so much of the parameter, and one of a parameter
near zero would drown in the rounding of single precision."""
_STEP = 0.01
_SAME_START_UNITS = 0.05
"""Fits from starts so near each other end at the same place."""
_AT_ONCE = 64
"""Planes of a model: of a thousand, what is computed takes 3 GB of memory."""
_THREADS = min(len(_SCALE), os.cpu_count() or 1)
_OTHER_SCALES = (0.5, 2.0)
_PLAINLY_BETTER = 4.0
"""Of χ²: in simulated stacks of 10 objectives the wrong one of two scales explains 8 to 60 times less."""


@dataclass(frozen=True)
class Origin:
    """Where a stack's focus is.

    Attributes:
        z_um: in the stack's own coordinates.
        method: `pupil`, or `sharpest` where no model of the pupil explains the stack.
        sigma_um: standard uncertainty of `z_um`, as far as the stack itself tells it.
        scale: how far the focus has moved for each µm of z, as far as the optics tell it.
        model: of the pupil that explains the planes near the focus; None: none does.
    """

    z_um: float
    method: str
    sigma_um: float
    scale: float = 1.0
    model: PupilModel | None = None


@dataclass(frozen=True)
class PupilModel:
    """The pupil of an instrument, and how its focus moves with z.

    Attributes:
        aberrations: waves RMS, of `_TERMS`.
        scale: of the axial unit, as in `Origin`.
        block_px: size of the blocks whose bands it tells.
    """

    instrument: Instrument
    aberrations: tuple[float, ...]
    scale: float
    block_px: int

    def log_power(self, defocus_um: Array) -> Array:
        """Logarithm of what each band passes, (planes, bands), at these distances from the origin."""
        u = defocus_um / self.instrument.axial_unit_um * self.scale
        terms = dict(zip(_TERMS, self.aberrations, strict=True))
        parts = np.array_split(u, math.ceil(len(u) / _AT_ONCE))
        passed = [banded_transfer(part, self.instrument, terms, self.block_px) for part in parts]
        return np.asarray(np.log(np.concatenate(passed)))


@dataclass(frozen=True)
class PupilFit:
    """The model that explains the planes near the focus best.

    Attributes:
        start_um: the sharpest plane, near which it was looked for.
        z_um: (planes,) looked at.
        power: (planes, bands) of them.
        origin_um: of the model.
        sigma_um: of the origin.
        misfit: χ² per value.
    """

    start_um: float
    z_um: Array
    power: Array
    origin_um: float
    sigma_um: float
    model: PupilModel
    misfit: float

    def is_of(self, near: _Near) -> bool:
        """Whether it is what a fit to these planes would give, but for the fit's tolerance."""
        same = np.array_equal(self.z_um, near.z_um) and np.array_equal(self.power, near.power)
        return (
            same
            and near.shaken is None
            and abs(self.start_um - near.start_um) <= _SAME_START_UNITS * near.unit_um
        )


@dataclass(frozen=True)
class _Near:
    """The planes near the sharpest one, to which a model is fitted."""

    start_um: float
    unit_um: float
    z_um: Array
    spectra: list[Spectrum]
    shaken: Array | None

    @property
    def power(self) -> Array:
        return np.stack([s.power for s in self.spectra])

    def stages(self) -> list[_Near]:
        """Every third of them, which brings a fit near its end for a third of the work, if they are many; and all."""
        if len(self.z_um) < MOST_PLANES:
            return [self]
        return [replace(self, z_um=self.z_um[::3], spectra=self.spectra[::3]), self]


def find_origin(
    z_um: Array,
    spectra: Sequence[Spectrum],
    block_px: int,
    instrument: Instrument | None,
    known: PupilFit | None = None,
    shaken: Array | None = None,
) -> Origin:
    """The origin by the pupil's model where the instrument is known and the model fits, else the sharpest plane.

    Args:
        z_um: (planes,) ascending.
        spectra: one a plane.
        block_px: size of the blocks behind them.
        known: a fit to the stack's first planes; it counts if no further one would have changed it.
        shaken: as in `Transfer`.
    """
    sharpest_um = _sharpest(z_um, spectra)
    if instrument is not None:
        near = _near(z_um, spectra, instrument, sharpest_um, shaken)
        fit = known if known and known.is_of(near) else _fit_near(near, block_px, instrument)
        unsure_um = SHARPEST_UNITS * instrument.axial_unit_um
        apart = abs(fit.origin_um - sharpest_um) / np.hypot(fit.sigma_um, unsure_um)
        if fit.misfit <= (MAX_MISFIT if apart > AGREE else MAX_MISFIT_AGREEING):
            return Origin(fit.origin_um, PUPIL, fit.sigma_um, fit.model.scale, fit.model)
        return Origin(sharpest_um, SHARPEST, unsure_um, _scale(near, block_px, instrument))
    return Origin(sharpest_um, SHARPEST, SHARPEST_PLANES * float(np.median(np.diff(z_um))))


def fit_pupil(z_um: Array, spectra: Sequence[Spectrum], block_px: int, instrument: Instrument) -> PupilFit:
    """The model that explains the planes near the focus best; arguments as for `find_origin`."""
    return _fit_near(_near(z_um, spectra, instrument, _sharpest(z_um, spectra)), block_px, instrument)


def _fit_near(near: _Near, block_px: int, instrument: Instrument) -> PupilFit:
    fit = partial(_fit_pupil, near, block_px, instrument)
    best = fit(_START)
    if best[-1] > MAX_MISFIT:
        best = min(map(fit, _OTHER_STARTS), key=itemgetter(-1))
    return PupilFit(near.start_um, near.z_um, near.power, *best)


def _near(
    z_um: Array,
    spectra: Sequence[Spectrum],
    instrument: Instrument,
    start_um: float,
    shaken: Array | None = None,
) -> _Near:
    near = np.flatnonzero(np.abs(z_um - start_um) <= REACH_UNITS * instrument.axial_unit_um)
    chosen = near[np.unique(np.linspace(0, len(near) - 1, MOST_PLANES).round().astype(int))]
    return _Near(start_um, instrument.axial_unit_um, z_um[chosen], [spectra[i] for i in chosen], shaken)


def fading_of(spectra: Sequence[Spectrum]) -> Array:
    """How much of its power the image has lost in each plane, (planes,): the natural logarithm, mean of the bands.

    What a band does once it has faded says little about the focus, and much about noise and the zeros of the transfer.
    """
    bands = log_signal(spectra)
    return np.asarray(np.minimum(bands.max(0) - bands, FADED).mean(1))


def _scale(near: _Near, block_px: int, instrument: Instrument) -> float:
    """How far the focus has moved for each µm of z, if it is plainly a half or two; else 1.

    Other factors are not looked for: optics may differ somewhat from what is stated of them.
    """

    def misfit(scale: float) -> float:
        unaberrated = (*_START[:-1], scale)
        residuals = _residuals(near, block_px, instrument, unaberrated, np.full(len(_START), _FAR_FROM_ZERO))
        return float(np.mean(residuals[:-1] ** 2))  # the last one holds the scale near 1

    least, best = min((misfit(scale), scale) for scale in _OTHER_SCALES)
    return best if least * _PLAINLY_BETTER < misfit(1.0) else 1.0


def _sharpest(z_um: Array, spectra: Sequence[Spectrum]) -> float:
    """The centre of the profile of the image's fading around its sharpest plane.

    It goes as far as half of its depth: a parabola through three planes is misled where they are few and uneven.
    """
    fading = fading_of(spectra)
    distance = np.abs(z_um - z_um[np.argmin(fading)])
    half = distance[fading <= (fading.min() + fading.max()) / 2].max()
    near = distance <= max(half, np.sort(distance)[min(LEAST_PLANES, len(z_um)) - 1])
    return fit_moffat(z_um[near], fading[near]).centre_um


def _fit_pupil(
    near: _Near, block_px: int, instrument: Instrument, start: tuple[float, ...]
) -> tuple[float, float, PupilModel, float]:
    """Origin and its σ, the model, and χ² per value, of the best one that is found from a start."""
    with ThreadPoolExecutor(_THREADS) as pool:  # for the slopes along each parameter
        scaled = np.full(len(start), _FAR_FROM_ZERO)
        for planes in near.stages():
            residuals = partial(_residuals, planes, block_px, instrument, start)
            found = least_squares(
                residuals,
                scaled,
                diff_step=_STEP,
                loss="soft_l1",
                max_nfev=20,
                ftol=_TOLERANCE,
                xtol=_TOLERANCE / _FAR_FROM_ZERO,
                workers=pool.map,
            )
            scaled = found.x
    origin, *aberrations, scale = (float(p) for p in _parameters(start, scaled))
    model = PupilModel(instrument, tuple(aberrations), scale, block_px)
    misfit = float(np.mean(residuals(scaled) ** 2))
    variance = np.linalg.pinv(found.jac.T @ found.jac)[0, 0] * CORRELATED_BANDS * max(misfit, 1.0)
    sigma_um = _SCALE[0] * near.unit_um * float(np.sqrt(variance))
    return near.start_um + origin * near.unit_um, sigma_um, model, misfit


def _residuals(
    near: _Near, block_px: int, instrument: Instrument, start: tuple[float, ...], scaled: Array
) -> Array:
    """Of the planes and of what is known of the parameters, in standard deviations."""
    p = _parameters(start, scaled)
    aberrations = dict(zip(_TERMS, p[1:4], strict=True))
    defocus = (near.z_um - near.start_um) / near.unit_um
    passed = banded_transfer((defocus - p[0]) * p[4], instrument, aberrations, block_px)
    log_t = np.log(passed)[:, None, :]
    modes, spread = near.spectra[0].modes, near.spectra[0].spread
    error = np.hypot(MODEL_ERROR, band_error(log_t, spread))
    noise = noise_of(near.spectra)[:, None, None]
    given = (
        near.power[:, None, :],
        noise,
        modes,
        spread,
        log_t,
        error,
        FLAT,
        nuisances_of(near.shaken, len(modes)),
    )
    fit = explain(*given, noise_error=near.spectra[0].noise_error)
    return np.concatenate([fit.residuals.ravel(), fit.nuisances.ravel(), [(p[4] - 1) / AXIAL_SCALE_ERROR]])


def _parameters(start: tuple[float, ...], scaled: Array) -> Array:
    """As in `_START`, of what the fit varies."""
    return np.asarray(np.array(start) + (scaled - _FAR_FROM_ZERO) * np.array(_SCALE))
