"""From which side the stage comes to the answer: as to the exposure that verified it, backlash or not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.daemon.approach import Approach
from focusd.daemon.operations import RigOperations
from focusd.protocol.requests import RefocusParams
from tests.daemon.scripted import LooseMicroscope, Reports, ScriptedScorer

pytestmark = pytest.mark.anyio

PLAY_UM = 2.0


@pytest.fixture
def microscope() -> LooseMicroscope:
    return LooseMicroscope()


@pytest.mark.parametrize("focus_um", [1.0, 2.4, 3.0, 3.8])
async def test_a_check_ends_in_focus_on_a_stage_with_backlash(
    calibrated: RigOperations, microscope: LooseMicroscope, scorer: ScriptedScorer, focus_um: float
) -> None:
    """Its first planes and its answer are approached from one side, so that they share one offset."""
    microscope.play_um, scorer.focus_um = PLAY_UM, focus_um
    found = await calibrated.refocus(RefocusParams(prior=(3.0, 1.0)), Reports())
    assert abs(microscope.optical_um - focus_um) < PLAY_UM / 4
    assert found.exposures <= 3


async def test_where_there_is_no_room_beyond_the_answer_the_stage_goes_straight_there(
    calibrated: RigOperations, microscope: LooseMicroscope, scorer: ScriptedScorer
) -> None:
    moves = len(microscope.moves)
    await calibrated.refocus(RefocusParams(prior=(3.0, 1.0)), Reports(), within_um=(-3.5, 9.0))
    assert all(-3.5 <= z_um <= 9.0 for z_um in microscope.moves[moves:])
    assert microscope.z_um == pytest.approx(0.0, abs=0.3)


places = st.floats(-50, 50).map(lambda z_um: round(z_um, 2))


@given(before=st.lists(places, min_size=1, max_size=5), after=st.lists(places, max_size=3), goal=places)
def test_whatever_the_stage_did_the_last_move_is_as_the_one_before_the_exposure(
    before: list[float], after: list[float], goal: float
) -> None:
    approach, path = Approach(0.0), [0.0]
    for z_um in before:
        approach.sent(z_um)
    approach.exposed()
    for z_um in after:
        approach.sent(z_um)
    first_um = approach.first_um(goal, 8.0)
    ways = [b - a for a, b in zip([*path, *before], before, strict=False) if b != a]
    rest = [*([path[-1], *before][-1:]), *after, *([] if first_um is None else [first_um]), goal]
    if not ways:
        assert first_um is None
        return
    steps = [b - a for a, b in pairwise(rest) if b != a]
    assert not steps or steps[-1] * ways[-1] > 0
    if first_um is None:
        assert all(step * ways[-1] > 0 for step in steps), "it has not turned since"
