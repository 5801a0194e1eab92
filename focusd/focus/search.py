"""The search by the posterior: where to expose next, and when to stop. No I/O, no clock (docs/explanation/method.md).

The next exposure is the one after which σ(Δz) is expected to be smallest (`probing`). Two distinct planes are needed
for the sign. When σ is under its target, one exposure where the focus is believed to be verifies it. What the exposures
tell stands in `knowledge`.
"""

from __future__ import annotations

import math

import numpy as np

from focusd.errors import AmbiguousError
from focusd.focus.axis import AxisBelief
from focusd.focus.calibration import Calibration
from focusd.focus.focus import (
    Focus,
    Search,
    beyond_reach,
    explained_nowhere,
    far_away,
    nothing_seen,
    suspected,
)
from focusd.focus.knowledge import SUSPECT_EXPOSURES, Estimate, Knowledge
from focusd.focus.local import is_uneven, local_map
from focusd.focus.measurement import Mask, Measurement, telling_tiles
from focusd.focus.posterior import Posterior, Prior
from focusd.focus.probing import APART_UNITS, tells_most_um
from focusd.focus.scale import Scale, ScalePrior
from focusd.focus.whereabouts import rising
from focusd.optics.bands import BlockSpectra
from focusd.optics.instrument import Instrument

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
ODD_MISFIT = 3.0
"""χ² per value above which the hardware is looked at before the search goes on."""
BEYOND_UNITS = 0.25
"""An exposure so close to the end of what can be looked at tells whether the focus lies beyond."""

_BESIDE_FOCUS_UNITS = 0.35
"""Within `VERIFIED_UNITS`."""
_BESIDE_UNITS = (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0)
"""Around a focus in doubt, in the order in which they are exposed."""


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
        is_thin, scale, instrument: as in `Knowledge`.
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
        self._known = Knowledge(
            calibration,
            limits_um,
            threshold=threshold,
            prior=prior,
            is_thin=is_thin,
            scale=scale,
            instrument=instrument,
        )
        self.measurements = self._known.measurements
        self._limits_um = limits_um
        self._away_is_low = away_is_low
        self._threshold = threshold
        self._target_um = target_um
        self._usable_um = max(target_um, usable_um or 0.0)
        self._verify = verify
        self._prior = prior
        self._opening_um: list[float] = []
        self._verifying_um: list[float] = []
        """Exposures taken where the focus was believed to be, after that was known."""

    @property
    def belief(self) -> Posterior:
        """As `Knowledge.belief`."""
        return self._known.belief

    @property
    def axis(self) -> AxisBelief:
        """As `Knowledge.axis`."""
        return self._known.axis

    @property
    def estimate(self) -> Estimate:
        """As `Knowledge.estimate`."""
        return self._known.estimate

    @property
    def believed(self) -> tuple[float, float] | None:
        """As `Search.believed`, from the first exposure on."""
        if not self.measurements:
            return None
        return self.estimate.focus_um, self._known.reported(self.estimate.sigma_um)

    @property
    def satisfied(self) -> bool:
        """Whether the focus is known to the target, from two planes or more that show something and are explained, and
        verified if that is asked for."""
        return self._is_found(self._target_um)

    @property
    def is_usable(self) -> bool:
        """Whether all of that is so, but for a σ that is only small enough to be of use."""
        return bool(self.measurements) and self._is_found(self._usable_um)

    @property
    def is_verified(self) -> bool:
        """Whether an exposure has verified the focus, if the reported z is right."""
        return self._verifies(self.belief.best_um)

    @property
    def scale(self) -> Scale | None:
        """As `Search.scale`, once the focus is known."""
        return self._known.scale if self.is_usable else None

    @property
    def whereabouts(self) -> str:
        """As `Search.whereabouts`, from the first exposure on."""
        return self._known.whereabouts if self.measurements else ""

    def so_far(self) -> dict[str, float]:
        """As `Search.so_far`, as soon as one place is nearly sure, and the hardware is not suspected."""
        known = self._known
        if not self.measurements or not self.estimate.is_known(math.inf) or known.is_far or known.is_suspect:
            return {}
        focus_um, sigma_um = self.estimate.focus_um, self.estimate.sigma_um
        return {"focus_um": focus_um, "sigma_um": sigma_um, "target_um": self._target_um}

    def telling_tiles(self) -> Mask | None:
        """As `measurement.telling_tiles`, once there has been an exposure."""
        return telling_tiles(self.measurements[0], self._threshold) if self.measurements else None

    def likely_um(self, exposed_um: float, blocks: BlockSpectra) -> float | None:
        """The focus, if the spectra alone tell it well enough: the exposure's own score hardly ever changes that."""
        if not self.measurements:
            return None
        is_known = self._known.has_belief and self.estimate.is_known(self._target_um)
        ahead = self._known.likely(exposed_um, blocks, is_known)
        return ahead.focus_um if ahead.sigma_um <= self._target_um else None

    def opening_um(self, start_um: float) -> list[float]:
        """The start and the plane beside it, or, where the focus is expected at a z, the plane beside that and that.

        Two planes are needed for the sign. With the focus to be verified by a third, no second one is much better than
        that beside the first, which can be exposed while the first is scored. Where the focus is expected, the last of
        the two verifies it, and no move comes after it that nothing would verify. Where the calibration's planes lie
        further apart, two frames so near each other are told apart by interpolation alone, and the first one's score
        decides.
        """
        self._known.start_um = start_um
        calibration = self._known.calibration
        is_coarse = np.diff(calibration.z_um).max() > calibration.axial_unit_um
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
        self._known.start_um = z_um

    def add(self, measurement: Measurement) -> None:
        """Take one more exposure into account."""
        if self._expects(measurement.z_um):
            self._verifying_um.append(measurement.z_um)
        self._known.add(measurement)

    def next_z_um(self) -> float | None:
        """Where to expose next; None when the search is satisfied.

        Raises:
            NoSampleError: three exposures show nothing to focus on.
            AmbiguousError: the calibration does not explain them.
            OutOfRangeError: the focus lies beyond what is calibrated or can be reached.
        """
        self._refuse_hopeless()
        if self._known.is_suspect:
            self._verifying_um.clear()  # an exposure that was to verify the focus, and makes one doubt, does not
        return None if self.satisfied else self.probe_um()

    def probe_um(self) -> float:
        """The exposure that is expected to tell most: at the focus where that is known well enough, to verify it."""
        known, opening_um = self._known, self._opening_um or self.opening_um(self.measurements[0].z_um)
        if len(self.measurements) < len(opening_um):
            return opening_um[len(self.measurements)]
        if known.pointed_um() <= self._usable_um and not self.is_verified:
            return self._verifying_probe_um(self.estimate.focus_um)
        if self._seems_found(self._target_um):
            answer = known.with_doubt
            is_known = answer.sigma_um <= self._target_um and not self._verifies(answer.focus_um)
            return self._verifying_probe_um(answer.focus_um) if is_known else self._doubted_um()
        if self._seems_beyond:
            return self._edge_um
        away_is_low = self._away_is_low
        return tells_most_um(
            self.measurements, self.belief, known.calibration, self._reach_um, away_is_low=away_is_low
        )

    def decide(self) -> Focus:
        """The focus, once the search is satisfied, or usable and without a budget.

        Raises:
            AmbiguousError: it is not known well enough; and as for `next_z_um`.
        """
        self._refuse_hopeless()
        known, estimate = self._known, self.estimate
        told = f"σ = {estimate.sigma_um:.2f} µm, {self._target_um:.2f} µm is wanted"
        if not self.is_usable:
            raise AmbiguousError(
                f"the exposures fit no single focus well enough ({told}); try another field, or a longer exposure"
            )
        thickness = known.thickness_near(estimate.focus_um)
        local = local_map(self.measurements, known.calibration_at(thickness), estimate.focus_um)
        answer = known.with_doubt
        message = (
            f"the budget is spent ({told}); allow more exposures, or expose longer, to know the focus better"
        )
        return Focus(
            answer.focus_um,
            known.reported(answer.sigma_um),
            local,
            "" if self.satisfied else message,
            self._target_um if self.satisfied else self._usable_um,
            answer.sigma_um,
            known.calibration.origin_sigma_um,
            thickness,
        )

    # --- whether it is found ---

    def _is_found(self, at_most_um: float) -> bool:
        if not self._seems_found(at_most_um):
            return False
        answer = self._known.with_doubt
        is_verified = self._verifies(answer.focus_um) or not self._verify
        return answer.sigma_um <= at_most_um and is_verified and not self._known.is_accused

    def _seems_found(self, at_most_um: float) -> bool:
        """Whether the focus is found, if the reported z is right."""
        is_known = self.estimate.is_known(at_most_um) and self.belief.misfit <= MAX_MISFIT
        two_planes = len({round(o.z_um, 3) for o in self.measurements}) >= 2
        there = self._known.shows_something and not self.belief.at_edge
        return is_known and two_planes and there and (self.is_verified or not self._verify)

    def _expects(self, z_um: float) -> bool:
        """Whether what is known before an exposure puts the focus there: the exposures so far, or a warm start."""
        known = self._known
        if known.is_suspect:
            return False
        if known.has_belief:
            focus_um, sigma_um = known.belief.best_um, known.pointed_um()
        elif self._prior is not None and self._stands_there:
            focus_um, sigma_um = self._prior.focus_um, self._prior.sigma_um
        else:
            return False
        return sigma_um <= self._near_um and abs(z_um - focus_um) <= self._near_um

    @property
    def _stands_there(self) -> bool:
        """Whether the stage stood near the expected focus from the start: on a way there it may have gone astray."""
        start_um, prior = self._known.start_um, self._prior
        return prior is not None and start_um is not None and abs(start_um - prior.focus_um) <= self._near_um

    def _verifies(self, focus_um: float) -> bool:
        """Whether an exposure was taken near a focus after the search had it."""
        return any(abs(z_um - focus_um) <= self._near_um for z_um in self._verifying_um)

    @property
    def _near_um(self) -> float:
        """So near to the focus, an exposure verifies it."""
        return VERIFIED_UNITS * self._known.unit_um

    # --- where to expose ---

    def _beside_um(self, z_um: float) -> float:
        """An axial unit away from the sample, or towards it at a limit."""
        unit_um = self._known.unit_um * (-1 if self._away_is_low else 1)
        low_um, high_um = self._limits_um
        away_um, towards_um = z_um + unit_um, z_um - unit_um
        return away_um if low_um <= away_um <= high_um else float(np.clip(towards_um, low_um, high_um))

    def _verifying_probe_um(self, focus_um: float) -> float:
        """Where an exposure verifies a focus: there, or a little beyond it where that plane has been exposed already.

        The same plane would say the same again, whatever the stage does.
        """
        exposed = np.array([o.z_um for o in self.measurements])
        if np.abs(exposed - focus_um).min() >= APART_UNITS * self._known.unit_um:
            return focus_um
        beside_um = _BESIDE_FOCUS_UNITS * self._known.unit_um
        beyond_um = focus_um + math.copysign(beside_um, focus_um - float(exposed.mean()))
        return float(np.clip(beyond_um, *self._limits_um))

    def _doubted_um(self) -> float:
        """An exposure that shows whether z is right: at the focus that all hypotheses together give, or beside it."""
        unit_um, best_um = self._known.unit_um, self.belief.best_um
        reach_um = max(abs(step) for step in _BESIDE_UNITS) * unit_um
        centre_um = float(np.clip(self.axis.focus_um, best_um - reach_um, best_um + reach_um))
        wanted = np.clip(centre_um + unit_um * np.array(_BESIDE_UNITS), *self._limits_um)
        exposed = np.array([o.z_um for o in self.measurements])
        apart_um = np.abs(np.subtract.outer(wanted, exposed)).min(1)
        new = np.flatnonzero(apart_um >= APART_UNITS * unit_um)
        return float(wanted[new[0] if len(new) else int(np.argmax(apart_um))])

    @property
    def _reach_um(self) -> tuple[float, float]:
        """Where a search may look before it knows the focus: no further from its start than is calibrated."""
        first_um, last_um = self._known.calibration.transfer.z_um[[0, -1]]
        start_um, (low_um, high_um) = self.measurements[0].z_um, self._limits_um
        return max(start_um - last_um, low_um), min(start_um - first_um, high_um)

    @property
    def _seems_beyond(self) -> bool:
        """Whether the focus seems to lie beyond reach; an exposure at the end of that has to confirm it."""
        return len(self.measurements) >= 3 and self.belief.at_edge

    @property
    def _edge_um(self) -> float:
        """The place to look at before a focus counts as beyond reach: the end towards which the contrast rises."""
        low_um, high_um = self._reach_um
        towards = {"lower": low_um, "higher": high_um}
        return towards.get(rising(self._known.evidence), float(np.clip(self.belief.mode_um, low_um, high_um)))

    # --- when to give up ---

    def _refuse_hopeless(self) -> None:
        known, count = self._known, len(self.measurements)
        if count >= 3 and not known.shows_something:
            raise nothing_seen()
        if count >= SUSPECT_EXPOSURES and self._is_odd and self.axis.suspect and known.is_calibrated:
            local = local_map(self.measurements, known.calibration, self.belief.best_um)
            if not is_uneven(local, known.unit_um):
                raise suspected(self.axis.suspect)
        if count >= MISFIT_EXPOSURES and self.belief.misfit > MAX_MISFIT and not self.belief.at_edge:
            if known.is_far:
                raise far_away(known.whereabouts)
            raise explained_nowhere(self.axis.doubt if known.is_calibrated else self.axis.suspect)
        if self._seems_beyond and self._was_near(self._edge_um, BEYOND_UNITS):
            raise beyond_reach(known.whereabouts)

    @property
    def _is_odd(self) -> bool:
        """Whether it is time to ask if the hardware is as it says: before an answer, and where little fits."""
        return self._seems_found(self._usable_um) or self.belief.misfit > ODD_MISFIT

    def _was_near(self, z_um: float, units: float) -> bool:
        """Whether a place was exposed."""
        return any(abs(o.z_um - z_um) <= units * self._known.unit_um for o in self.measurements)
