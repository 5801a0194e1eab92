"""The search by the posterior: where to expose next, and when to stop. No I/O, no clock (docs/explanation/method.md).

The next exposure is the one after which σ(Δz) is expected to be smallest. Two distinct planes are needed for the
sign. When σ is under its target, one exposure where the focus is believed to be verifies it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from focusd.errors import AmbiguousError
from focusd.focus.axis import SURE_CHI2, AxisBelief, examine
from focusd.focus.calibration import Calibration
from focusd.focus.extent import Extent, Optics, calibration_of, find_extent
from focusd.focus.focus import (
    Focus,
    Search,
    beyond_reach,
    explained_nowhere,
    far_away,
    nothing_seen,
    suspected,
)
from focusd.focus.likelihood import CORRELATED_BANDS, ROUGH_ITERATIONS, Comparison, distances
from focusd.focus.local import is_uneven, local_map
from focusd.focus.measurement import (
    Mask,
    Measurement,
    blocks_with_structure,
    telling_tiles,
    tiles_surely_seen,
    tiles_with_structure,
)
from focusd.focus.posterior import (
    Evidence,
    Posterior,
    Prior,
    posterior,
    posterior_near,
    survey,
)
from focusd.focus.scale import Scale, ScaleMemory, ScalePrior
from focusd.focus.spherical import may_be_aberrated
from focusd.focus.thickness import Thickness, thickness_of
from focusd.focus.whereabouts import could_be_inside, rising, telling, whereabouts
from focusd.optics.bands import BlockSpectra
from focusd.optics.instrument import Instrument

Array = NDArray[np.float64]

MIN_CERTAINTY = 0.99
"""Probability of the main mode below which a focus is ambiguous."""
FLOOR_UNITS = 0.005
"""What no number of exposures takes away from σ, in λ·n/NA², even if the calibration has no error."""
USABLE_DOF = 0.25
"""A focus of such a σ, twice which is half the depth of field, is better than none where the budget is spent and nobody
has asked for less."""
VERIFIED_UNITS = 0.4
"""An exposure so close to the focus verifies it."""
MAX_MISFIT = 50.0
"""χ² per value of the best explanation, beyond which the calibration explains nothing, and σ means nothing either. The
largest of 736 focuses was 37 (bench/mix.py, tuning textures); of samples of another kind than calibrated up to 550."""
MISFIT_EXPOSURES = 4
"""After so many of them a search gives up that nothing explains."""
SUSPECT_EXPOSURES = 3
"""Two exposures fit one focus or another whatever the hardware does."""
ODD_MISFIT = 3.0
"""χ² per value above which the hardware is looked at before the search goes on."""
MAX_GUILT = 0.5
"""Probability that the hardware lies beyond which no focus is claimed, and no exposure verifies one."""
MAX_GUILT_OF_TWO = 0.12
"""The same after two exposures, which one more may clear: half of what is suspected before any frame is left."""
AGREED_UNITS = 0.1
"""σ of the focus, with all that the hardware may be suspected of, up to which its lies do not matter."""
THICK_EXPOSURES = 3
"""Two exposures are explained by some focus, whatever the extent of the sample."""
BEYOND_UNITS = 0.25
"""An exposure so close to the end of what can be looked at tells whether the focus lies beyond."""

_HYPOTHESES = 40
_OFFSETS_UNITS = (-6.0, -4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0, 6.0)
_APART_UNITS = 0.25
_BESIDE_FOCUS_UNITS = 0.35
"""Within `VERIFIED_UNITS`."""
_BESIDE_UNITS = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0)
"""Around a focus in doubt, in the order in which they are exposed."""
_AS_GOOD = 1.1
"""Probes whose expected σ is within this factor of the least are as good; the nearest of them is taken."""


@dataclass(frozen=True)
class Estimate:
    """Where the focus is believed to be.

    Attributes:
        focus_um: mean of the main mode.
        sigma_um: standard uncertainty over the whole range.
        certainty: probability of the main mode.
    """

    focus_um: float
    sigma_um: float
    certainty: float


class PosteriorSearch(Search):
    """One search; feed it measurements, ask it for the next z.

    Args:
        calibration: of the objective in use.
        limits_um: the stage's.
        away_is_low: of two probes as good, the one away from the sample is taken.
        threshold: probability of structure from which a tile counts.
        target_um: σ at which the search ends.
        usable_um: σ with which it may end when its budget is spent; None: the target alone.
        verify: expose once more at the focus before it ends.
        prior: of a warm start.
        is_thin: the sample is known to be thin, so that only hardware that lies makes it look thick.
        scale: of the axis, as far as it is known; None: nothing is known of it.
        instrument: by which aberrations are computed; None: it is not known, and they are not looked for.
    """

    def __init__(
        self,
        calibration: Calibration,
        limits_um: tuple[float, float],
        *,
        away_is_low: bool,
        threshold: float,
        target_um: float,
        usable_um: float | None = None,
        verify: bool = True,
        prior: Prior | None = None,
        is_thin: bool = False,
        scale: ScalePrior | None = None,
        instrument: Instrument | None = None,
    ) -> None:
        self._scale = scale or ScaleMemory().prior()
        self._thin = self._calibration = calibration.stretched(self._scale.learnt.value)
        self._extent = Extent()
        self._limits_um = limits_um
        self._away_is_low = away_is_low
        self._threshold = threshold
        self._target_um = target_um
        self._usable_um = max(target_um, usable_um or 0.0)
        self._verify = verify
        self._prior = prior
        self._is_thin = is_thin
        self._instrument = instrument
        self.measurements: list[Measurement] = []
        self._start_um: float | None = None
        self._opening_um: list[float] = []
        self._verifying_um: list[float] = []
        """Exposures taken where the focus was believed to be, after that was known."""
        self._posterior: Posterior | None = None
        self._axis: AxisBelief | None = None
        self._surveyed: tuple[list[BlockSpectra], tuple[float, float], Comparison] | None = None

    def add(self, measurement: Measurement) -> None:
        """Take one more exposure into account."""
        if self._expects(measurement.z_um):
            self._verifying_um.append(measurement.z_um)
        self.measurements.append(measurement)
        self._posterior = self._axis = None

    def _expects(self, z_um: float) -> bool:
        """Whether what is known before an exposure puts the focus there: the exposures so far, or a warm start."""
        if self._is_suspect:
            return False
        if self._posterior is not None:
            known_um, sigma_um = self._posterior.best_um, self._pointed_um(self._posterior)
        elif self._prior is not None and self._stands_there:
            known_um, sigma_um = self._prior.focus_um, self._prior.sigma_um
        else:
            return False
        return sigma_um <= self._near_um and abs(z_um - known_um) <= self._near_um

    @property
    def _is_accused(self) -> bool:
        """Whether hardware that lies explains the exposures better, and the focus lies elsewhere then."""
        elsewhere_um = AGREED_UNITS * self._calibration.axial_unit_um
        allowed = MAX_GUILT if len(self.measurements) >= SUSPECT_EXPOSURES else MAX_GUILT_OF_TWO
        return self.axis.guilt > allowed and self.axis.sigma_um > elsewhere_um

    @property
    def _is_suspect(self) -> bool:
        """Whether it is accused by as many exposures as may tell that."""
        return len(self.measurements) >= SUSPECT_EXPOSURES and self._is_accused

    def _pointed_um(self, belief: Posterior) -> float:
        """How well a place is known that is nearly sure: where an exposure would verify it, whatever else may be."""
        return belief.mode_sigma_um if belief.certainty >= MIN_CERTAINTY else belief.sigma_um

    @property
    def _stands_there(self) -> bool:
        """Whether the stage stood near the expected focus from the start: on a way there it may have gone astray."""
        start_um = self._start_um
        return (
            self._prior is not None
            and start_um is not None
            and abs(start_um - self._prior.focus_um) <= self._near_um
        )

    @property
    def _near_um(self) -> float:
        """So near to the focus, an exposure verifies it."""
        return VERIFIED_UNITS * self._calibration.axial_unit_um

    @property
    def belief(self) -> Posterior:
        """The posterior after the last exposure; there has to be one. It is made when it is asked for."""
        if self._posterior is None:
            self._use(Extent())
            found = self._posterior_of(self._evidence(self.measurements))
            if len(self.measurements) >= THICK_EXPOSURES:
                evidence = self._evidence(self.measurements)
                self._use(find_extent(evidence, self._thin, self._within_um, self._optics, self._is_thin))
                is_unlike = self._calibration is not self._thin
                found = self._posterior_of(self._evidence(self.measurements)) if is_unlike else found
            self._posterior = found
        return self._posterior

    def _posterior_of(self, evidence: list[Evidence]) -> Posterior:
        surveyed = self._survey(self.measurements)
        return posterior(evidence, self._calibration, self._within_um, self._prior, surveyed)

    def _use(self, extent: Extent) -> None:
        """Take the sample to extend so far, and to be aberrated so much."""
        if (extent.thick_um, extent.spherical) != (self._extent.thick_um, self._extent.spherical):
            self._calibration, self._surveyed = self._of_sample(extent.thick_um, extent), None
        self._extent = extent

    def _of_sample(self, thick_um: float, extent: Extent) -> Calibration:
        return calibration_of(self._thin, thick_um, extent.spherical, self._optics)

    @property
    def _optics(self) -> Optics | None:
        if self._instrument is None or not may_be_aberrated(self._instrument):
            return None
        return Optics(self._instrument, self.measurements[0].blocks.size_px)

    @property
    def axis(self) -> AxisBelief:
        """What the exposures say if the reported z may be wrong; there have to be two of them."""
        if self._axis is None:
            evidence = self._evidence(self.measurements)
            start_um = self.measurements[0].z_um if self._start_um is None else self._start_um
            known = self._prior, self.belief, start_um, self._scale
            self._axis = examine(evidence, self._calibration, *known)
            if self._calibration is not self._thin:  # such a sample and hardware that lies may look alike
                thin = examine(evidence, self._thin, *known)
                if thin.suspect and thin.chi2 + SURE_CHI2 * thin.misfit < self._extent.chi2:
                    self._axis = thin
        return self._axis

    @property
    def estimate(self) -> Estimate:
        """The focus as far as it is known, if the reported z is right."""
        return self._estimate_of(self.belief)

    @property
    def believed(self) -> tuple[float, float] | None:
        """As `Search.believed`, from the first exposure on."""
        return (self.estimate.focus_um, self._reported(self.estimate.sigma_um)) if self.measurements else None

    @property
    def satisfied(self) -> bool:
        """Whether the focus is known to the target, from two planes or more that show something and are explained, and
        verified if that is asked for."""
        return self._is_found(self._target_um)

    @property
    def is_usable(self) -> bool:
        """Whether all of that is so, but for a σ that is only small enough to be of use."""
        return bool(self.measurements) and self._is_found(self._usable_um)

    def _is_found(self, at_most_um: float) -> bool:
        if not self._seems_found(at_most_um):
            return False
        answer = self._with_doubt
        is_verified = self._verifies(answer.focus_um) or not self._verify
        return answer.sigma_um <= at_most_um and is_verified and not self._is_accused

    def _seems_found(self, at_most_um: float) -> bool:
        """Whether the focus is found, if the reported z is right."""
        known = self._is_known(self.estimate, at_most_um) and self.belief.misfit <= MAX_MISFIT
        two_planes = len({round(o.z_um, 3) for o in self.measurements}) >= 2
        there = self._shows_something and not self.belief.at_edge
        return known and two_planes and there and (self.is_verified or not self._verify)

    @property
    def _with_doubt(self) -> Estimate:
        """The focus and its σ, if the reported z may be wrong."""
        sigma_um = math.hypot(self.axis.sigma_um, self._floor_um, self._extent.sigma_um)
        focus_um = float(np.clip(self.axis.focus_um, *self._limits_um))
        return Estimate(focus_um, sigma_um, self.belief.certainty)

    @property
    def scale(self) -> Scale | None:
        """As `Search.scale`, once the focus is known."""
        if not self.is_usable:
            return None
        learnt, found = self._scale.learnt.value, self.axis.scale
        return Scale(learnt * found.value, learnt * found.sigma)

    def next_z_um(self) -> float | None:
        """Where to expose next; None when the search is satisfied.

        Raises:
            NoSampleError: three exposures show nothing to focus on.
            AmbiguousError: the calibration does not explain them.
            OutOfRangeError: the focus lies beyond what is calibrated or can be reached.
        """
        self._refuse_hopeless()
        if self._is_suspect:
            self._verifying_um.clear()  # an exposure that was to verify the focus, and makes one doubt, does not
        return None if self.satisfied else self.probe_um()

    def opening_um(self, start_um: float) -> list[float]:
        """The start and the plane beside it, or, where the focus is expected at a z, the plane beside that and that.

        Two planes are needed for the sign. With the focus to be verified by a third, no second one is much better than
        that beside the first, which can be exposed while the first is scored. Where the focus is expected, the last of
        the two verifies it, and no move comes after it that nothing would verify. Where the calibration's planes lie
        further apart, two frames so near each other are told apart by interpolation alone, and the first one's score
        decides.
        """
        self._start_um = start_um
        is_coarse = np.diff(self._calibration.z_um).max() > self._calibration.axial_unit_um
        if is_coarse or not self._verify:
            self._opening_um = [start_um]
        elif self._prior is not None and self._prior.sigma_um <= self._near_um:
            expected_um = float(np.clip(self._prior.focus_um, *self._limits_um))
            self._opening_um = [self._beside_um(expected_um), expected_um]
        else:
            self._opening_um = [start_um, self._beside_um(start_um)]
        return self._opening_um

    def came_from(self, z_um: float) -> None:
        """As `Search.came_from`, after `opening_um`."""
        self._start_um = z_um

    def _beside_um(self, z_um: float) -> float:
        """An axial unit away from the sample, or towards it at a limit."""
        unit_um = self._calibration.axial_unit_um * (-1 if self._away_is_low else 1)
        low_um, high_um = self._limits_um
        away_um, towards_um = z_um + unit_um, z_um - unit_um
        return away_um if low_um <= away_um <= high_um else float(np.clip(towards_um, low_um, high_um))

    def telling_tiles(self) -> Mask | None:
        """As `measurement.telling_tiles`, once there has been an exposure."""
        return telling_tiles(self.measurements[0], self._threshold) if self.measurements else None

    def likely_um(self, exposed_um: float, blocks: BlockSpectra) -> float | None:
        """The focus, if the spectra alone tell it well enough: the exposure's own score hardly ever changes that."""
        if not self.measurements:
            return None
        measurements, is_quick = self._with_unscored(exposed_um, blocks), self._are_fewer(blocks)
        ahead = self._estimate_of(self._foreseen(measurements, is_quick))
        return ahead.focus_um if ahead.sigma_um <= self._target_um else None

    def probe_um(self) -> float:
        """The exposure that is expected to tell most: at the focus where that is known well enough, to verify it."""
        estimate = self.estimate
        opening_um = self._opening_um or self.opening_um(self.measurements[0].z_um)
        if len(self.measurements) < len(opening_um):
            return opening_um[len(self.measurements)]
        if self._pointed_um(self.belief) <= self._usable_um and not self.is_verified:
            return self._verifying_probe_um(estimate.focus_um)
        if self._seems_found(self._target_um):
            answer = self._with_doubt
            is_known = answer.sigma_um <= self._target_um and not self._verifies(answer.focus_um)
            return self._verifying_probe_um(answer.focus_um) if is_known else self._doubted_um()
        if self._seems_beyond:
            return self._edge_um
        candidates = self._candidates()
        expected = self._expected_sigma(candidates)
        good = candidates[expected <= _AS_GOOD * expected.min()]
        here_um = self.measurements[-1].z_um
        away = 1e-6 if self._away_is_low else -1e-6
        return float(min(good, key=lambda z: abs(z - here_um) + away * z))

    def _verifying_probe_um(self, focus_um: float) -> float:
        """Where an exposure verifies a focus: there, or a little beyond it where that plane has been exposed already.

        The same plane would say the same again, whatever the stage does.
        """
        exposed = np.array([o.z_um for o in self.measurements])
        if np.abs(exposed - focus_um).min() >= _APART_UNITS * self._calibration.axial_unit_um:
            return focus_um
        beside_um = _BESIDE_FOCUS_UNITS * self._calibration.axial_unit_um
        beyond_um = focus_um + math.copysign(beside_um, focus_um - float(exposed.mean()))
        return float(np.clip(beyond_um, *self._limits_um))

    def _doubted_um(self) -> float:
        """An exposure that shows whether z is right: at the focus that all hypotheses together give, or beside it."""
        unit_um = self._calibration.axial_unit_um
        reach_um = max(abs(step) for step in _BESIDE_UNITS) * unit_um
        centre_um = float(
            np.clip(self.axis.focus_um, *(self.belief.best_um + np.array([-reach_um, reach_um])))
        )
        wanted = np.clip(centre_um + unit_um * np.array(_BESIDE_UNITS), *self._limits_um)
        exposed = np.array([o.z_um for o in self.measurements])
        apart_um = np.abs(np.subtract.outer(wanted, exposed)).min(1)
        new = np.flatnonzero(apart_um >= _APART_UNITS * unit_um)
        return float(wanted[new[0] if len(new) else int(np.argmax(apart_um))])

    def decide(self) -> Focus:
        """The focus, once the search is satisfied, or usable and without a budget.

        Raises:
            AmbiguousError: it is not known well enough; and as for `next_z_um`.
        """
        self._refuse_hopeless()
        estimate = self.estimate
        known = f"σ = {estimate.sigma_um:.2f} µm, {self._target_um:.2f} µm is wanted"
        if not self.is_usable:
            raise AmbiguousError(
                f"the exposures fit no single focus well enough ({known}); try another field, or a longer exposure"
            )
        thickness = self._thickness_near(estimate.focus_um)
        local = local_map(self.measurements, self._of_sample(thickness.um, self._extent), estimate.focus_um)
        estimate = self._with_doubt
        message = (
            f"the budget is spent ({known}); allow more exposures, or expose longer, to know the focus better"
        )
        return Focus(
            estimate.focus_um,
            self._reported(estimate.sigma_um),
            local,
            "" if self.satisfied else message,
            self._target_um if self.satisfied else self._usable_um,
            estimate.sigma_um,
            self._calibration.origin_sigma_um,
            thickness,
        )

    def _thickness_near(self, focus_um: float) -> Thickness:
        """How far the sample extends within a block: not at all where the field as a whole looks thin."""
        if not self._extent.thick_um:
            return Thickness(uneven_um=self._extent.uneven_um)
        return thickness_of(self.measurements, self._of_sample(0.0, self._extent), focus_um)

    def so_far(self) -> dict[str, float]:
        """As `Search.so_far`, as soon as one place is nearly sure, and the hardware is not suspected."""
        if (
            not self.measurements
            or self.estimate.certainty < MIN_CERTAINTY
            or self._is_far
            or self._is_suspect
        ):
            return {}
        known = self.estimate
        return {"focus_um": known.focus_um, "sigma_um": known.sigma_um, "target_um": self._target_um}

    @property
    def whereabouts(self) -> str:
        """As `Search.whereabouts`, from the first exposure on."""
        if not self.measurements:
            return ""
        evidence = self._evidence(self.measurements)
        if len(evidence) >= SUSPECT_EXPOSURES and self.axis.doubt and self._is_calibrated:
            return f"it may be that {self.axis.doubt}"
        return whereabouts(evidence, self._calibration)

    @property
    def _is_calibrated(self) -> bool:
        """Whether all exposures lie in the calibrated range: beyond it nobody knows what a frame has to look like."""
        return all(could_be_inside(e, self._calibration) for e in self._evidence(self.measurements))

    @property
    def _is_far(self) -> bool:
        return not telling(self._evidence(self.measurements), self._calibration)

    def _with_unscored(self, exposed_um: float, blocks: BlockSpectra) -> list[Measurement]:
        """The exposures so far and one more, all with the blocks that it has."""
        before = self.measurements
        if self._are_fewer(blocks):
            before = [replace(o, blocks=o.blocks.thinned()) for o in before]
        return [*before, replace(before[-1], z_um=exposed_um, blocks=blocks)]

    def _are_fewer(self, blocks: BlockSpectra) -> bool:
        """Whether they are `thinned`, beside those of the exposures so far."""
        return blocks.noise.shape != self.measurements[-1].blocks.noise.shape

    def _foreseen(self, measurements: list[Measurement], is_quick: bool) -> Posterior:
        """The posterior when the last of the exposures is not yet scored."""
        *scored, last = self._evidence(measurements)
        evidence = [*scored, replace(last, b=None)]
        known = self._calibration, self._within_um, self._prior
        if self._posterior and self._is_known(self.estimate, self._target_um):
            return posterior_near(self.belief.mode_um, evidence, *known)
        if is_quick:
            return posterior(evidence, *known, iterations=ROUGH_ITERATIONS)
        return posterior(evidence, *known, self._survey(measurements))

    def _survey(self, measurements: list[Measurement]) -> Comparison:
        """What the spectra of these exposures say, made once: before the last is scored they say the same as after."""
        blocks, within_um = [o.blocks for o in measurements], self._within_um
        known = self._surveyed
        if known is None or known[1] != within_um or not _are_same(known[0], blocks):
            found = survey(self._evidence(measurements), self._calibration, within_um)
            self._surveyed = known = blocks, within_um, found
        return known[2]

    @property
    def _within_um(self) -> tuple[float, float]:
        """Where the focus may lie: in the calibrated range around the first exposure whose score tells its distance, or
        else could, or around any of them."""
        evidence = self._evidence(self.measurements)
        inside = [e for e in evidence if could_be_inside(e, self._calibration)]
        near = telling(evidence, self._calibration)[:1] or inside[:1] or evidence
        first_um, last_um = self._calibration.transfer.z_um[[0, -1]]
        low_um, high_um = self._limits_um
        lowest_um, highest_um = min(e.z_um for e in near) - last_um, max(e.z_um for e in near) - first_um
        if (
            lowest_um >= high_um or highest_um <= low_um
        ):  # a frame may be taken beside the plane that is asked for
            raise beyond_reach("the frames were taken too far outside of these limits")
        return float(max(lowest_um, low_um)), float(min(highest_um, high_um))

    def _estimate_of(self, belief: Posterior) -> Estimate:
        return Estimate(belief.best_um, float(np.hypot(belief.sigma_um, self._floor_um)), belief.certainty)

    @property
    def _floor_um(self) -> float:
        return FLOOR_UNITS * self._calibration.axial_unit_um

    def _reported(self, sigma_um: float) -> float:
        """σ as it is told: with the calibration's own error and the sample's, which no exposure takes away."""
        return math.hypot(sigma_um, self._calibration.origin_sigma_um, self._extent.uneven_um)

    def _is_known(self, estimate: Estimate, at_most_um: float) -> bool:
        return estimate.sigma_um <= at_most_um and estimate.certainty >= MIN_CERTAINTY

    @property
    def is_verified(self) -> bool:
        """Whether an exposure has verified the focus, if the reported z is right."""
        return self._verifies(self.belief.best_um)

    def _verifies(self, focus_um: float) -> bool:
        """Whether an exposure was taken near a focus after the search had it."""
        return any(abs(z_um - focus_um) <= self._near_um for z_um in self._verifying_um)

    @property
    def _seems_beyond(self) -> bool:
        """Whether the focus seems to lie beyond reach; an exposure at the end of that has to confirm it."""
        return len(self.measurements) >= 3 and self.belief.at_edge

    @property
    def _edge_um(self) -> float:
        """The place to look at before a focus counts as beyond reach: the end towards which the contrast rises."""
        low_um, high_um = self._reach_um
        way = rising(self._evidence(self.measurements))
        return {"lower": low_um, "higher": high_um}.get(
            way, float(np.clip(self.belief.mode_um, low_um, high_um))
        )

    def _was_near(self, z_um: float, units: float) -> bool:
        """Whether a place was exposed."""
        return any(abs(o.z_um - z_um) <= units * self._calibration.axial_unit_um for o in self.measurements)

    @property
    def _shows_something(self) -> bool:
        return bool(self._tiles().any())

    def _tiles(self) -> Mask:
        """Tiles that hold something in most exposures, or surely in one, as small things do near focus."""
        seen, surely = (
            tiles_with_structure(self.measurements, self._threshold),
            tiles_surely_seen(self.measurements),
        )
        return np.asarray(seen | surely)

    def _refuse_hopeless(self) -> None:
        count = len(self.measurements)
        if count >= 3 and not self._shows_something:
            raise nothing_seen()
        if count >= SUSPECT_EXPOSURES and self._is_odd and self.axis.suspect and self._is_calibrated:
            local = local_map(self.measurements, self._calibration, self.belief.best_um)
            if not is_uneven(local, self._calibration.axial_unit_um):
                raise suspected(self.axis.suspect)
        if count >= MISFIT_EXPOSURES and self.belief.misfit > MAX_MISFIT and not self.belief.at_edge:
            if self._is_far:
                raise far_away(self.whereabouts)
            raise explained_nowhere(self.axis.doubt if self._is_calibrated else self.axis.suspect)
        if self._seems_beyond and self._was_near(self._edge_um, BEYOND_UNITS):
            raise beyond_reach(self.whereabouts)

    @property
    def _is_odd(self) -> bool:
        """Whether it is time to ask if the hardware is as it says: before an answer, and where little fits."""
        return self._seems_found(self._usable_um) or self.belief.misfit > ODD_MISFIT

    def _evidence(self, measurements: list[Measurement]) -> list[Evidence]:
        """Exposures, judged by the tiles and blocks that hold something in them together."""
        tiles = self._tiles()
        tiles = tiles if tiles.any() else np.ones_like(tiles)
        blocks = blocks_with_structure(measurements)
        return [_evidence(o, tiles, blocks) for o in measurements]

    def _candidates(self) -> Array:
        """Positions worth exposing, inside the limits and apart from those exposed."""
        unit_um = self._calibration.axial_unit_um
        here_um = self.measurements[-1].z_um
        offsets = unit_um * np.array(_OFFSETS_UNITS)
        hypotheses = self._quantiles(9)
        wanted = np.concatenate([here_um + offsets, self.belief.best_um + offsets, hypotheses])
        wanted = np.unique(wanted.round(3).clip(*self._reach_um))
        exposed = np.array([o.z_um for o in self.measurements])
        apart = np.abs(np.subtract.outer(wanted, exposed)).min(1) >= _APART_UNITS * unit_um
        return np.asarray(wanted[apart] if apart.any() else wanted)

    @property
    def _reach_um(self) -> tuple[float, float]:
        """Where a search may look before it knows the focus: no further from its start than is calibrated."""
        first_um, last_um = self._calibration.transfer.z_um[[0, -1]]
        start_um, (low_um, high_um) = self.measurements[0].z_um, self._limits_um
        return max(start_um - last_um, low_um), min(start_um - first_um, high_um)

    def _quantiles(self, count: int) -> Array:
        """Equally probable hypotheses."""
        levels = (np.arange(count) + 0.5) / count
        return np.interp(levels, np.cumsum(self.belief.weight), self.belief.z_um)

    def _expected_sigma(self, probes_um: Array) -> Array:
        """σ(Δz) to expect after one more exposure at each probe, averaged over hypotheses drawn from the posterior.

        Under a true hypothesis every other one loses the χ² by which the exposure would tell the two apart.
        """
        hypotheses = self._quantiles(_HYPOTHESES)
        belief = self.belief
        spectrum = self.measurements[-1].spectrum(blocks_with_structure(self.measurements))
        nearest = np.searchsorted(belief.z_um, hypotheses).clip(0, len(belief.z_um) - 1)
        chi2 = distances(
            belief.log_object[nearest],
            spectrum,
            self._calibration.transfer,
            np.subtract.outer(probes_um, hypotheses),
        )
        weight = np.exp(-0.5 * chi2 / (CORRELATED_BANDS * belief.misfit))
        weight /= weight.sum(-1, keepdims=True)
        mean = weight @ hypotheses
        variance = (weight @ hypotheses**2 - mean**2).clip(0)
        return np.asarray(np.sqrt(variance.mean(-1)))


def _are_same(some: list[BlockSpectra], others: list[BlockSpectra]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _evidence(measurement: Measurement, tiles: Mask, blocks: Mask) -> Evidence:
    b, sigma = measurement.mean_b(tiles), measurement.mean_sigma(tiles)
    return Evidence(measurement.z_um, b, sigma, measurement.spectrum(blocks))
