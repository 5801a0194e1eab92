"""Whatever is asked of it, the guard commands no z outside the limits, and the way home is always open."""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.config import StageConfig
from focusd.errors import HardwareError, TravelLimitError
from focusd.focus.frame import Frame
from focusd.microscope.guard import GuardedStage, RunUp

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


LOOSE = LIMITS.model_copy(update={"backlash_um": 3.0})
TURNED = LOOSE.model_copy(update={"towards_sample": "decreasing"})


class LooseStage(Stage):
    """A stage whose optics lag behind where the way turns round, which it does not know of."""

    play_um = 3.0

    def __init__(self, z_um: float = 0.0, lag: float = 0.0) -> None:
        super().__init__(z_um)
        self.optical_um = z_um + lag * self.play_um / 2

    def move_to(self, z_um: float) -> None:
        super().move_to(z_um)
        half_um = self.play_um / 2
        self.optical_um = min(max(self.optical_um, z_um - half_um), z_um + half_um)


@given(st.lists(st.tuples(st.floats(-49, 119), st.booleans()), max_size=20))
def test_without_backlash_each_way_is_straight_whatever_came_before(ways: list[tuple[float, bool]]) -> None:
    guarded = GuardedStage(stage := Stage(), LIMITS.model_copy(update={"max_travel_um": 1e9}))
    for z_um, is_new in ways:
        from_um, told = stage.z_um, len(stage.commanded)
        if is_new:
            guarded.begin_operation()
        guarded.move_to(z_um)
        steps = max(1, math.ceil(abs(z_um - from_um) / LIMITS.max_step_um))
        between = [from_um + (z_um - from_um) * (number / steps) for number in range(1, steps)]
        assert stage.commanded[told:] == [*between, z_um]


def test_a_way_away_from_the_sample_goes_beyond_and_comes_back() -> None:
    guarded = GuardedStage(stage := Stage(), LOOSE)
    guarded.move_to(-10)
    assert stage.commanded == [-13, -10]
    guarded.move_to(-45)
    assert stage.commanded[2:] == [-29, -48, -45], "each part in steps that are short enough"


def test_the_other_way_where_a_smaller_z_is_nearer_to_the_sample() -> None:
    guarded = GuardedStage(stage := Stage(), TURNED)
    guarded.move_to(10)
    assert stage.commanded == [13, 10]
    guarded.move_to(9.5)
    assert stage.commanded[2:] == [9.5]


def test_a_way_towards_the_sample_is_straight_once_the_play_is_taken_up() -> None:
    guarded = GuardedStage(stage := Stage(), LOOSE)
    guarded.move_to(1)
    assert stage.commanded == [-2, 1], "nobody knows from where the stage had come"
    for z_um in (1, 1.1, 8):
        guarded.move_to(z_um)
    assert stage.commanded[2:] == [1, 1.1, 8]


def test_a_long_way_towards_the_sample_takes_up_all_play_by_itself() -> None:
    GuardedStage(stage := Stage(), LOOSE).move_to(3)
    assert stage.commanded == [3]


def test_where_the_limit_leaves_no_room_the_stage_goes_as_far_beyond_as_it_may() -> None:
    guarded = GuardedStage(stage := LooseStage(), LOOSE)
    guarded.move_to(-49)
    guarded.move_to(-50)
    assert stage.commanded == [-25, -50, -49, -50]
    guarded.move_to(-48)
    assert stage.commanded[4:] == [-48], "there is nowhere to come from"
    guarded.move_to(-46)
    assert stage.commanded[5:] == [-46], "by now the play is taken up"
    assert stage.optical_um == -47.5


def test_what_others_did_to_the_stage_is_not_known() -> None:
    guarded = GuardedStage(stage := Stage(), LOOSE)
    guarded.move_to(10)
    stage.z_um = 8  # a hand on the knob
    guarded.move_to(10)
    assert stage.commanded == [10, 7, 10]
    guarded.begin_operation()
    guarded.move_to(10)
    assert stage.commanded[3:] == [7, 10], "it may have been moved, and back, in between"


def test_a_way_that_is_given_up_beyond_is_known_to_have_ended_there() -> None:
    guarded = GuardedStage(stage := LooseStage(), LOOSE)
    guarded.move_to(10)
    next(guarded.steps_to(5))
    assert stage.z_um == 2
    guarded.move_to(4)
    assert stage.commanded[1:] == [2, 1, 4]
    assert stage.optical_um == 2.5


def test_the_way_beyond_counts_as_travel_and_is_free_on_the_way_home() -> None:
    limits = LOOSE.model_copy(update={"max_travel_um": 30.0})
    guarded = GuardedStage(stage := Stage(20), limits)
    guarded.begin_operation()
    guarded.move_to(-1)  # 24 µm down and 3 up
    with pytest.raises(TravelLimitError, match=r"path of this operation to 34\.0 µm"):
        guarded.move_to(-2)
    guarded.return_to_start()
    assert stage.z_um == 20


def test_an_operation_may_come_from_the_other_side() -> None:
    guarded = GuardedStage(stage := Stage(), LIMITS)
    guarded.begin_operation(RunUp(-1, 5.0))
    guarded.move_to(10)
    assert stage.commanded == [15, 10]
    guarded.begin_operation()
    guarded.move_to(12)
    assert stage.commanded[2:] == [12], "the next one is as configured"


places = st.floats(-47, 120)
"""With room beyond."""


@given(
    places,
    st.floats(-1, 1),
    st.lists(st.tuples(places, st.integers(0, 4)), max_size=20),
    st.sampled_from(["increasing", "decreasing"]),
)
def test_wherever_it_has_been_each_z_is_reached_from_the_same_side(
    start_um: float, lag: float, moves: list[tuple[float, int]], towards: str
) -> None:
    sign = 1 if towards == "increasing" else -1
    limits = LOOSE.model_copy(
        update={"towards_sample": towards, "max_travel_um": 1e9}
        | ({} if sign == 1 else {"min_um": -120, "max_um": 50})
    )
    guarded = GuardedStage(stage := LooseStage(sign * start_um, lag), limits)
    guarded.begin_operation()
    for place_um, given_up_after in moves:
        before_um, told = stage.z_um, len(stage.commanded)
        if given_up_after:
            for _ in zip(range(given_up_after), guarded.steps_to(sign * place_um), strict=False):
                pass
        else:
            guarded.move_to(sign * place_um)
            assert stage.optical_um == pytest.approx(sign * (place_um - 1.5), abs=1e-5)
        nearest_um = max(sign * before_um, place_um)
        assert all(sign * z_um <= nearest_um + 1e-9 for z_um in stage.commanded[told:])
    if len(stage.commanded):
        guarded.return_to_start()
        assert stage.optical_um == pytest.approx(sign * (start_um - 1.5), abs=1e-5)


@given(st.floats(-49, 119), st.lists(asked, max_size=30))
def test_with_backlash_too_nothing_leaves_the_limits_or_exceeds_a_step(
    start_um: float, sequence: list[float | str]
) -> None:
    guarded = GuardedStage(stage := Stage(start_um), LOOSE)
    for ask in sequence:
        before_um, told = stage.z_um, len(stage.commanded)
        with suppress(TravelLimitError):
            _do(guarded, ask)
        way = [before_um, *stage.commanded[told:]]
        assert all(abs(b - a) <= LIMITS.max_step_um + 1e-9 for a, b in pairwise(way))
    assert all(LIMITS.min_um <= z_um <= LIMITS.max_um for z_um in stage.commanded)


def _do(guarded: GuardedStage, ask: float | str) -> None:
    if isinstance(ask, float):
        guarded.move_to(ask)
    elif ask == "begin":
        guarded.begin_operation()
    else:
        guarded.return_to_start()
