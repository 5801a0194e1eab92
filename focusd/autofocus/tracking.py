"""Where the focus drifts: position and velocity with their uncertainties, from checks now and then (a Kalman filter).

Drift is smooth but for steps (a medium change, a nudged stage) and turns (a door opened, a heater on). So each check is
weighed as three hypotheses, neither, a step and a turn, each a Kalman update of its own, and their mixture collapsed to
its mean and covariance. A step then moves the position and hardly touches the velocity. Source: Bar-Shalom, Li,
Kirubarajan, Estimation with Applications to Tracking and Navigation (2001), sections 6.3 and 11.6.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STEPS_PER_S = 1 / 3600
"""Steps expected: one an hour."""
_STEP_SHARE = 0.6
"""Of the changes that are not smooth: the others are turns."""
_VELOCITY_MEMORY_S = 3600.0
"""Time in which a velocity turns into another one."""
_MISSED = 0.2
"""Share of the steps that a frame as sharp as in focus does not show."""
_RESTLESS = (0.05, 4.0)
"""How much calmer or livelier than expected drift may be taken for."""
_LEARNING = 0.3
"""How much one check changes that."""
_OUTLIER = 6.0
"""A squared innovation beyond so many of its variances teaches no more than this."""


@dataclass(frozen=True)
class DriftModel:
    """What to expect of a rig before it is known.

    Attributes:
        velocity_um_per_s: standard deviation of the drift's velocity.
        step_um: standard deviation of a step.
    """

    velocity_um_per_s: float
    step_um: float


@dataclass(frozen=True)
class Estimate:
    """The focus at a moment.

    Attributes:
        time_s: any clock's, the same for all.
        checked_s: when the focus was last measured.
        mean: (2,) position in µm and velocity in µm/s.
        covariance: (2, 2) of both, if there was no step since the last check.
        step_chance: probability that there was one, or a turn.
        restless: variance of the drift relative to the model's, learnt.
    """

    time_s: float
    checked_s: float
    mean: Array
    covariance: Array
    step_chance: float = 0.0
    restless: float = 1.0


@dataclass
class DriftTracker:
    """Follows the focus. Times in seconds, positions in µm; time never runs backwards."""

    model: DriftModel
    estimate: Estimate | None = field(default=None)

    def check(self, time_s: float, focus_um: float, sigma_um: float) -> None:
        """Take a measured focus into account; the first one begins the track."""
        if self.estimate is None:
            covariance = np.diag([sigma_um**2, self.model.velocity_um_per_s**2])
            self.estimate = Estimate(time_s, time_s, np.array([focus_um, 0.0]), covariance)
        else:
            self.estimate = _updated(self._at(time_s), self.model, focus_um, sigma_um)

    def quiet(self, time_s: float, sigma_um: float) -> None:
        """A frame was as sharp as in focus: no step is likely, and the focus not further off than `sigma_um`.

        It bounds the uncertainty and no more: the next frame will say the same again, of the same error.
        """
        now = self._at(time_s)
        self.estimate = replace(
            now, covariance=_bounded(now.covariance, sigma_um), step_chance=_MISSED * now.step_chance
        )

    def surprised(self, time_s: float) -> None:
        """A frame was less sharp than in focus: the focus has moved, nobody knows which way."""
        now = self._at(time_s)
        self.estimate = replace(now, step_chance=max(0.5, now.step_chance))

    def focus_um(self, time_s: float) -> float:
        """Where the focus is expected."""
        return float(self._at(time_s).mean[0])

    @property
    def velocity_um_per_s(self) -> float:
        """Its velocity, the same until the next check."""
        return float(self._known.mean[1])

    @property
    def velocity_sigma_um_per_s(self) -> float:
        """Standard uncertainty of the velocity at the last check."""
        return float(np.sqrt(self._known.covariance[1, 1]))

    def sigma_um(self, time_s: Array | float) -> Array:
        """Standard uncertainty of the focus at moments to come, steps included."""
        start, model = self._known, self.model
        ahead = np.maximum(0.0, np.asarray(time_s, dtype=np.float64) - start.time_s)
        variance = _position_variance(start, model, ahead)
        return np.asarray(np.sqrt(variance + _step_chance(start, ahead) * model.step_um**2))

    @property
    def _known(self) -> Estimate:
        if self.estimate is None:
            raise ValueError("nothing has been measured yet")
        return self.estimate

    def _at(self, time_s: float) -> Estimate:
        return _predicted(self._known, self.model, time_s)


def _predicted(start: Estimate, model: DriftModel, time_s: float) -> Estimate:
    """The estimate carried on to a later moment."""
    ahead = max(0.0, time_s - start.time_s)
    carry = np.array([[1.0, ahead], [0.0, 1.0]])
    walk = _velocity_walk(start, model)
    noise = walk * np.array([[ahead**3 / 3, ahead**2 / 2], [ahead**2 / 2, ahead]])
    return replace(
        start,
        time_s=start.time_s + ahead,
        mean=carry @ start.mean,
        covariance=carry @ start.covariance @ carry.T + noise,
        step_chance=float(_step_chance(start, np.array(ahead))),
    )


def _updated(prior: Estimate, model: DriftModel, focus_um: float, sigma_um: float) -> Estimate:
    """The mixture of all hypotheses after a check, collapsed."""
    changed = prior.step_chance
    hypotheses = [
        _kalman(prior.mean, prior.covariance + extra, focus_um, sigma_um, chance)
        for extra, chance in (
            (np.zeros((2, 2)), 1 - changed),
            (np.diag([model.step_um**2, 0.0]), _STEP_SHARE * changed),
            (_turned(model, prior.time_s - prior.checked_s), (1 - _STEP_SHARE) * changed),
        )
    ]
    evidence = np.array([h.log_evidence for h in hypotheses])
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    mean = np.average([h.mean for h in hypotheses], axis=0, weights=weight)
    spreads = [h.covariance + np.outer(h.mean - mean, h.mean - mean) for h in hypotheses]
    restless = prior.restless * np.exp(_LEARNING * weight[0] * hypotheses[0].lesson)
    return Estimate(
        time_s=prior.time_s,
        checked_s=prior.time_s,
        mean=np.asarray(mean),
        covariance=np.average(spreads, axis=0, weights=weight),
        restless=float(np.clip(restless, *_RESTLESS)),
    )


def _bounded(covariance: Array, sigma_um: float) -> Array:
    """As after a measurement that leaves the position no less certain than `sigma_um`."""
    variance = float(covariance[0, 0])
    excess = max(0.0, 1 - sigma_um**2 / variance)
    return np.asarray(covariance - excess * np.outer(covariance[:, 0], covariance[:, 0]) / variance)


def _turned(model: DriftModel, since_s: float) -> Array:
    """What a velocity that changed at some moment since the last check adds to the covariance."""
    moved = np.array([[since_s**2 / 3, since_s / 2], [since_s / 2, 1.0]])
    return np.asarray(model.velocity_um_per_s**2 * moved)


@dataclass(frozen=True)
class _Hypothesis:
    """One Kalman update; `lesson` tells drift livelier than expected (above 0) from calmer (below)."""

    mean: Array
    covariance: Array
    log_evidence: float
    lesson: float


def _kalman(mean: Array, covariance: Array, focus_um: float, sigma_um: float, chance: float) -> _Hypothesis:
    innovation = focus_um - float(mean[0])
    variance = float(covariance[0, 0]) + sigma_um**2
    gain = covariance[:, 0] / variance
    keep = np.eye(2) - np.outer(gain, [1.0, 0.0])
    # Joseph's form: stays a covariance whatever the rounding.
    after = keep @ covariance @ keep.T + sigma_um**2 * np.outer(gain, gain)
    surprise = innovation**2 / variance
    # What the check's own noise explains teaches nothing of the drift.
    lesson = float(gain[0]) * (min(surprise, _OUTLIER) - 1)
    log_evidence = np.log(max(chance, 1e-12)) - 0.5 * (np.log(variance) + surprise)
    return _Hypothesis(mean + gain * innovation, after, float(log_evidence), lesson)


def _velocity_walk(start: Estimate, model: DriftModel) -> float:
    """Growth of the velocity's variance a second."""
    return start.restless * model.velocity_um_per_s**2 / _VELOCITY_MEMORY_S


def _position_variance(start: Estimate, model: DriftModel, ahead: Array) -> Array:
    (pp, pv), (_, vv) = start.covariance
    walk = _velocity_walk(start, model)
    return np.asarray(pp + 2 * ahead * pv + ahead**2 * vv + walk * ahead**3 / 3)


def _step_chance(start: Estimate, ahead: Array) -> Array:
    return np.asarray(1 - (1 - start.step_chance) * np.exp(-_STEPS_PER_S * ahead))


class SharpnessWatch:
    """Compares the sharpness of a field's frames with what it was right after a check, in focus.

    A classical measure (Tenengrad) has no scale that holds for two fields, but repeats for one to a thousandth and
    falls by a tenth within a quarter of a depth of field. It does not tell the side: a drop is evidence that the focus
    has moved, which way is for a check to find.
    """

    _DROP = 0.1
    _LEARNING = 0.3
    """Weight of the latest check's first frame: a sample changes slowly."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget: another field, or one that has changed."""
        self._reference: float | None = None
        self._after_check = True
        self._dropped = False
        self._blind = False

    def is_drop(self, sharpness: float) -> bool:
        """Whether a frame is less sharp than in focus."""
        if self._reference is None:
            self._reference = sharpness
        drop = sharpness < (1 - self._DROP) * self._reference
        if not drop:
            self._learn(sharpness, self._reference)
        self._after_check = False
        self._dropped = self._dropped or drop
        return drop

    @property
    def is_trusted(self) -> bool:
        """Whether frames without a drop mean anything: not where a step has passed without one, as in weak light."""
        return not self._blind

    def checked(self, stepped: bool) -> None:
        """After a check: a drop without a step was one of the field itself, a step without a drop proves blindness."""
        if self._dropped and not stepped:
            self.restart()
        elif stepped and not self._dropped and not self._after_check:
            self._blind = True
        self._after_check, self._dropped = True, False

    def _learn(self, sharpness: float, reference: float) -> None:
        if sharpness > reference:
            self._reference = sharpness
        elif self._after_check:
            self._reference = reference + self._LEARNING * (sharpness - reference)
