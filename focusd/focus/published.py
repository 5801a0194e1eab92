"""The search as published (DeepFocus, section 2, steps 1–6): which z to expose next, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from focusd.errors import AmbiguousError
from focusd.focus.calibration import Calibration
from focusd.focus.focus import Focus, Search, beyond_reach, nothing_seen
from focusd.focus.measurement import Mask, Measurement, tiles_with_structure
from focusd.focus.moffat import r_squared
from focusd.focus.shift import Shift, locate

GOLDEN = (3 - 5**0.5) / 2
"""Fraction of an interval at which golden-section search probes, 0.382."""

MAX_MISFIT = 0.2
"""Largest RMS distance of the scores from the curve, in units of the curve's rise, that is still an answer."""

_CLOSEST_UM = 1e-3


class PublishedSearch(Search):
    """The published search, fed with measurements.

    Args:
        calibration: of the objective in use.
        limits_um: the stage's.
        away_is_low: the end that lies away from the sample is probed first.
        threshold: probability of structure from which a tile counts.
    """

    def __init__(
        self, calibration: Calibration, limits_um: tuple[float, float], *, away_is_low: bool, threshold: float
    ) -> None:
        self._calibration = calibration
        self._limits_um = limits_um
        self._away_is_low = away_is_low
        self._threshold = threshold
        self.measurements: list[Measurement] = []

    def next_z_um(self) -> float | None:
        """Where to expose next; None when the scores are convex.

        Raises:
            NoSampleError: three exposures show nothing to focus on.
        """
        seen = self._seen()
        probes = [(o.z_um, o.mean_b(seen)) for o in self.measurements]
        return next_probe(self._interval, probes, self._away_is_low)

    def opening_um(self, start_um: float) -> list[float]:
        """The start and the ends of the first interval."""
        interval = first_interval(start_um, self._calibration, self._limits_um)
        return opening_planes(interval, self._away_is_low)

    def decide(self) -> Focus:
        """The focus.

        Raises:
            OutOfRangeError: it lies beyond what is calibrated or can be reached.
            AmbiguousError: the scores do not tell it.
        """
        shift = locate(self.measurements, self._calibration, self._seen(), self._limits_um)
        self._refuse_doubtful(shift)
        clipped = self._interval.clipped
        return Focus(
            shift.focus_um,
            shift.sigma_um,
            shift.local,
            f"the search was clipped to the {clipped}" if clipped else "",
        )

    @property
    def _interval(self) -> Interval:
        return first_interval(self.measurements[0].z_um, self._calibration, self._limits_um)

    def _seen(self) -> Mask:
        """Tiles that count. Empty frames are forgiven at first: far out of focus a sample may show nothing."""
        seen = tiles_with_structure(self.measurements, self._threshold)
        if seen.any():
            return seen
        if len(self.measurements) >= 3:
            raise nothing_seen()
        return np.ones_like(seen)

    def _refuse_doubtful(self, shift: Shift) -> None:
        if shift.at_edge:
            raise beyond_reach()
        if shift.misfit > MAX_MISFIT * float(np.ptp(self._calibration.b)):
            raise AmbiguousError(
                f"the scores do not follow the calibration curve (RMS misfit {shift.misfit:.2f}); the field may hold "
                "several depths: choose a region of interest, or calibrate on a more similar sample"
            )
        if shift.sigma_um > self._calibration.fwhm_um / 4:
            raise AmbiguousError(
                f"the scores fit no focus clearly (σ = {shift.sigma_um:.1f} µm); try another field or exposure"
            )


@dataclass(frozen=True)
class Interval:
    """The three planes that the search begins with: z₁ and z₁ ∓ 2·FWHM, inside what can be reached and read.

    Attributes:
        clipped: why an end was moved, empty if none was.
    """

    start_um: float
    low_um: float
    high_um: float
    clipped: str


def first_interval(start_um: float, calibration: Calibration, limits_um: tuple[float, float]) -> Interval:
    """z₁ ∓ 2·FWHM, clipped to the calibrated range around z₁ and to the stage's limits.

    With a score that stays informative far from focus the FWHM is wide, and 2·FWHM would leave the range in
    which b_calib is known.
    """
    reach = 2 * calibration.fwhm_um
    low = max(start_um - reach, start_um + calibration.min_um)
    high = min(start_um + reach, start_um + calibration.max_um)
    reasons = ["calibrated range"] if (high - low) < 2 * reach - 1e-9 else []
    if low < limits_um[0] or high > limits_um[1]:
        reasons.append("stage limits")
    low, high = max(low, limits_um[0]), min(high, limits_um[1])
    return Interval(start_um, low, high, " and ".join(reasons))


def opening_planes(interval: Interval, away_is_low: bool) -> list[float]:
    """The planes that are exposed whatever they show: the start, and the ends of the interval."""
    ends = (interval.low_um, interval.high_um) if away_is_low else (interval.high_um, interval.low_um)
    return _distinct([interval.start_um, *ends])


def next_probe(interval: Interval, probes: list[tuple[float, float]], away_is_low: bool) -> float | None:
    """The next z to expose, or None when the scores are convex.

    Args:
        interval: from `first_interval`.
        probes: (z_um, b) of the exposures so far, in their order.
        away_is_low: the end that lies away from the sample is probed first.
    """
    opening = opening_planes(interval, away_is_low)
    if len(probes) < len(opening):
        return opening[len(probes)]
    if len(probes) >= 3 and is_convex(probes):
        return None
    return golden_section_point(probes)


def is_convex(probes: list[tuple[float, float]]) -> bool:
    """Whether a parabola that opens upwards fits (z, b) with a higher R² than a line; of two planes none does."""
    z = np.array([p[0] for p in probes])
    if len(np.unique(z.round(3))) < 3:
        return False
    b = np.array([p[1] for p in probes])
    z = (z - z.mean()) / max(float(np.ptp(z)), 1e-9)
    line, parabola = np.polyfit(z, b, 1), np.polyfit(z, b, 2)
    better = r_squared(b, np.polyval(parabola, z)) > r_squared(b, np.polyval(line, z)) + 1e-9
    return bool(better and parabola[0] > 0)


def golden_section_point(probes: list[tuple[float, float]]) -> float | None:
    """The golden-section point next to the lowest score, in the wider interval beside it; None if none is left."""
    ordered = sorted(probes)
    best = min(range(len(ordered)), key=lambda i: ordered[i][1])
    here = ordered[best][0]
    neighbours = [ordered[i][0] for i in (best - 1, best + 1) if 0 <= i < len(ordered)]
    if not neighbours:
        return None
    widest = max(neighbours, key=lambda z: abs(z - here))
    step = GOLDEN * (widest - here)
    return here + step if abs(step) > _CLOSEST_UM else None


def _distinct(positions: list[float]) -> list[float]:
    """Without repetitions, which clipping can cause."""
    kept: list[float] = []
    for z in positions:
        if all(abs(z - other) > _CLOSEST_UM for other in kept):
            kept.append(z)
    return kept
