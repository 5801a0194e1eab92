"""The searches on a simulated rig, exposure by exposure, with what each believed and would have reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Protocol

import numpy as np

from bench.brent import brent
from bench.rig import Rig
from bench.setting import Setting
from focusd.errors import FocusdError
from focusd.focus.calibration import Calibration
from focusd.focus.focus import surface_of
from focusd.focus.geometry import geometry_of
from focusd.focus.observation import Observation, tiles_with_structure
from focusd.focus.posterior import Prior
from focusd.focus.published import PublishedSearch, golden_section_point
from focusd.focus.search import USABLE_DOF, PosteriorSearch
from focusd.focus.shift import locate
from focusd.scoring.classical import MEASURES

STRUCTURE_THRESHOLD = 0.5
TARGET_DOF = 0.1
BUDGET = 8
"""The daemon's defaults."""
SEARCHING, FOCUSED = "searching", "focused"

Look = Callable[[float], Observation]


@dataclass(frozen=True)
class Step:
    """After one exposure.

    Attributes:
        defocus_um: at which it was taken.
        error_um: of the focus as then believed; NaN where nothing is believed.
        sigma_um: as then stated; NaN where none is.
        outcome: `searching`, or how the search would end here.
        is_usable: whether it would be reported, were the budget spent.
    """

    defocus_um: float
    error_um: float
    sigma_um: float
    outcome: str
    is_usable: bool = False


Trace = list[Step]


class Searched(Protocol):
    """What a search has to know of whatever it looks at."""

    setting: Setting
    limits_um: tuple[float, float]


def posterior_search(rig: Searched, calibration: Calibration) -> PosteriorSearch:
    """The search as the daemon sets it up."""
    setting = rig.setting
    return PosteriorSearch(
        calibration,
        rig.limits_um,
        away_is_low=True,
        threshold=STRUCTURE_THRESHOLD,
        target_um=TARGET_DOF * setting.instrument.depth_of_field_um,
        usable_um=USABLE_DOF * setting.instrument.depth_of_field_um,
        prior=Prior(0.0, setting.start_um) if setting.warm else None,
    )


def posterior_steps(
    search: PosteriorSearch, look: Look, focus_um: Callable[[], float], dof_um: float
) -> Iterator[Step]:
    """Expose where the search says, from 0, without end: also after it is satisfied.

    Args:
        look: exposes at a z.
        focus_um: the truth at the last exposure.
        dof_um: depth of field.
    """
    z_um = 0.0
    while True:
        try:
            search.add(look(z_um).scored_on(search.telling_tiles()))
        except FocusdError as error:
            yield Step(z_um - focus_um(), np.nan, np.nan, error.outcome)
            return
        following, outcome = _following(search)
        (answer_um, sigma_um), truth = _answer(search, dof_um), focus_um()
        yield Step(z_um - truth, answer_um - truth, sigma_um, outcome, search.is_usable)
        z_um = search.probe_um() if following is None else following


def _answer(search: PosteriorSearch, dof_um: float) -> tuple[float, float]:
    """The focus and its σ as the daemon reports them, or would have to, if it had to stop here."""
    if not search.is_usable:
        return search.estimate.focus_um, search.estimate.sigma_um
    focus = search.decide()
    return surface_of(focus, geometry_of(focus.local, None, dof_um, "increasing"), "mean")


def _following(search: PosteriorSearch) -> tuple[float | None, str]:
    try:
        z_um = search.next_z_um()
    except FocusdError as error:
        return None, error.outcome
    return z_um, FOCUSED if z_um is None else SEARCHING


def published_steps(search: PublishedSearch, calibration: Calibration, rig: Rig) -> Iterator[Step]:
    """The published search; once its scores are convex, it goes on by golden section."""
    z_um: float | None = 0.0
    while z_um is not None:
        search.add(rig.look(z_um))
        error_um = _located_um(search, calibration, rig) - rig.focus_um
        outcome = _decided(search) if len(search.observations) >= 3 else SEARCHING
        yield Step(z_um - rig.focus_um, error_um, np.nan, outcome)
        z_um = _next_published(search)


def _located_um(search: PublishedSearch, calibration: Calibration, rig: Rig) -> float:
    """The focus that the scores point at, whether or not the search would report it."""
    if len(search.observations) < 2:
        return float("nan")
    seen = tiles_with_structure(search.observations, STRUCTURE_THRESHOLD)
    seen = seen if seen.any() else np.ones_like(seen)
    return locate(search.observations, calibration, seen, rig.limits_um).focus_um


def _decided(search: PublishedSearch) -> str:
    try:
        search.decide()
    except FocusdError as error:
        return error.outcome
    return FOCUSED


def _next_published(search: PublishedSearch) -> float | None:
    try:
        z_um = search.next_z_um()
    except FocusdError:
        z_um = None
    if z_um is not None:
        return z_um
    seen = tiles_with_structure(search.observations, STRUCTURE_THRESHOLD)
    seen = seen if seen.any() else np.ones_like(seen)
    return golden_section_point([(o.z_um, o.mean_b(seen)) for o in search.observations])


def brent_trace(rig: Rig, measure: str, exposures: int) -> Trace:
    """Bounded Brent within the start's range; it always reports success."""
    reach_um = rig.setting.start_um
    answers = brent(lambda z_um: MEASURES[measure](rig.expose(z_um)), (-reach_um, reach_um), exposures)
    return [Step(np.nan, z_um - rig.focus_um, np.nan, FOCUSED) for z_um in answers]


def completed(steps: Iterator[Step], exposures: int) -> Trace:
    """The first steps; one that ends sooner keeps its answer."""
    trace = list(islice(steps, exposures))
    return trace + [trace[-1]] * (exposures - len(trace))


def alone(steps: Iterator[Step], budget: int = BUDGET) -> tuple[int, Step]:
    """Exposures and last step of a search that ends by itself, or with its budget."""
    for count, step in enumerate(steps, 1):
        if step.outcome != SEARCHING:
            return count, step
        if count == budget:
            break
    return count, replace(step, outcome=FOCUSED if step.is_usable else "budget_spent")
