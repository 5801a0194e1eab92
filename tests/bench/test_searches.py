"""The drivers of the searches, on exposures that an ideal network would make."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bench.recorded import APART_UM, groups, unseen
from bench.searches import FOCUSED, SEARCHING, Step, alone, completed, posterior_steps
from focusd.errors import HardwareError, SaturatedError
from focusd.focus.calibration import Calibration, calibrate
from focusd.focus.observation import Observation
from focusd.focus.search import PosteriorSearch
from tests.focus.exposures import exposure

FOCUS_UM = 31.0


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate([exposure(z) for z in np.arange(-100, 101, 4.0)], {}, 0.5)[0]


def steps(calibration: Calibration, look: Callable[[float], Observation]) -> Iterator[Step]:
    search = PosteriorSearch(calibration, (-300, 300), away_is_low=True, threshold=0.5, target_um=1.0)
    return posterior_steps(search, look, lambda: FOCUS_UM, 8.3)


def look(z_um: float) -> Observation:
    return exposure(z_um, FOCUS_UM)


def saturated(z_um: float) -> Observation:
    raise SaturatedError("too bright")


def made(outcomes: list[str]) -> Iterator[Step]:
    return (Step(0.0, 0.5 * n, 0.1, outcome) for n, outcome in enumerate(outcomes))


def test_the_search_begins_here_and_goes_on_after_it_is_satisfied(calibration: Calibration) -> None:
    trace = completed(steps(calibration, look), 7)
    assert trace[0].defocus_um == -FOCUS_UM
    assert trace[-1].outcome == FOCUSED
    assert [s.outcome for s in trace].index(FOCUSED) < 6
    assert abs(trace[-1].error_um) < 1.0


def test_alone_it_stops_where_it_is_satisfied(calibration: Calibration) -> None:
    count, last = alone(steps(calibration, look))
    outcomes = [s.outcome for s in completed(steps(calibration, look), count)]
    assert last.outcome == FOCUSED
    assert outcomes == [SEARCHING] * (count - 1) + [FOCUSED]


def test_a_refused_exposure_ends_the_search_without_an_answer(calibration: Calibration) -> None:
    count, last = alone(steps(calibration, saturated))
    assert (count, last.outcome) == (1, "saturated")
    assert np.isnan(last.error_um)


def test_a_budget_ends_what_does_not_end_by_itself() -> None:
    count, last = alone(made([SEARCHING] * 9), budget=4)
    assert (count, last.outcome, last.error_um) == (4, "budget_spent", 1.5)
    count, last = alone(made([SEARCHING] * 3), budget=8)
    assert (count, last.outcome) == (3, "budget_spent")


def test_a_trace_that_ends_early_keeps_its_answer() -> None:
    trace = completed(made([SEARCHING, FOCUSED]), 4)
    assert [s.error_um for s in trace] == [0.0, 0.5, 0.5, 0.5]


def test_groups_are_all_choices_of_near_planes() -> None:
    planes = [exposure(z) for z in (-40.0, 0.0, 4.0, 10.0)]
    pairs = [tuple(o.z_um for o in group) for group in groups(planes, 2)]
    assert pairs == [(-40.0, 0.0), (-40.0, 4.0), (0.0, 4.0), (0.0, 10.0), (4.0, 10.0)]
    assert [len(list(groups(planes, n))) for n in (3, 4)] == [2, 0]
    assert APART_UM == 45.0


def test_a_recorded_plane_is_shown_once() -> None:
    planes = [exposure(z) for z in (-10.0, 0.0, 7.0)]
    show = unseen(planes, planes[1])
    assert [show(z).z_um for z in (0.0, 0.0, 0.0)] == [0.0, 7.0, -10.0]
    with pytest.raises(HardwareError):
        show(0.0)
