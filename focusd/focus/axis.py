"""Whether the reported z is true: other accounts of where the frames of a run were really taken.

A search believes that each frame was taken at the z that the stage reported. A stage may move by less or by more than
it reports, or not at all, or stand to the side that it came from, and a camera may deliver the frame before. Each such
hypothesis says where the frames were really taken, relative to the last one. Under each of them the spectra are
compared with the calibrated transfer, for every defocus that one frame may have; the object is free in all of
them, so that only the changes from frame to frame count. Where another hypothesis explains the frames better than the
reported z does, σ grows, because the focus then lies elsewhere; where one that accuses the hardware is nearly sure, it
is named. That one frame is the nearest to the focus: what is unknown of the axis grows with the distance from it.

Optics that differ from those calibrated (NA, wavelength, immersion) stretch the axis by some percent. Scales near 1
stand for them, and accuse nobody: they are as probable as `focus.scale` says. Frames far from the focus tell little
where the scale is not known, and those near it decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focusd.focus.calibration import Calibration
from focusd.focus.likelihood import CORRELATED_BANDS, ROUGH_ITERATIONS, compare_at
from focusd.focus.posterior import (
    UNIFORM_SHARE,
    Evidence,
    Posterior,
    Prior,
    log_prior,
    log_scores,
    raw_misfit_of,
    tempered_misfit_of,
)
from focusd.focus.scale import Scale, ScalePrior

Array = NDArray[np.float64]

OPTICS = np.array(
    [
        0.79,
        0.83,
        0.87,
        0.9,
        0.925,
        0.95,
        0.97,
        0.983,
        0.993,
        1.0,
        1.007,
        1.017,
        1.03,
        1.05,
        1.075,
        1.1,
        1.14,
        1.19,
        1.25,
    ]
)
"""Scales of the axis that may be those of other optics: how far the focus really moves, of what the stage says."""
SCALES = np.array([0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 1.35, 1.5, 1.75, 2.0, 2.5])
"""Those of which the stage is suspected."""
SCALED = 0.05
"""Probability, before any frame, of all of these."""
LAGGING = 0.05
"""Probability that frames or moves come late: of the frame before, or of a stage that got stuck on the way."""
BESIDE = 0.03
"""Probability that the stage stands beside where it says, to the side that it came from or past it: it arrives late,
has backlash, or creeps on."""
BESIDE_UNITS = (0.2, 0.45, 0.8)
"""By so much, in λ·n/NA²."""
DISBELIEVED = 0.5
"""Probability that the focus is not where it is expected, in the z of a stage that is wrong or stays behind."""
_BACKLASH_UNITS = 0.3
"""Less is usual for a stage with backlash, and accuses nobody."""
SURE_ODDS = math.exp(7.0)
"""Odds from which a hypothesis that accuses the hardware is reported as an error."""
SURE_CHI2 = 2 * math.log(SURE_ODDS) * CORRELATED_BANDS
"""The same as a difference of χ²."""
EXPLAINED_MISFIT = 4.0
"""χ² per value up to which a hypothesis explains the frames: the least bad of bad ones proves nothing."""
DOUBT_ODDS = 1.0
"""Odds from which such a hypothesis is told to a person, where a search ends without a focus."""
LOOSE_MISFIT = 3.0
"""χ² per value above which it is asked whether the frames were taken where the stage said."""
STRETCHED_FRAMES = 5
"""As many of them as tell a stretched axis from a stage that creeps: fewer fit either."""
LOOSE_UNITS = 0.1
"""More than that, in λ·n/NA², is told to a person."""
LOOSE = "the stage creeps on after it says that it stands, or has backlash, or the sample drifts"
_LOOSEST_UNITS, _LOOSE_STEPS, _LOOSE_ROUNDS = 1.5, 25, 2
_LOOSE_GAIN = 3.0
"""By so much, at least, the misfit has to fall when each frame is put where it fits best."""
_SCALE_SPREAD = 0.35
"""Standard deviation of the logarithm of the scale, if the stage is suspected."""
_SCALE_STEP = 0.005
"""How well the scales that are tried tell one in between."""
_FLAT = 0.05
"""Of the scales' probabilities: no scale is impossible."""
_COARSE_UNITS = 0.35
"""Between two values of the last frame's defocus, λ·n/NA²."""
_FINE_UNITS = 0.08
_NEAR_UNITS = 2.0
"""Around what the reported z gives, the defocus is looked at finely: there the decision falls."""
_UNKNOWN_UNITS = 4.0
"""How far away a frame may have been taken of which nothing is known: the first of a camera that is one frame late."""
_UNLIKELY = 9.0
"""What the scores alone make less likely than the best by this factor, e⁹, is left out."""
_LEAST_SCALE = 0.05
"""A stage that hardly moves has no focus that it could be sent to."""


@dataclass(frozen=True)
class Hypothesis:
    """One account of where the frames of a run were really taken.

    Attributes:
        accuses: what it suspects the hardware of, in words; empty for other optics.
        apart_um: (frames,) z of each frame minus that of the last, as it really was.
        spread_um: (frames,) how far from that, relative to a given frame, each may have been taken.
        scale: how far the stage really moves, of what it says.
        chance: its probability before any frame.
    """

    accuses: str
    apart_um: Array
    spread_um: Array
    scale: float
    chance: float


@dataclass(frozen=True)
class AxisBelief:
    """What all hypotheses together say of the focus.

    Attributes:
        focus_um: mean over all of them, as a z to send the stage to.
        sigma_um: standard uncertainty over all of them.
        suspect: what the hardware is suspected of, in words, if that is nearly sure; else empty.
        doubt: the same if it is at least more probable than not, or if frames were taken beside the reported z.
        guilt: probability that the hardware does what it is suspected of.
        scale: of the axis, as the frames alone tell it.
        chi2, misfit: of the best explanation; as for `Posterior`.
    """

    focus_um: float
    sigma_um: float
    suspect: str
    doubt: str
    guilt: float
    scale: Scale
    chi2: float
    misfit: float


def examine(
    evidence: Sequence[Evidence],
    calibration: Calibration,
    prior: Prior | None,
    reported: Posterior,
    start_um: float,
    scale: ScalePrior,
) -> AxisBelief:
    """Weigh the reported z against all other hypotheses.

    Args:
        evidence: of two exposures or more, in their order.
        prior: of a warm start.
        reported: what the frames say if each was taken where the stage said.
        start_um: where the stage stood before the first move.
        scale: of the axis, before any frame.
    """
    z_um = np.array([e.z_um for e in evidence])
    near = 1 + int(np.argmin(np.abs(z_um[1:] - reported.best_um)))  # of the first one least is known
    given = hypotheses(z_um, calibration.axial_unit_um, start_um, scale, near)
    near_um = _grid_um(calibration, z_um[near] - reported.best_um, reported.sigma_um)
    spread_um = np.gradient(near_um) / 2
    last_um = near_um - np.array([[h.apart_um[near]] for h in given])
    defocus_um = np.stack([h.apart_um for h in given], 1)[:, :, None] + last_um
    focus_um = z_um[-1] - last_um / np.array([[max(h.scale, _LEAST_SCALE)] for h in given])
    range_um = float(np.ptp(calibration.transfer.z_um))
    scores = log_scores(defocus_um, evidence, calibration)
    likely = scores > scores.max() - _UNLIKELY
    log = scores + np.log([h.chance for h in given])[:, None] + np.log(2 * spread_um)
    anywhere = np.array([[DISBELIEVED if h.accuses else UNIFORM_SHARE] for h in given])
    log += log_prior(focus_um, prior, range_um, anywhere) if prior else -math.log(range_um)
    blur_um = np.hypot(np.stack([h.spread_um for h in given], 1)[:, :, None], spread_um)
    spectra = [e.spectrum for e in evidence]
    found = compare_at(
        defocus_um[:, likely], spectra, calibration.transfer, blur_um[:, likely], iterations=ROUGH_ITERATIONS
    )
    raw, tempered = (float(each(found, len(evidence))) for each in (raw_misfit_of, tempered_misfit_of))
    misfit = max(1.0, raw)
    log, expects = log[likely], 0.5 * found.log_variance / CORRELATED_BANDS
    weight = _weight(log - min(1.0, tempered) * expects, found.chi2, tempered)
    # A sample that the reported z explains badly is no proof: hardware is accused by what is left after that.
    strict = _weight(
        log - min(1.0, raw) * expects, found.chi2, math.sqrt(misfit * max(misfit, reported.misfit))
    )
    mean_um, sigma_um = _moments(focus_um[likely].clip(*_within(reported, range_um)), weight)
    is_explained = misfit <= EXPLAINED_MISFIT
    chances, strictly = (
        np.bincount(np.nonzero(likely)[0], each, len(given)).astype(np.float64) for each in (weight, strict)
    )
    doubt = _accused(chances, given, DOUBT_ODDS)
    is_odd = misfit > LOOSE_MISFIT or (len(z_um) < STRETCHED_FRAMES and reported.misfit > LOOSE_MISFIT)
    loose_um = _looseness_um(evidence, calibration, reported) if is_odd and not reported.at_edge else 0.0
    if loose_um > LOOSE_UNITS * calibration.axial_unit_um:
        doubt = doubt or LOOSE
    sigma_um = math.hypot(sigma_um, loose_um)
    suspect = _accused(strictly, given, SURE_ODDS) if is_explained else ""
    told = _scale_of(chances, given)
    guilt = _guilt(strictly, given)
    return AxisBelief(mean_um, sigma_um, suspect, doubt, guilt, told, float(found.chi2.min()), misfit)


def _looseness_um(evidence: Sequence[Evidence], calibration: Calibration, reported: Posterior) -> float:
    """How far the frames were taken from the reported z, root mean square; 0 if that is not what makes them fit badly.

    One frame after the other is put where it fits best. A stage that creeps and a sample that drifts are explained by
    that, a sample of another kind is not.
    """
    unit_um = calibration.axial_unit_um
    z_um = np.array([e.z_um for e in evidence]) - reported.best_um
    spectra = [e.spectrum for e in evidence]
    steps_um = np.linspace(-_LOOSEST_UNITS, _LOOSEST_UNITS, _LOOSE_STEPS) * unit_um
    spread_um = (steps_um[1] - steps_um[0]) / 2
    shift_um = np.zeros(len(z_um))
    chi2 = math.inf
    for _ in range(_LOOSE_ROUNDS):
        for frame in range(len(z_um)):
            tried_um = np.repeat((z_um + shift_um)[:, None], len(steps_um), axis=1)
            tried_um[frame] = z_um[frame] + steps_um
            found = compare_at(
                tried_um, spectra, calibration.transfer, spread_um, iterations=ROUGH_ITERATIONS
            )
            best = int(np.argmin(found.chi2))
            shift_um[frame], chi2 = steps_um[best], float(found.chi2[best])
    freedom = max(1, (len(z_um) - 1) * len(spectra[0].power))
    if chi2 / freedom > max(1.0, reported.misfit / _LOOSE_GAIN):
        return 0.0
    return float(np.sqrt((shift_um**2).mean()))


def _weight(log: Array, chi2: Array, misfit: float) -> Array:
    """Probabilities, with unit sum, of places whose spectra are explained so well."""
    log = log - 0.5 * chi2 / (CORRELATED_BANDS * misfit)
    weight = np.exp(log - log.max())
    return np.asarray(weight / weight.sum())


def hypotheses(
    z_um: Array, unit_um: float, start_um: float, scale: ScalePrior, near: int = -1
) -> list[Hypothesis]:
    """All of them, those of `OPTICS` first.

    Args:
        z_um: (frames,) as the stage reported them, in the order of exposure.
        unit_um: λ·n/NA².
        start_um: where the stage stood before the first move.
        scale: of the axis, before any frame; the calibration is stretched by what is learnt of it.
        near: index of the frame from which the others may have been taken further away, or less far, than is said.
    """
    usual = (1 - SCALED - LAGGING - BESIDE) * scale.chances(OPTICS)
    odd = np.exp(-0.5 * (np.log(SCALES.clip(0.1)) / _SCALE_SPREAD) ** 2) + _FLAT
    return [
        *_scaled(z_um, OPTICS, usual, lambda _: "", near),
        *_scaled(z_um, SCALES, SCALED * odd / odd.sum(), _scale_in_words, near),
        *_late(z_um, unit_um, start_um),
        *_beside(z_um, unit_um, start_um, near),
    ]


def _scaled(
    z_um: Array, scales: Array, chances: Array, in_words: Callable[[float], str], near: int
) -> list[Hypothesis]:
    apart_um, from_near_um = z_um - z_um[-1], np.abs(z_um - z_um[near])
    between = np.abs(np.gradient(scales)) / 2
    return [
        Hypothesis(in_words(scale), scale * apart_um, half * from_near_um, float(scale), float(chance))
        for scale, half, chance in zip(scales, between, chances, strict=True)
    ]


def _scale_of(chances: Array, given: Sequence[Hypothesis]) -> Scale:
    """Return the scale of the axis as the frames tell it, whatever was believed before, if the stage is true."""
    usual = len(OPTICS)
    likely = chances[:usual] / np.array([max(h.chance, 1e-300) for h in given[:usual]]) * np.gradient(OPTICS)
    weight = likely / max(float(likely.sum()), 1e-300)
    mean, spread = _moments(OPTICS, weight)
    return Scale(mean, math.hypot(spread, _SCALE_STEP))


def _scale_in_words(scale: float) -> str:
    if scale == 0:
        return "the stage does not move, or the camera delivers the same image again and again"
    return f"the stage moves by about {scale:.2g} times what it reports"


def _late(z_um: Array, unit_um: float, start_um: float) -> list[Hypothesis]:
    """Frames of the z before, and a stage that got stuck on the way."""
    before_um = np.concatenate([[start_um], z_um[:-1]])
    unknown_um = np.zeros(len(z_um))
    unknown_um[0] = _UNKNOWN_UNITS * unit_um
    stale = "the camera delivers the frame before instead of the one that was asked for"
    found = [(stale, before_um, np.zeros(len(z_um))), (stale, before_um, unknown_um)]
    for last in range(1, len(z_um) - 1):
        stuck_um = z_um[np.minimum(np.arange(len(z_um)), last)]
        found.append(
            ("the stage, or the camera's image, got stuck on the way", stuck_um, np.zeros(len(z_um)))
        )
    return [Hypothesis(name, at - z_um[-1], blur, 1.0, LAGGING / len(found)) for name, at, blur in found]


def _beside(z_um: Array, unit_um: float, start_um: float, near: int) -> list[Hypothesis]:
    """A stage that stands to the side that it came from, or past its goal.

    The search knows the exposures, not all moves between them: the last frame may have been approached from either
    side. Whatever the offset is, the answer is approached as the last frame was, so that it is told in the same z.
    """
    way = np.sign(np.diff(z_um, prepend=start_um))
    turned = np.append(way[:-1], -way[-1])
    accuses = "the stage stands beside where it says: it arrives late, creeps on, or has backlash"
    sizes = unit_um * np.array(BESIDE_UNITS)
    found = []
    for size_um, between_um in zip(sizes, np.gradient(sizes) / 2, strict=True):
        told = accuses if size_um > _BACKLASH_UNITS * unit_um else ""
        for short_um in (size_um * way, -size_um * way, size_um * turned, -size_um * turned):
            apart_um = z_um - z_um[-1] - (short_um - short_um[-1])
            spread_um = between_um * np.abs(way - way[near]) / 2
            found.append((told, apart_um, spread_um))
    return [Hypothesis(name, apart, blur, 1.0, BESIDE / len(found)) for name, apart, blur in found]


def _grid_um(calibration: Calibration, centre_um: float, sigma_um: float) -> Array:
    """Values of the last frame's defocus: all that is calibrated, closer together around what the reported z gives."""
    unit_um = calibration.axial_unit_um
    first_um, last_um = calibration.transfer.z_um[[0, -1]]
    everywhere = np.arange(first_um, last_um, _COARSE_UNITS * unit_um)
    near = np.arange(-_NEAR_UNITS, _NEAR_UNITS, _FINE_UNITS) * unit_um
    width_um = max(min(sigma_um, unit_um), _FINE_UNITS / 2 * unit_um)
    finest = np.linspace(-4, 4, 33) * width_um
    apart_um = np.abs(everywhere - centre_um)
    beyond = near[np.abs(near) > finest[-1]]
    return np.sort(
        np.concatenate([everywhere[apart_um > _NEAR_UNITS * unit_um], centre_um + beyond, centre_um + finest])
    )


def _within(reported: Posterior, range_um: float) -> tuple[float, float]:
    """Where a focus is looked for at all: a stage that hardly moves would put it anywhere."""
    return reported.best_um - range_um, reported.best_um + range_um


def _moments(focus_um: Array, weight: Array) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean_um = float((weight * focus_um).sum())
    return mean_um, math.sqrt(float((weight * (focus_um - mean_um) ** 2).sum()))


def _guilt(chances: NDArray[np.float64], given: Sequence[Hypothesis]) -> float:
    """The probability of all accusing hypotheses together."""
    return float(chances[[bool(h.accuses) for h in given]].sum())


def _accused(chances: NDArray[np.float64], given: Sequence[Hypothesis], odds: float) -> str:
    """What the likeliest of the accusing hypotheses suspects, if these odds or more are for them all together."""
    guilty = _guilt(chances, given)
    if guilty < odds * (1 - guilty):
        return ""
    accusing = [bool(h.accuses) for h in given]
    return given[int(np.argmax(np.where(accusing, chances, 0.0)))].accuses
