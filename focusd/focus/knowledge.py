"""What the exposures of one search tell: of the sample, of the focus, and of whether the reported z is true.

No I/O, no clock, and no decision: `focus.search` decides what follows from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from focusd.focus.axis import SURE_CHI2, AxisBelief, examine
from focusd.focus.calibration import Calibration
from focusd.focus.extent import Extent, Optics, calibration_of, find_extent
from focusd.focus.focus import beyond_reach
from focusd.focus.likelihood import ROUGH_ITERATIONS, Comparison
from focusd.focus.measurement import (
    Mask,
    Measurement,
    blocks_with_structure,
    tiles_surely_seen,
    tiles_with_structure,
)
from focusd.focus.posterior import Evidence, Posterior, Prior, posterior, posterior_near, survey
from focusd.focus.scale import Scale, ScaleMemory, ScalePrior
from focusd.focus.spherical import may_be_aberrated
from focusd.focus.thickness import Thickness, thickness_of
from focusd.focus.whereabouts import could_be_inside, telling, whereabouts
from focusd.optics.bands import BlockSpectra
from focusd.optics.instrument import Instrument

MIN_CERTAINTY = 0.99
"""Probability of the main mode below which a focus is ambiguous."""
FLOOR_UNITS = 0.005
"""What no number of exposures takes away from σ, in λ·n/NA², even if the calibration has no error."""
SUSPECT_EXPOSURES = 3
"""Two exposures fit one focus or another whatever the hardware does."""
MAX_GUILT = 0.5
"""Probability that the hardware lies beyond which no focus is claimed, and no exposure verifies one."""
MAX_GUILT_OF_TWO = 0.12
"""The same after two exposures, which one more may clear: half of what is suspected before any frame is left."""
AGREED_UNITS = 0.1
"""σ of the focus, with all that the hardware may be suspected of, up to which its lies do not matter."""
THICK_EXPOSURES = 3
"""Two exposures are explained by some focus, whatever the extent of the sample."""


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

    def is_known(self, at_most_um: float) -> bool:
        """Whether one place is nearly sure, and known so well."""
        return self.sigma_um <= at_most_um and self.certainty >= MIN_CERTAINTY


class Knowledge:
    """What is known of one sample's focus; tell it measurements, and ask.

    Args:
        calibration: of the objective in use.
        limits_um: the stage's.
        threshold: probability of structure from which a tile counts.
        prior: of a warm start.
        is_thin: the sample is known to be thin, so that only hardware that lies makes it look thick.
        scale: of the axis, as far as it is known; None: nothing is known of it.
        instrument: by which aberrations are computed; None: it is not known, and they are not looked for.

    Attributes:
        measurements: in their order.
        calibration: as it holds for this sample, as far as that is known.
        extent: what of the sample is unlike the calibrated one.
        start_um: where the stage stood before the first move; None: at the first exposure.
    """

    def __init__(
        self,
        calibration: Calibration,
        limits_um: tuple[float, float],
        *,
        threshold: float,
        prior: Prior | None,
        is_thin: bool,
        scale: ScalePrior | None,
        instrument: Instrument | None,
    ) -> None:
        self._scale = scale or ScaleMemory().prior()
        self._thin = self.calibration = calibration.stretched(self._scale.learnt.value)
        self.extent = Extent()
        self._limits_um = limits_um
        self._threshold = threshold
        self._prior = prior
        self._is_thin = is_thin
        self._instrument = instrument
        self.measurements: list[Measurement] = []
        self.start_um: float | None = None
        self._posterior: Posterior | None = None
        self._axis: AxisBelief | None = None
        self._surveyed: tuple[list[BlockSpectra], tuple[float, float], Comparison] | None = None

    def add(self, measurement: Measurement) -> None:
        """Take one more exposure into account."""
        self.measurements.append(measurement)
        self._posterior = self._axis = None

    @property
    def unit_um(self) -> float:
        """λ·n/NA²."""
        return self.calibration.axial_unit_um

    @property
    def has_belief(self) -> bool:
        """Whether `belief` has been made since the last exposure."""
        return self._posterior is not None

    @property
    def belief(self) -> Posterior:
        """The posterior after the last exposure; there has to be one. It is made when it is asked for."""
        if self._posterior is None:
            self._use(Extent())
            found = self._posterior_now()
            if len(self.measurements) >= THICK_EXPOSURES:
                known = self._thin, self.within_um, self._optics, self._is_thin
                self._use(find_extent(self.evidence, *known))
                found = self._posterior_now() if self.calibration is not self._thin else found
            self._posterior = found
        return self._posterior

    @property
    def axis(self) -> AxisBelief:
        """What the exposures say if the reported z may be wrong; there have to be two of them."""
        if self._axis is None:
            evidence = self.evidence
            start_um = self.measurements[0].z_um if self.start_um is None else self.start_um
            known = self._prior, self.belief, start_um, self._scale
            self._axis = examine(evidence, self.calibration, *known)
            if self.calibration is not self._thin:  # such a sample and hardware that lies may look alike
                thin = examine(evidence, self._thin, *known)
                if thin.suspect and thin.chi2 + SURE_CHI2 * thin.misfit < self.extent.chi2:
                    self._axis = thin
        return self._axis

    @property
    def estimate(self) -> Estimate:
        """The focus as far as it is known, if the reported z is right."""
        return self._estimate_of(self.belief)

    @property
    def with_doubt(self) -> Estimate:
        """The focus and its σ, if the reported z may be wrong."""
        sigma_um = math.hypot(self.axis.sigma_um, self._floor_um, self.extent.sigma_um)
        focus_um = float(np.clip(self.axis.focus_um, *self._limits_um))
        return Estimate(focus_um, sigma_um, self.belief.certainty)

    @property
    def scale(self) -> Scale:
        """Of the axis, as these exposures and the runs before tell it."""
        learnt, found = self._scale.learnt.value, self.axis.scale
        return Scale(learnt * found.value, learnt * found.sigma)

    def pointed_um(self) -> float:
        """How well a place is known that is nearly sure: where an exposure would verify it, whatever else may be."""
        belief = self.belief
        return belief.mode_sigma_um if belief.certainty >= MIN_CERTAINTY else belief.sigma_um

    def reported(self, sigma_um: float) -> float:
        """σ as it is told: with the calibration's own error and the sample's, which no exposure takes away."""
        return math.hypot(sigma_um, self.calibration.origin_sigma_um, self.extent.uneven_um)

    @property
    def is_accused(self) -> bool:
        """Whether hardware that lies explains the exposures better, and the focus lies elsewhere then."""
        allowed = MAX_GUILT if len(self.measurements) >= SUSPECT_EXPOSURES else MAX_GUILT_OF_TWO
        return self.axis.guilt > allowed and self.axis.sigma_um > AGREED_UNITS * self.unit_um

    @property
    def is_suspect(self) -> bool:
        """Whether it is accused by as many exposures as may tell that."""
        return len(self.measurements) >= SUSPECT_EXPOSURES and self.is_accused

    @property
    def is_calibrated(self) -> bool:
        """Whether all exposures lie in the calibrated range: beyond it nobody knows what a frame has to look like."""
        return all(could_be_inside(e, self.calibration) for e in self.evidence)

    @property
    def is_far(self) -> bool:
        """Whether no exposure's score tells its distance."""
        return not telling(self.evidence, self.calibration)

    @property
    def whereabouts(self) -> str:
        """As `Search.whereabouts`, from the first exposure on."""
        evidence = self.evidence
        if len(evidence) >= SUSPECT_EXPOSURES and self.axis.doubt and self.is_calibrated:
            return f"it may be that {self.axis.doubt}"
        return whereabouts(evidence, self.calibration)

    def calibration_at(self, thickness: Thickness) -> Calibration:
        """The calibration for blocks that extend so far along z."""
        return self._of_sample(thickness.um, self.extent)

    def thickness_near(self, focus_um: float) -> Thickness:
        """How far the sample extends within a block: not at all where the field as a whole looks thin."""
        if not self.extent.thick_um:
            return Thickness(uneven_um=self.extent.uneven_um)
        return thickness_of(self.measurements, self._of_sample(0.0, self.extent), focus_um)

    def likely(self, exposed_um: float, blocks: BlockSpectra, is_known: bool) -> Estimate:
        """The focus after one more exposure that has not been scored; there has to be one that has.

        Args:
            blocks: of it, all of them or `thinned`.
            is_known: the focus is known already, and looked for near its place alone.
        """
        measurements, is_quick = self._with_unscored(exposed_um, blocks), self._are_fewer(blocks)
        return self._estimate_of(self._foreseen(measurements, is_quick, is_known))

    @property
    def shows_something(self) -> bool:
        """Whether there is a tile that holds something to focus on."""
        return bool(self._tiles().any())

    @property
    def evidence(self) -> list[Evidence]:
        """The exposures, judged by the tiles and blocks that hold something in them together."""
        return self._evidence_of(self.measurements)

    @property
    def within_um(self) -> tuple[float, float]:
        """Where the focus may lie: in the calibrated range around the first exposure whose score tells its distance, or
        else could, or around any of them.

        Raises:
            OutOfRangeError: all of that lies outside the limits.
        """
        evidence = self.evidence
        inside = [e for e in evidence if could_be_inside(e, self.calibration)]
        near = telling(evidence, self.calibration)[:1] or inside[:1] or evidence
        first_um, last_um = self.calibration.transfer.z_um[[0, -1]]
        low_um, high_um = self._limits_um
        lowest_um, highest_um = min(e.z_um for e in near) - last_um, max(e.z_um for e in near) - first_um
        if (
            lowest_um >= high_um or highest_um <= low_um
        ):  # a frame may lie beside the plane that was asked for
            raise beyond_reach("the frames were taken too far outside of these limits")
        return float(max(lowest_um, low_um)), float(min(highest_um, high_um))

    def _posterior_now(self) -> Posterior:
        surveyed = self._survey(self.measurements)
        return posterior(self.evidence, self.calibration, self.within_um, self._prior, surveyed)

    def _use(self, extent: Extent) -> None:
        """Take the sample to extend so far, and to be aberrated so much."""
        if (extent.thick_um, extent.spherical) != (self.extent.thick_um, self.extent.spherical):
            self.calibration, self._surveyed = self._of_sample(extent.thick_um, extent), None
        self.extent = extent

    def _of_sample(self, thick_um: float, extent: Extent) -> Calibration:
        return calibration_of(self._thin, thick_um, extent.spherical, self._optics)

    @property
    def _optics(self) -> Optics | None:
        if self._instrument is None or not may_be_aberrated(self._instrument):
            return None
        return Optics(self._instrument, self.measurements[0].blocks.size_px)

    def _estimate_of(self, belief: Posterior) -> Estimate:
        return Estimate(belief.best_um, float(np.hypot(belief.sigma_um, self._floor_um)), belief.certainty)

    @property
    def _floor_um(self) -> float:
        return FLOOR_UNITS * self.unit_um

    def _tiles(self) -> Mask:
        """Tiles that hold something in most exposures, or surely in one, as small things do near focus."""
        seen = tiles_with_structure(self.measurements, self._threshold)
        return np.asarray(seen | tiles_surely_seen(self.measurements))

    def _evidence_of(self, measurements: list[Measurement]) -> list[Evidence]:
        tiles = self._tiles()
        tiles = tiles if tiles.any() else np.ones_like(tiles)
        blocks = blocks_with_structure(measurements)
        return [
            Evidence(m.z_um, m.mean_b(tiles), m.mean_sigma(tiles), m.spectrum(blocks)) for m in measurements
        ]

    def _with_unscored(self, exposed_um: float, blocks: BlockSpectra) -> list[Measurement]:
        """The exposures so far and one more, all with the blocks that it has."""
        before = self.measurements
        if self._are_fewer(blocks):
            before = [replace(o, blocks=o.blocks.thinned()) for o in before]
        return [*before, replace(before[-1], z_um=exposed_um, blocks=blocks)]

    def _are_fewer(self, blocks: BlockSpectra) -> bool:
        """Whether they are `thinned`, beside those of the exposures so far."""
        return blocks.noise.shape != self.measurements[-1].blocks.noise.shape

    def _foreseen(self, measurements: list[Measurement], is_quick: bool, is_known: bool) -> Posterior:
        """The posterior when the last of the exposures is not yet scored."""
        *scored, last = self._evidence_of(measurements)
        evidence = [*scored, replace(last, b=None)]
        known = self.calibration, self.within_um, self._prior
        if is_known:
            return posterior_near(self.belief.mode_um, evidence, *known)
        if is_quick:
            return posterior(evidence, *known, iterations=ROUGH_ITERATIONS)
        return posterior(evidence, *known, self._survey(measurements))

    def _survey(self, measurements: list[Measurement]) -> Comparison:
        """What the spectra of these exposures say, made once: before the last is scored they say the same as after."""
        blocks, within_um = [o.blocks for o in measurements], self.within_um
        known = self._surveyed
        if known is None or known[1] != within_um or not _are_same(known[0], blocks):
            found = survey(self._evidence_of(measurements), self.calibration, within_um)
            self._surveyed = known = blocks, within_um, found
        return known[2]


def _are_same(some: list[BlockSpectra], others: list[BlockSpectra]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))
