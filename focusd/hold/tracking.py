"""Where the focus drifts: position and velocity with their uncertainties, from checks now and then.

Drift is smooth but for steps (a medium change, a nudged stage) and turns (a door opened, a heater on). How fast it is,
and how quickly that changes, nobody knows beforehand. So the velocity is unknown at first, and a few Kalman filters run
side by side, each for another liveliness of the drift; what they foretell weighs them. Each check is weighed as three
hypotheses in each filter, neither, a step and a turn, and their mixture collapsed to its mean and covariance. A step
then moves the position and hardly touches the velocity. Source: Bar-Shalom, Li, Kirubarajan, Estimation with
Applications to Tracking and Navigation (2001), sections 6.3 and 11.6.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_STEPS_PER_S = 1 / 3600
"""Steps expected: one an hour."""
_STEP_SHARE = {1.0: 0.6, 4.0: 0.2}
"""Of the changes that are not smooth, by size in `step_um`: the others are turns."""
_LIVELY_UM_PER_S = np.geomspace(0.03, 30.0, 7) / 60
"""Standard deviation of a velocity's change in an hour, one for each filter: from a calm rig to one that warms up."""
_HOUR_S = 3600.0
_LEAST_WEIGHT = 1e-4
"""Of a filter: a calm rig may become a lively one."""
_MISSED = 0.2
"""Share of the steps that a frame as sharp as in focus does not show."""


@dataclass(frozen=True)
class DriftModel:
    """What to expect of a rig before it is known.

    Attributes:
        velocity_um_per_s: standard deviation of the drift's velocity, at first and after a turn.
        step_um: standard deviation of a step.
    """

    velocity_um_per_s: float
    step_um: float


@dataclass(frozen=True)
class Estimate:
    """The focus at a moment, by n filters.

    Attributes:
        time_s: any clock's, the same for all.
        checked_s: when the focus was last measured.
        weight: (n,) probability of each filter, with unit sum.
        mean: (n, 2) position in µm and velocity in µm/s.
        covariance: (n, 2, 2) of both, if there was no step since the last check.
        step_chance: probability that there was one, or a turn.
    """

    time_s: float
    checked_s: float
    weight: Array
    mean: Array
    covariance: Array
    step_chance: float = 0.0

    @property
    def expected(self) -> Array:
        """(2,) mean position and velocity over all filters."""
        return _pooled(self.weight, self.mean, self.covariance)[0]

    @property
    def spread(self) -> Array:
        """(2, 2) covariance over all filters."""
        return _pooled(self.weight, self.mean, self.covariance)[1]


@dataclass
class DriftTracker:
    """Follows the focus. Times in seconds, positions in µm; time never runs backwards."""

    model: DriftModel
    estimate: Estimate | None = field(default=None)

    def check(self, time_s: float, focus_um: float, sigma_um: float) -> None:
        """Take a measured focus into account; the first one begins the track."""
        if self.estimate is None:
            self.estimate = _begun(self.model, time_s, focus_um, sigma_um)
        else:
            self.estimate = _updated(self._at(time_s), self.model, focus_um, sigma_um)

    def quiet(self, time_s: float, sigma_um: float) -> None:
        """A frame was as sharp as in focus: no step is likely, and the focus not further off than `sigma_um`.

        It bounds the uncertainty and no more: the next frame will say the same again, of the same error.
        """
        now = self._at(time_s)
        bounded = np.stack([_bounded(each, sigma_um) for each in now.covariance])
        self.estimate = replace(now, covariance=bounded, step_chance=_MISSED * now.step_chance)

    def surprised(self, time_s: float) -> None:
        """A frame was less sharp than in focus: the focus has moved, nobody knows which way."""
        now = self._at(time_s)
        self.estimate = replace(now, step_chance=max(0.5, now.step_chance))

    def focus_um(self, time_s: float) -> float:
        """Where the focus is expected."""
        return float(self._at(time_s).expected[0])

    @property
    def velocity_um_per_s(self) -> float:
        """Its velocity, the same until the next check."""
        return float(self._known.expected[1])

    @property
    def velocity_sigma_um_per_s(self) -> float:
        """Standard uncertainty of the velocity at the last check."""
        return float(np.sqrt(self._known.spread[1, 1]))

    def sigma_um(self, time_s: Array | float) -> Array:
        """Standard uncertainty of the focus at moments to come, steps included."""
        start = self._known
        ahead = np.maximum(0.0, np.asarray(time_s, dtype=np.float64) - start.time_s)
        variance = _position_variance(start, ahead)
        return np.asarray(np.sqrt(variance + _step_chance(start, ahead) * self.model.step_um**2))

    @property
    def _known(self) -> Estimate:
        if self.estimate is None:
            raise ValueError("nothing has been measured yet")
        return self.estimate

    def _at(self, time_s: float) -> Estimate:
        return _predicted(self._known, time_s)


def _begun(model: DriftModel, time_s: float, focus_um: float, sigma_um: float) -> Estimate:
    """What the first check tells: the velocity is unknown, and each filter as likely as the others."""
    filters = len(_LIVELY_UM_PER_S)
    return Estimate(
        time_s,
        time_s,
        np.full(filters, 1 / filters),
        np.tile([focus_um, 0.0], (filters, 1)),
        np.tile(np.diag([sigma_um**2, model.velocity_um_per_s**2]), (filters, 1, 1)),
    )


def _predicted(start: Estimate, time_s: float) -> Estimate:
    """The estimate carried on to a later moment."""
    ahead = max(0.0, time_s - start.time_s)
    carry = np.array([[1.0, ahead], [0.0, 1.0]])
    noise = np.array([[ahead**3 / 3, ahead**2 / 2], [ahead**2 / 2, ahead]])
    return replace(
        start,
        time_s=start.time_s + ahead,
        mean=start.mean @ carry.T,
        covariance=carry @ start.covariance @ carry.T + _velocity_walk()[:, None, None] * noise,
        step_chance=float(_step_chance(start, np.array(ahead))),
    )


def _updated(prior: Estimate, model: DriftModel, focus_um: float, sigma_um: float) -> Estimate:
    """The mixture of all hypotheses after a check, collapsed in each filter."""
    hypotheses = [
        _kalman(prior.mean, prior.covariance + extra, focus_um, sigma_um, chance)
        for extra, chance in _hypotheses(prior, model)
    ]
    evidence = np.stack([h.log_evidence for h in hypotheses], axis=1)
    in_all = np.logaddexp.reduce(evidence, axis=1)
    means = np.stack([h.mean for h in hypotheses], axis=1)
    covariances = np.stack([h.covariance for h in hypotheses], axis=1)
    share = np.exp(evidence - in_all[:, None])
    pooled = [_pooled(*each) for each in zip(share, means, covariances, strict=True)]
    weight = prior.weight * np.exp(in_all - in_all.max())
    weight = np.maximum(weight / weight.sum(), _LEAST_WEIGHT)
    return Estimate(
        time_s=prior.time_s,
        checked_s=prior.time_s,
        weight=weight / weight.sum(),
        mean=np.stack([mean for mean, _ in pooled]),
        covariance=np.stack([covariance for _, covariance in pooled]),
    )


def _pooled(weight: Array, mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Mean (2,) and covariance (2, 2) of a mixture of n."""
    pooled = mean[0] + weight @ (mean - mean[0])  # the same for all: that one, to the last bit
    apart = mean - pooled
    spread = covariance + apart[:, :, None] * apart[:, None, :]
    return np.asarray(pooled), np.asarray(np.tensordot(weight, spread, 1))


def _bounded(covariance: Array, sigma_um: float) -> Array:
    """As after a measurement that leaves the position no less certain than `sigma_um`."""
    variance = float(covariance[0, 0])
    excess = max(0.0, 1 - sigma_um**2 / variance)
    return np.asarray(covariance - excess * np.outer(covariance[:, 0], covariance[:, 0]) / variance)


def _hypotheses(prior: Estimate, model: DriftModel) -> list[tuple[Array, float]]:
    """What each adds to the covariance, and how likely it is: no change, steps, a turn."""
    changed = prior.step_chance
    steps = [
        (np.diag([(size * model.step_um) ** 2, 0.0]), share * changed) for size, share in _STEP_SHARE.items()
    ]
    turn = _turned(model, prior.time_s - prior.checked_s), (1 - sum(_STEP_SHARE.values())) * changed
    return [(np.zeros((2, 2)), 1 - changed), *steps, turn]


def _turned(model: DriftModel, since_s: float) -> Array:
    """What a velocity that changed at some moment since the last check adds to the covariance."""
    moved = np.array([[since_s**2 / 3, since_s / 2], [since_s / 2, 1.0]])
    return np.asarray(model.velocity_um_per_s**2 * moved)


@dataclass(frozen=True)
class _Hypothesis:
    """One Kalman update in each of n filters: (n, 2), (n, 2, 2), (n,)."""

    mean: Array
    covariance: Array
    log_evidence: Array


def _kalman(mean: Array, covariance: Array, focus_um: float, sigma_um: float, chance: float) -> _Hypothesis:
    innovation = focus_um - mean[:, 0]
    variance = covariance[:, 0, 0] + sigma_um**2
    gain = covariance[:, :, 0] / variance[:, None]
    keep = np.eye(2) - gain[:, :, None] * np.array([1.0, 0.0])
    # Joseph's form: stays a covariance whatever the rounding.
    noise = sigma_um**2 * gain[:, :, None] * gain[:, None, :]
    after = keep @ covariance @ keep.transpose(0, 2, 1) + noise
    log_evidence = np.log(max(chance, 1e-12)) - 0.5 * (np.log(variance) + innovation**2 / variance)
    return _Hypothesis(mean + gain * innovation[:, None], after, log_evidence)


def _velocity_walk() -> Array:
    """(n,) growth of the velocity's variance a second in each filter."""
    return np.asarray(_LIVELY_UM_PER_S**2 / _HOUR_S)


def _position_variance(start: Estimate, ahead: Array) -> Array:
    """Of the mixture, at moments of any shape."""
    (pp, pv), (_, vv) = start.spread
    walk = float(start.weight @ _velocity_walk())
    return np.asarray(pp + 2 * ahead * pv + ahead**2 * vv + walk * ahead**3 / 3)


def _step_chance(start: Estimate, ahead: Array) -> Array:
    return np.asarray(1 - (1 - start.step_chance) * np.exp(-_STEPS_PER_S * ahead))


_MEDIAN_CHANGE = 0.954
"""Median of |a − b|, of two values of a normal distribution of standard deviation 1."""


class SharpnessWatch:
    """Compares the sharpness of a field's frames with what it was right after a check, in focus.

    The energy of the gradient has no scale that holds for two fields, but repeats for one to its noise, in good light
    to a thousandth, and falls by a tenth within a quarter of a depth of field. It does not tell the side: a drop is
    evidence that the focus has moved, which way is for a check to find.
    """

    _DROP = 0.1
    _SIGNIFICANT = 3.0
    """A drop is one of more than so many standard deviations of a frame."""
    _LARGEST = 0.3
    """Where only a larger drop would be significant, half a depth of field out of focus would not be seen."""
    _STEP, _SEEN_STEP = 0.5, 1.0
    """Less is no step; more is one that frames have to show."""
    _KNOWN_AFTER = 3
    """Changes from frame to frame that tell their noise."""
    _LEARNING = 0.3
    """Weight of the latest check's first frame: a sample changes slowly."""

    def __init__(self) -> None:
        self._changes: deque[float] = deque(maxlen=15)
        """From each of the last frames to the next, as shares: their median is the noise's, whatever a step adds."""
        self.restart()

    def restart(self) -> None:
        """Forget: another field, or one that has changed."""
        self._reference: float | None = None
        self._last: float | None = None
        self._after_check = True
        self._dropped = False
        self._blind = False

    def is_drop(self, sharpness: float) -> bool:
        """Whether a frame is less sharp than in focus."""
        if self._reference is None:
            self._reference = sharpness
        drop = sharpness < (1 - self._threshold) * self._reference
        if self._last is not None and self._reference > 0:
            self._changes.append(abs(sharpness - self._last) / self._reference)
        self._last = sharpness
        if not drop:
            self._learn(sharpness, self._reference)
        self._after_check = False
        self._dropped = self._dropped or drop
        return drop

    @property
    def is_trusted(self) -> bool:
        """Whether frames without a drop mean anything: not in too little light, not where a step showed no drop."""
        return (
            not self._blind and len(self._changes) >= self._KNOWN_AFTER and self._threshold <= self._LARGEST
        )

    @property
    def seen(self) -> float:
        """How far out of focus a frame is seen to be, relative to that of the smallest drop: the drop is a parabola."""
        return float(np.sqrt(self._threshold / self._DROP))

    @property
    def _threshold(self) -> float:
        """The smallest drop that is seen, as a share of the sharpness in focus."""
        known = len(self._changes) >= self._KNOWN_AFTER
        noise = float(np.median(self._changes)) / _MEDIAN_CHANGE if known else 0.0
        return max(self._DROP, self._SIGNIFICANT * noise)

    def checked(self, stepped: float) -> None:
        """After a check: a drop without a step was one of the field itself, a step without a drop proves blindness.

        Args:
            stepped: how far from where it was expected the focus was, in parts of the excursion that is allowed.
        """
        if self._dropped:
            self._blind = False
            if stepped <= self._STEP:
                self.restart()
        elif stepped > self._SEEN_STEP and not self._after_check:
            self._blind = True
        self._after_check, self._dropped = True, False

    def _learn(self, sharpness: float, reference: float) -> None:
        if self._after_check or sharpness > (1 + self._threshold) * reference:
            self._reference = reference + self._LEARNING * (sharpness - reference)
