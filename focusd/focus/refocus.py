"""The run that finds the focus: opening planes, budget, verification, and the plane of the field that is meant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from focusd.errors import BudgetError, OutOfRangeError
from focusd.focus.budget import Budget
from focusd.focus.depth import share_in_focus
from focusd.focus.focus import Search, Surface, surface_of
from focusd.focus.geometry import Direction, Geometry, describe, geometry_of
from focusd.focus.measurement import Mask, Measurement
from focusd.focus.run import Measure, Run, summary
from focusd.focus.scale import Scale
from focusd.focus.thickness import Thickness
from focusd.optics.bands import BlockSpectra
from focusd.protocol.results import Progress, RefocusResult, Spent

BEYOND_DOF = 0.25
"""So far beyond a place the stage turns round, where it would arrive from the wrong side. It is more than the
backlash of most stages, and still in focus, should the stage stay there."""
UNEVEN = ("tilted", "stepped", "thick")
"""Shapes of which one z cannot bring all into focus."""
NEAR_SIGMA = 0.25
"""A stage that stands within so many σ of the focus is not moved again."""


@dataclass(frozen=True)
class Field:
    """What is needed to read the map of a field.

    Attributes:
        pixel_um: a pixel in the sample; None: not known.
        dof_um: depth of field.
        towards_sample: which direction of z brings objective and sample closer.
        surface: which plane of a field that is not flat is brought into focus.
    """

    pixel_um: float | None
    dof_um: float
    towards_sample: Direction
    surface: Surface


class RefocusRun(Run[RefocusResult]):
    """A search for the focus from a given z.

    Args:
        search: decides which plane to expose, and where the focus is.
        field: how its map of the field is read.
        start_um: where the stage stands.
        limits_um: nothing outside is asked for.
        exposure_ms: of the camera, for the dose.
        strategy: name of the search.
        note: what is added to the message.
        learn: is told the scale of the axis, if the exposures have shown it.

    Attributes:
        field, start_um, limits_um: as given.
    """

    def __init__(
        self,
        measuring: Measure,
        search: Search,
        budget: Budget,
        field: Field,
        *,
        start_um: float,
        limits_um: tuple[float, float],
        exposure_ms: float,
        strategy: str,
        note: str,
        learn: Callable[[Scale], None] = lambda _: None,
    ) -> None:
        self._search = search
        self._budget = budget
        self.limits_um = limits_um
        self._exposure_ms = exposure_ms
        self._strategy = strategy
        self._note = note
        self._learn = learn
        self.field = field
        self.start_um = start_um
        self._believed: tuple[float, float] | None = None
        super().__init__(measuring, search.opening_um(self._inside(start_um)))
        self._wanted_um = self._affordable(self._wanted_um)

    @property
    def believed(self) -> tuple[float, float] | None:
        """The focus and its σ: as reported at the end, else as it seemed most probable at the last judgement.

        None: there is no belief yet. The opening planes are judged together.
        """
        if self._result is not None:
            return self._result.focus_um, self._result.sigma_um
        return self._believed

    @property
    def progress(self) -> Progress:
        """The last exposure, how many there were, and how many there may be."""
        last = dict(summary(self.measurements[-1]))
        allowed = self._budget.exposures + self._search.besides
        return Progress(**last, exposure=len(self.measurements), of=allowed)

    @property
    def before_um(self) -> float | None:
        """Where to go before the opening planes, so that they are approached from the same side; None: straight there.

        What matters is how far apart the frames are, and backlash changes that where the stage turns. The way is not as
        long as from plane to plane: frames of a stage that lags by one move would lie as far apart as they should.
        """
        if len(self._wanted_um) < 2:
            return None
        first_um, second_um = self._wanted_um[:2]
        before_um = first_um + math.copysign(BEYOND_DOF * self.field.dof_um, first_um - second_um)
        has_turned = (first_um - self.start_um) * (second_um - first_um) < 0
        has_room = self.limits_um[0] <= before_um <= self.limits_um[1]
        return before_um if has_turned and has_room else None

    def informative_tiles(self) -> Mask | None:
        """Return the tiles that are worth scoring in the next frame; None: all."""
        return self._search.telling_tiles()

    def predict_focus_um(self, exposed_um: float, spectra: BlockSpectra) -> float | None:
        """Return where the stage will most likely be wanted next, before the frame is scored; None: not known yet.

        Args:
            exposed_um: z of the frame.
            spectra: of the frame, of all blocks or of a quarter of them.
        """
        return self._search.likely_um(exposed_um, spectra)

    def judge(self) -> None:
        """Decide which plane to expose next, or end with the focus.

        Raises:
            NoSampleError, NoConvergenceError, OutOfRangeError, HardwareError: the frames show no focus.
            BudgetError: no further exposure is allowed, and the focus is not known well enough.
        """
        if self._wanted_um:
            return
        z_um = self._search.next_z_um()
        self._believed = self._search.believed
        if z_um is None or not self._may_expose():
            self._end()
        else:
            self._wanted_um = [self._inside(z_um)]

    def spent(self, lit: int | None = None) -> Spent:
        """Return exposures and dose so far, and every probe.

        Args:
            lit: how often the sample was lit, if a rig counted it; None: as the frames say.
        """
        return Spent(
            exposures=len(self.measurements),
            dose_ms=(self.exposures if lit is None else lit) * self._exposure_ms,
            seconds=self.elapsed_s,
            probes=[summary(m) for m in self.measurements],
        )

    def _take(self, measurement: Measurement) -> None:
        self.measurements.append(measurement)
        self._search.add(measurement)

    def _end(self) -> None:
        focus = self._search.decide()
        if scale := self._search.scale:
            self._learn(scale)
        local, extent_um, dof_um = focus.local, focus.thickness.um, self.field.dof_um
        field = self.field.pixel_um, dof_um, self.field.towards_sample
        geometry = geometry_of(local, *field, extent_um)
        target_um, sigma_um = surface_of(focus, geometry, self.field.surface)
        geometry = _thickened(geometry, focus.thickness, dof_um)
        sharp = share_in_focus(local, extent_um, target_um, dof_um) if geometry.depths_um else None
        self._require_inside(target_um)
        self._result = RefocusResult(
            **dict(self.spent()),
            outcome="focused",
            message=_joined(focus.message, _warning(geometry), _sharp_in_words(geometry, sharp), self._note),
            z_start_um=self.start_um,
            focus_um=target_um,
            z_found_um=target_um,
            shift_um=target_um - self.start_um,
            sigma_um=sigma_um,
            geometry=describe(local, geometry, self.field.pixel_um),
            strategy=self._strategy,
            dof_um=dof_um,
            thickness_um=extent_um,
            share_in_focus=sharp,
        )

    def _may_expose(self) -> bool:
        """Whether one more exposure is allowed; if not, the focus is known well enough to end with.

        Raises:
            BudgetError: it is not.
        """
        try:
            self._check_budget()
        except BudgetError:
            if self._search.is_usable:
                return False
            raise
        return True

    def _check_budget(self, ahead: int = 0) -> None:
        """Refuse one more exposure, after those taken and some that are still to be taken before it.

        Raises:
            BudgetError: it says what the search knows so far.
        """
        exposures = max(0, len(self.measurements) + ahead - self._search.besides)
        elapsed_s = self.elapsed_s + ahead * self._exposure_ms / 1000
        dose_ms = self._dose_ms + ahead * self._exposure_ms
        try:
            self._budget.check(exposures, elapsed_s, self._exposure_ms, dose_ms)
        except BudgetError as error:
            known = self._search.so_far()
            raise BudgetError(error.message + self._known_in_words(known), **known) from None

    def _known_in_words(self, known: dict[str, float]) -> str:
        """Say what the search knows of the focus by now."""
        return _in_words(known) or (f"; {told}" if (told := self._search.whereabouts) else "")

    def _affordable(self, planes_um: list[float]) -> list[float]:
        """Return as many of the first planes as the budget holds.

        Raises:
            BudgetError: it holds none.
        """
        self._check_budget()
        return [z_um for ahead, z_um in enumerate(planes_um) if not ahead or self._can_afford_after(ahead)]

    def _can_afford_after(self, ahead: int) -> bool:
        try:
            self._check_budget(ahead)
        except BudgetError:  # it is raised once those before have been scored
            return False
        return True

    def _inside(self, z_um: float) -> float:
        """Return the z, or the limit that it passes: a stage may stand, and a frame may be taken, outside of them."""
        low_um, high_um = self.limits_um
        return min(max(float(z_um), low_um), high_um)

    def _require_inside(self, target_um: float) -> None:
        low_um, high_um = self.limits_um
        if not low_um <= target_um <= high_um:
            raise OutOfRangeError(
                f"the focus, at {target_um:.2f} µm, lies beyond what this search may use, "
                f"{low_um:.1f} to {high_um:.1f} µm; the stage does not go there"
            )

    @property
    def _dose_ms(self) -> float:
        return self.exposures * self._exposure_ms


def _in_words(known: dict[str, float]) -> str:
    """Say what a search that has to end knows by then."""
    if not known:
        return ""
    so_far = f"; so far it is {known['focus_um']:.2f} ± {known['sigma_um']:.2f} µm"
    return f"{so_far}, and ± {known['target_um']:.2f} µm is asked for (target_um)"


def _warning(geometry: Geometry) -> str:
    """Say what shape the field has, where one z cannot bring all of it into focus."""
    return geometry.reason if geometry.shape in UNEVEN else ""


def _sharp_in_words(geometry: Geometry, share: float | None) -> str:
    """Say how much of the sample is in focus, where one z cannot bring all of it into focus."""
    is_uneven = geometry.shape in UNEVEN and share is not None
    return f"{share:.0%} of it is in focus at this z" if is_uneven else ""


def _thickened(geometry: Geometry, thickness: Thickness, dof_um: float) -> Geometry:
    """Call a field thick whose sample surely extends over more than the depth of field: no z shows all of it sharp.

    What its blocks say of its shape besides is told with it.
    """
    if thickness.at_least_um <= dof_um:
        return geometry
    extent = (
        f"the sample extends over about {thickness.um:.2g} µm along z, {thickness.um / dof_um:.2g} depths of field, "
        "and its middle counts as its focus"
    )
    return replace(geometry, shape="thick", reason=_joined(extent, _warning(geometry)))


def _joined(*messages: str) -> str:
    return "; ".join(filter(None, messages))
