"""Whatever is asked of it, the guard commands no z outside the limits, and the way home is always open."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.config import StageConfig
from focusd.errors import HardwareError, TravelLimitError
from focusd.focus.frame import Frame
from focusd.microscope.guard import GuardedStage

LIMITS = StageConfig(
    min_um=-50, max_um=120, towards_sample="increasing", max_step_um=30, max_travel_um=400, tolerance_um=0.5
)


class Stage:
    """A stage that remembers what it was told, and errs by a constant."""

    camera_name = "none"

    def __init__(self, z_um: float = 0.0, error_um: float = 0.0) -> None:
        self.z_um = z_um
        self.error_um = error_um
        self.commanded: list[float] = []

    def position_um(self) -> float:
        return self.z_um

    def move_to(self, z_um: float) -> None:
        self.commanded.append(z_um)
        self.z_um = z_um + self.error_um

    def snap(self) -> Frame:
        raise NotImplementedError

    def end_sequence(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


def test_returns_the_position_read_back() -> None:
    stage = Stage(error_um=0.25)

    assert GuardedStage(stage, LIMITS).move_to(10) == 10.25


@pytest.mark.parametrize(
    ("z_um", "message"),
    [
        (120.001, r"beyond stage\.max_um: the limits are -50 … 120 µm"),
        (-51, r"beyond stage\.min_um"),
        (math.nan, "not a position"),
        (math.inf, "not a position"),
    ],
)
def test_refuses_what_is_no_allowed_z_and_moves_nothing(z_um: float, message: str) -> None:
    stage = Stage()

    with pytest.raises(TravelLimitError, match=message):
        GuardedStage(stage, LIMITS).move_to(z_um)

    assert stage.commanded == []


def test_the_limits_themselves_are_allowed() -> None:
    guarded = GuardedStage(Stage(), LIMITS)

    assert [guarded.move_to(120), guarded.move_to(-50)] == [120, -50]


def test_long_way_is_split_into_steps() -> None:
    stage = Stage()

    GuardedStage(stage, LIMITS).move_to(100)

    assert stage.commanded == [25, 50, 75, 100]


@pytest.mark.parametrize("max_step_um", [1e-9, 5e-324])
def test_a_way_of_very_many_steps_is_begun_at_once(max_step_um: float) -> None:
    guarded = GuardedStage(stage := Stage(), LIMITS.model_copy(update={"max_step_um": max_step_um}))

    way = guarded.steps_to(100)

    assert max(next(way), next(way)) < 1e-6
    assert len(stage.commanded) == 2


def test_steps_not_taken_move_nothing() -> None:
    stage = Stage()

    next(iter(GuardedStage(stage, LIMITS).steps_to(100)))

    assert stage.commanded == [25]


def test_spent_travel_refuses_the_next_move_but_not_the_way_home() -> None:
    guarded = GuardedStage(stage := Stage(z_um=5), LIMITS)
    assert guarded.begin_operation() == 5
    for z_um in (100, -40, 100):
        guarded.move_to(z_um)

    with pytest.raises(TravelLimitError, match=r"path of this operation to 515\.0 µm; stage\.max_travel_um"):
        guarded.move_to(-40)

    assert stage.z_um == 100
    assert guarded.return_to_start() == 5
    guarded.begin_operation()
    assert guarded.move_to(-40) == -40


def test_refused_move_costs_no_travel() -> None:
    guarded = GuardedStage(Stage(), LIMITS)
    for _ in range(10):
        with pytest.raises(TravelLimitError):
            guarded.move_to(1000)

    assert guarded.move_to(100) == 100


@pytest.mark.parametrize("read_um", [130.0, -50.6, math.nan])
def test_stage_outside_its_limits_is_not_moved(read_um: float) -> None:
    guarded = GuardedStage(stage := Stage(z_um=read_um), LIMITS)
    guarded.begin_operation()

    with pytest.raises(TravelLimitError, match="outside its limits -50 … 120 µm: bring it inside by hand"):
        guarded.move_to(0)

    assert stage.commanded == []
    guarded.return_to_start()
    assert stage.commanded == []


def test_home_slightly_outside_the_limits_is_clipped_to_them() -> None:
    guarded = GuardedStage(stage := Stage(z_um=120.3), LIMITS)
    guarded.begin_operation()
    guarded.move_to(110)

    guarded.return_to_start()

    assert stage.commanded == [110, 120]


def test_steps_smaller_than_the_tolerance_stay_inside_too() -> None:
    limits = LIMITS.model_copy(update={"max_step_um": 0.2})
    guarded = GuardedStage(stage := Stage(z_um=120.4), limits)

    guarded.move_to(119.9)

    assert stage.commanded[0] == 120
    assert max(stage.commanded) == 120


@pytest.mark.parametrize("error_um", [0.6, -0.6, math.nan])
def test_wrong_read_back_is_reported_with_both_values(error_um: float) -> None:
    guarded = GuardedStage(stage := Stage(error_um=error_um), LIMITS)

    with pytest.raises(HardwareError, match=r"sent to 25\.000 µm and reads back") as caught:
        guarded.move_to(100)

    assert stage.commanded == [25]
    assert caught.value.data["sent_um"] == 25
    assert caught.value.data["read_um"] == pytest.approx(25 + error_um, nan_ok=True)


asked = st.one_of(st.floats(), st.floats(-60, 130), st.sampled_from(["begin", "home"]))


@given(st.floats(-49, 119), st.floats(-0.4, 0.4), st.lists(asked, max_size=30))
def test_no_sequence_leaves_the_limits_or_exceeds_a_step(
    start_um: float, error_um: float, sequence: list[float | str]
) -> None:
    guarded = GuardedStage(stage := Stage(start_um, error_um), LIMITS)
    for ask in sequence:
        before_um, told = stage.z_um, len(stage.commanded)
        try:
            _do(guarded, ask)
        except TravelLimitError:
            assert stage.commanded[told:] == []
        way = [before_um, *stage.commanded[told:]]
        assert all(abs(b - a) <= LIMITS.max_step_um + 1e-9 for a, b in pairwise(way))
    assert all(LIMITS.min_um <= z_um <= LIMITS.max_um for z_um in stage.commanded)


@given(st.floats(-49, 119), st.lists(st.floats(-60, 130), max_size=30))
def test_home_is_always_reached_within_the_travel_of_one_operation(
    start_um: float, sequence: list[float]
) -> None:
    guarded = GuardedStage(stage := Stage(start_um), LIMITS)
    guarded.begin_operation()
    for z_um in sequence:
        try:
            guarded.move_to(z_um)
        except TravelLimitError:
            continue
    path = [start_um, *stage.commanded]

    assert sum(abs(b - a) for a, b in pairwise(path)) <= LIMITS.max_travel_um + 1e-6
    assert guarded.return_to_start() == pytest.approx(start_um, abs=1e-9)


def _do(guarded: GuardedStage, ask: float | str) -> None:
    if isinstance(ask, float):
        guarded.move_to(ask)
    elif ask == "begin":
        guarded.begin_operation()
    else:
        guarded.return_to_start()
