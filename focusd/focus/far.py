"""The search for a focus that may lie anywhere inside the limits: coarse planes outwards, then the usual search.

A plane within the calibrated range of the focus is known by its score. Beyond that range the score means nothing, but
the power at the lowest frequencies still grows towards the focus: by it the wrong side is left out, and by it faint
samples are found, whose scores tell nothing either. The plane that shows the sample best is where the usual search
begins, with all of its own rules. If it refuses the plane, the coarse search goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from focusd.errors import FocusdError, HardwareError, NoConvergenceError, NoSampleError, OutOfRangeError
from focusd.focus.calibration import Calibration
from focusd.focus.focus import Focus, Search
from focusd.focus.measurement import Mask, Measurement, Spectrum, blocks_with_structure
from focusd.focus.posterior import Evidence
from focusd.focus.whereabouts import UNSURE_B, could_be_inside
from focusd.optics.bands import BlockSpectra

FAR_EXPOSURES = 12
"""Of the coarse part, at most: planes over ±400 µm at 10×/0.3 are 7, and as many again look at a travel of ±0.8 mm, or
allow for two starts of the usual search that it refuses."""
STEP_REACHES = 1.5
"""Between coarse planes, of what the calibration reaches: the focus is within 0.75 of its reach from one of them. At
the very end of the reach the score of a faint sample is unsure."""
CLEAR = 2.0
"""Ratio of two planes' power that shows the way. From one coarse plane to the next simulated images lose a factor of 5
to 50; 1.5 is what a change of the light may do to it."""
TRIAL_EXPOSURES = 5
"""After so many, a usual search that is not about to end has begun at a wrong plane: from a right one it takes 3 or 4.
It rests while other planes are looked at, and goes on where these show no better place."""
LOW_BANDS = 4
"""So many of the lowest bands: those above hold nothing but noise beyond the calibrated range."""
_SURE = 4.0
"""Standard deviations of the noise: less power than that is none."""
_AS_MUCH = 0.5
"""Share of the highest power: a plane that shows less is not the one nearest to the focus, whatever its score says."""
_NEAR_SHARE = 0.2
"""Of the step: the power's maximum is not looked at once more so near to a plane that has been exposed."""
_LEAST_APART_UM = 1e-3
"""Planes that are closer to each other are one."""


class FarSearch(Search):
    """One search; feed it measurements, ask it for the next z.

    Args:
        calibration: of the objective in use.
        limits_um: no plane lies outside.
        away_is_low: the side away from the sample is looked at first.
        threshold: probability of structure from which a tile counts.
        begin: makes a new usual search, which knows nothing yet.
    """

    def __init__(
        self,
        calibration: Calibration,
        limits_um: tuple[float, float],
        *,
        away_is_low: bool,
        threshold: float,
        begin: Callable[[], Search],
    ) -> None:
        self._calibration = calibration
        self._limits_um = limits_um
        self._away_is_low = away_is_low
        self._threshold = threshold
        self._begin = begin
        self.measurements: list[Measurement] = []
        self._start_um = math.nan
        self._usual: Search | None = None
        self._refused_um: list[float] = []
        """Planes from which the usual search has begun in vain."""
        self._tried_um: set[float] = set()
        """All planes that it has looked at then: at a right one it would have ended."""
        self._refusal: FocusdError | None = None
        self._resting: Search | None = None
        self._is_resumed = False

    def add(self, measurement: Measurement) -> None:
        """Take one more exposure into account."""
        self.measurements.append(measurement)
        if self._usual:
            self._usual.add(measurement)

    def opening_um(self, start_um: float) -> list[float]:
        """The start alone: what it shows decides whether a plane beside it tells anything."""
        self._start_um = start_um
        return [start_um]

    def next_z_um(self) -> float | None:
        """Where to expose next; None when the usual search is satisfied.

        Raises:
            NoSampleError, OutOfRangeError: no plane inside the limits shows the sample near its focus.
            NoConvergenceError, HardwareError: that with which the usual search refused the best of them.
        """
        while True:
            if self._usual is None and (z_um := self._look_further()) is not None:
                return z_um
            assert self._usual is not None, "it begins where there is nothing to look at any more"
            try:
                z_um = self._usual.next_z_um()
                if z_um is None or not self._is_on_trial:
                    return z_um
                self._resting = self._stopped()
            except (NoConvergenceError, NoSampleError, HardwareError) as refusal:
                self._give_up(refusal)

    def decide(self) -> Focus:
        """The focus, once the usual search is satisfied, or usable and without a budget.

        Raises:
            NoConvergenceError: it is neither.
        """
        if self._usual is None:
            raise OutOfRangeError(self.whereabouts)
        return self._usual.decide()

    def telling_tiles(self) -> Mask | None:
        """As the usual search has it; before it begins, all tiles: small things may show in a few of them alone."""
        return self._usual.telling_tiles() if self._usual else None

    def likely_um(self, exposed_um: float, blocks: BlockSpectra) -> float | None:
        """As the usual search has it; before it begins nobody knows."""
        return self._usual.likely_um(exposed_um, blocks) if self._usual else None

    def so_far(self) -> dict[str, float]:
        """As the usual search has it."""
        return self._usual.so_far() if self._usual else {}

    @property
    def believed(self) -> tuple[float, float] | None:
        """As the usual search has it."""
        return self._usual.believed if self._usual else None

    @property
    def is_usable(self) -> bool:
        """As the usual search has it."""
        return self._usual is not None and self._usual.is_usable

    @property
    def besides(self) -> int:
        """As `Search.besides`: all exposures that the usual search does not know of, or as many as there may be."""
        return len(self.measurements) - len(self._usual.measurements) if self._usual else FAR_EXPOSURES

    @property
    def whereabouts(self) -> str:
        """As the usual search has it, or which planes have been looked at."""
        if self._usual:
            return self._usual.whereabouts
        return f"none of {self._looked_at()} shows the sample near its focus" if self.measurements else ""

    def _look_further(self) -> float | None:
        """The next coarse plane; None: the usual search has begun.

        Raises:
            FocusdError: as `next_z_um`.
        """
        seen = self._seen()
        if len(seen) > FAR_EXPOSURES:
            return self._ended(is_cut_short=True)
        if nearest := _nearest(seen, self._calibration, self._is_open):
            return self._begun_at(nearest.z_um)
        peak_um = peak_of(seen)
        if peak_um is not None and self._is_open(peak_um):
            return self._at_peak(peak_um, seen)
        if peak_um is not None and self._resting:
            return self._ended(is_cut_short=False)
        return self._next_plane_um(seen)

    def _at_peak(self, peak_um: float, seen: Sequence[Evidence]) -> float | None:
        """The place where most should show; None: the usual search begins with a plane next to it."""
        untried_um = [e.z_um for e in seen if e.z_um not in self._tried_um]
        nearest_um = min(untried_um, key=lambda z_um: abs(z_um - peak_um), default=math.inf)
        is_new = abs(nearest_um - peak_um) > _NEAR_SHARE * self._step_um
        if is_new and len(seen) < FAR_EXPOSURES:
            return peak_um
        return self._begun_at(nearest_um) if untried_um else self._ended(is_cut_short=True)

    def _begun_at(self, z_um: float) -> float | None:
        """Let the usual search begin with the exposure that was taken there."""
        number = next(k for k, o in enumerate(self.measurements) if o.z_um == z_um)
        self._usual = self._begin()
        self._usual.opening_um(z_um)
        self._usual.came_from(self.measurements[number - 1].z_um if number else self._start_um)
        self._usual.add(self.measurements[number])
        self._refused_um.append(z_um)  # from the same plane it would end in the same way
        return None

    @property
    def _is_on_trial(self) -> bool:
        """Whether the usual search has taken so long that other planes are worth a look."""
        usual = self._usual
        return (
            usual is not None
            and len(usual.measurements) >= TRIAL_EXPOSURES
            and not usual.is_usable
            and not self._is_resumed
            and len(self.measurements) < FAR_EXPOSURES
        )

    def _ended(self, is_cut_short: bool) -> float | None:
        """Let the usual search that rests go on, where no plane has turned out better than its own.

        Args:
            is_cut_short: whether there would be more planes inside the limits.

        Raises:
            FocusdError: none rests.
        """
        if self._resting is None:
            raise self._not_found(is_cut_short)
        self._usual, self._resting, self._is_resumed = self._resting, None, True
        return None

    def _give_up(self, refusal: FocusdError) -> None:
        """Go on with the coarse planes after the usual search has refused one."""
        self._stopped()
        self._refusal = refusal

    def _stopped(self) -> Search:
        """The usual search, which is under way no more."""
        assert self._usual is not None, "it is under way"
        usual, self._usual = self._usual, None
        self._tried_um.update(o.z_um for o in usual.measurements)
        return usual

    def _is_open(self, z_um: float) -> bool:
        """Whether a usual search from a plane would be another one than those made in vain."""
        return z_um not in self._tried_um and all(
            abs(z_um - refused_um) > self._step_um / 2 for refused_um in self._refused_um
        )

    def _next_plane_um(self, seen: Sequence[Evidence]) -> float | None:
        """The coarse plane beyond the lowest exposure or the highest: on the side that shows more, if that is clear, or
        else away from the sample. None: there is none left, and a usual search goes on.

        Raises:
            FocusdError: as `next_z_um`.
        """
        planes_um = planes_outwards(self._start_um, self._limits_um, self._step_um)
        below = [z_um for z_um in planes_um if z_um < seen[0].z_um]
        above = [z_um for z_um in planes_um if z_um > seen[-1].z_um]
        if not below + above or len(seen) >= FAR_EXPOSURES:
            return self._ended(is_cut_short=bool(below + above))
        if not below or not above:
            return (below or above)[0]
        ratio = low_power(seen[0].spectrum) / low_power(seen[-1].spectrum)
        is_low = self._away_is_low if 1 / CLEAR <= ratio <= CLEAR else ratio > 1
        return below[0] if is_low else above[0]

    @property
    def _step_um(self) -> float:
        return STEP_REACHES * self._calibration.reach_um

    def _seen(self) -> list[Evidence]:
        """What all exposures show, by ascending z."""
        blocks = blocks_with_structure(self.measurements)
        return sorted((self._evidence(o, blocks) for o in self.measurements), key=lambda e: e.z_um)

    def _evidence(self, measurement: Measurement, blocks: Mask) -> Evidence:
        """What one exposure shows; it has no score where no tile holds anything."""
        tiles = np.asarray(measurement.structure >= self._threshold)
        if not tiles.any():
            return Evidence(measurement.z_um, None, math.inf, measurement.spectrum(blocks))
        b, sigma = measurement.mean_b(tiles), measurement.mean_sigma(tiles)
        return Evidence(measurement.z_um, b, sigma, measurement.spectrum(blocks))

    def _not_found(self, is_cut_short: bool) -> FocusdError:
        """What to end with: how the usual search has refused the best plane, if one was good enough for it.

        Args:
            is_cut_short: whether there would be more planes inside the limits.
        """
        also = f"; {self._looked_at()} have been looked at"
        if is_cut_short:
            also += f", which is the most for one search ({FAR_EXPOSURES}): move the stage and ask again"
        if self._refusal:
            return type(self._refusal)(self._refusal.message + also, **self._refusal.data)
        if not any((o.structure >= self._threshold).any() for o in self.measurements):
            return NoSampleError(
                "no plane shows anything to focus on; move to a textured field, or raise the exposure" + also
            )
        best = max(self._seen(), key=lambda e: low_power(e.spectrum))
        return OutOfRangeError(
            f"no plane shows the sample near its focus; most of it shows at {best.z_um:.1f} µm: start there, allow a "
            "wider range of z, or calibrate over one" + also
        )

    def _looked_at(self) -> str:
        z_um = [o.z_um for o in self.measurements]
        return f"{len(z_um)} exposures from {min(z_um):.1f} to {max(z_um):.1f} µm"


def planes_outwards(start_um: float, limits_um: tuple[float, float], step_um: float) -> list[float]:
    """The coarse planes but for the start itself, the nearest first.

    Any z inside the limits is within half a step of a plane.
    """
    planes_um: list[float] = []
    for limit_um in limits_um:
        way_um = limit_um - start_um
        number = max(0, math.ceil(abs(way_um) / step_um - 0.5))
        outwards_um = start_um + math.copysign(step_um, way_um) * np.arange(1, number + 1)
        planes_um += outwards_um.clip(*limits_um).tolist()
    return sorted(planes_um, key=lambda z_um: abs(z_um - start_um))


def low_power(spectrum: Spectrum) -> float:
    """Power above the noise at the lowest frequencies, in units of the noise; at least what noise alone may show."""
    modes = spectrum.modes[:LOW_BANDS]
    power = float(((spectrum.power[:LOW_BANDS] / spectrum.noise - 1) * modes).sum() / modes.sum())
    return max(power, _SURE / math.sqrt(float(modes.sum())))


def _nearest(
    seen: Sequence[Evidence], calibration: Calibration, is_open: Callable[[float], bool]
) -> Evidence | None:
    """The exposure that shows most, of those whose score puts the focus into the calibrated range; None: no score does.

    A network that is shown a blur beyond its training may take it for a sharp image of something smooth: it has to be
    sure, and the power has to bear it out.
    """
    enough = _AS_MUCH * max(low_power(e.spectrum) for e in seen)
    near = [
        e
        for e in seen
        if could_be_inside(e, calibration) and e.sigma < UNSURE_B and low_power(e.spectrum) >= enough
    ]
    return max(filter(lambda e: is_open(e.z_um), near), key=lambda e: low_power(e.spectrum), default=None)


def peak_of(seen: Sequence[Evidence]) -> float | None:
    """Where the power has its maximum, µm; None: it rises towards the lowest exposure or the highest, or hardly at all.

    It is that of a parabola through the logarithm of the power of the best plane, and of the nearest one on either side
    that shows clearly less.

    Args:
        seen: by ascending z.
    """
    power = np.log([low_power(e.spectrum) for e in seen])
    best = int(np.argmax(power))
    less = np.flatnonzero(power < power[best] - math.log(CLEAR))
    left, right = less[less < best], less[less > best]
    if not len(left) or not len(right):
        return None
    chosen = [left[-1], best, right[0]]
    z_um = np.array([seen[k].z_um for k in chosen])
    if np.diff(z_um).min() < _LEAST_APART_UM:
        return float(z_um[1])
    rise, fall = np.diff(power[chosen]) / np.diff(z_um)
    curvature = (fall - rise) / (z_um[2] - z_um[0])
    return float(np.clip((z_um[0] + z_um[1]) / 2 - rise / (2 * curvature), z_um[0], z_um[2]))
