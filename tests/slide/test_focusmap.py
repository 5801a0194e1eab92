"""The focus map over a slide: positions in, z ± σ and advice out."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.errors import RequestError
from focusd.slide.focusmap import MAX_POSITIONS, FocusMap, Position

TOLERANCE_UM = 4.0
CORNERS = [(x, y) for x, y in product((0.0, 5e3, 1e4), repeat=2)]


def z_at(x_um: float, y_um: float) -> float:
    """A slide with a slope of 2 mrad along x and −1 mrad along y."""
    return 100 + 0.002 * x_um - 0.001 * y_um


def level_map(offsets_um: dict[str, float] | None = None) -> FocusMap:
    """Nine positions on a level slide."""
    positions = tuple(Position(x, y, z_at(x, y), 0.2) for x, y in CORNERS)
    return FocusMap(positions, offsets_um or {})


def test_an_empty_map_says_so_and_begins_in_the_middle() -> None:
    asked = [(0.0, 0.0), (1e4, 0.0), (5e3, 100.0)]
    predictions = FocusMap().predict(asked, TOLERANCE_UM)

    assert [p.advice for p in predictions] == ["refocus"] * 3
    assert {(p.z_um, p.sigma_um, p.reason) for p in predictions} == {(None, None, "the map is empty")}
    assert FocusMap().next_to_measure(predictions) == 2


def test_a_map_is_trusted_where_it_knows_and_not_far_away() -> None:
    near, far = level_map().predict([(2e3, 7e3), (2e5, 0.0)], TOLERANCE_UM)

    assert near.z_um == pytest.approx(z_at(2e3, 7e3), abs=1.0)
    assert near.advice == "trust"
    assert near.reason.endswith("within 4 µm")
    assert far.advice == "refocus"
    assert far.reason.endswith("more than 4 µm; 1.9e+02 mm from the nearest measured position")


def test_the_advice_turns_where_two_sigma_are_the_tolerance() -> None:
    (told,) = level_map().predict([(2e3, 7e3)], TOLERANCE_UM)
    assert told.sigma_um is not None

    (just,) = level_map().predict([(2e3, 7e3)], 2.001 * told.sigma_um)
    (short,) = level_map().predict([(2e3, 7e3)], 1.999 * told.sigma_um)

    assert (just.advice, short.advice) == ("trust", "refocus")


def test_offsets_are_added_to_predictions_and_never_reach_the_reference() -> None:
    plain, offset = level_map(), level_map({"DAPI": 1.2})

    (reference,) = offset.predict([(2e3, 7e3)], TOLERANCE_UM)
    (dapi,) = offset.predict([(2e3, 7e3)], TOLERANCE_UM, "DAPI")

    assert reference == plain.predict([(2e3, 7e3)], TOLERANCE_UM)[0]
    assert reference.z_um is not None
    assert dapi.z_um == pytest.approx(reference.z_um + 1.2)
    assert dapi.sigma_um == reference.sigma_um


def test_a_focus_found_in_a_channel_is_stored_as_the_reference_s() -> None:
    found = Position(1.0, 2.0, 51.2, 0.2)

    in_dapi = FocusMap().with_offset("DAPI", 1.2).measured(found, "DAPI")

    (there,) = in_dapi.positions
    assert there.z_um == pytest.approx(50.0)
    assert there == replace(found, z_um=there.z_um)


def test_an_offset_can_be_changed_and_forgotten() -> None:
    changed = level_map({"DAPI": 1.2}).with_offset("DAPI", -0.5).with_offset("Cy5", 2.0)
    assert changed.offsets_um == {"DAPI": -0.5, "Cy5": 2.0}
    assert changed.with_offset("DAPI", None).offsets_um == {"Cy5": 2.0}
    assert changed.with_offset("absent", None) == changed


def test_an_unknown_channel_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match=r"'GFP' has no offset \(known: 'DAPI'\); set one with map.offset"):
        level_map({"DAPI": 1.2}).predict([(0, 0)], TOLERANCE_UM, "GFP")
    with pytest.raises(RequestError, match="known: none"):
        level_map().measured(Position(0, 0, 0, 1), "GFP")


def test_a_place_measured_again_takes_the_place_of_the_old() -> None:
    again = level_map().measured(Position(5e3 + 0.4, 1e4 - 0.4, 93.0, 0.1))

    assert len(again.positions) == 9
    assert again.positions[-1].z_um == 93.0
    assert len(level_map().measured(Position(5e3 + 3, 1e4, 93.0, 0.1)).positions) == 10


def test_clearing_forgets_the_slide_and_keeps_the_optics() -> None:
    assert level_map({"DAPI": 1.2}).cleared() == FocusMap((), {"DAPI": 1.2})


def test_a_full_map_takes_no_more() -> None:
    full = FocusMap(tuple(Position(10.0 * n, 0.0, 0.0, 1.0) for n in range(MAX_POSITIONS)))

    assert len(full.measured(Position(0, 0, 5, 1)).positions) == MAX_POSITIONS, (
        "one measured before may be renewed"
    )
    with pytest.raises(RequestError, match="clear it for a new slide"):
        full.measured(Position(-10, 0, 5, 1))


def test_the_next_position_is_one_that_is_not_trusted() -> None:
    level = level_map()
    trusted = level.predict([(2e3, 7e3), (7e3, 2e3)], TOLERANCE_UM)
    mixed = level.predict([(2e3, 7e3), (2e5, 0.0), (7e3, 2e3), (2.1e5, 0.0)], TOLERANCE_UM)

    assert level.next_to_measure(trusted) is None
    assert level.next_to_measure(mixed) in (1, 3)


def test_a_bad_position_is_described_as_left_out() -> None:
    described = level_map().measured(Position(3e3, 3e3, 150.0, 0.2)).describe()

    assert [p.counts for p in described.positions] == [True] * 9 + [False]
    assert described.positions[-1].off_um == pytest.approx(150 - z_at(3e3, 3e3), abs=1)
    assert max(abs(p.off_um or 0.0) for p in described.positions[:-1]) < 1
    assert described.slopes_mrad is not None
    assert described.slopes_mrad.x == pytest.approx(2, abs=0.1)
    assert described.slopes_mrad.y == pytest.approx(-1, abs=0.1)


def test_the_surface_covers_the_positions() -> None:
    surface = level_map().describe().surface
    assert surface is not None

    assert min(surface.x_um) < 0 < 1e4 < max(surface.x_um)
    middle = np.interp(5e3, surface.y_um, np.array(surface.z_um)[:, 12])
    assert middle == pytest.approx(z_at(5e3, 5e3), abs=0.5)


numbers = st.floats(-1e6, 1e6)
positions = st.builds(Position, numbers, numbers, numbers, st.floats(1e-6, 1e4))
maps = st.builds(
    FocusMap,
    st.lists(positions, max_size=8).map(tuple),
    st.dictionaries(st.text(max_size=8), numbers, max_size=3),
)


@given(maps)
def test_a_map_survives_its_file(written: FocusMap) -> None:
    text = json.dumps(written.to_json(), allow_nan=False)

    assert FocusMap.from_json(json.loads(text)) == written


@given(maps)
def test_any_map_can_be_described(present: FocusMap) -> None:
    described = json.loads(json.dumps(present.describe().model_dump(mode="json"), allow_nan=False))

    assert len(described["positions"]) == len(present.positions)
    assert (described["surface"] is None) == (not present.positions)


POSITION = {"x_um": 0.0, "y_um": 0.0, "z_um": 1.0, "sigma_um": 0.1}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": None},
        {"positions": 7},
        {"positions": [[0, 0, 1, 0.1]]},
        {"positions": [POSITION | {"sigma_um": 0.0}]},
        {"positions": [POSITION | {"z_um": float("nan")}]},
        {"positions": [POSITION | {"z_um": "high"}]},
        {"offsets_um": ["DAPI"]},
        {"offsets_um": {"DAPI": None}},
        {"offsets_um": {"DAPI": float("inf")}},
    ],
)
def test_what_is_no_map_is_refused(changes: dict[str, Any]) -> None:
    values = {"format": 1, "positions": [POSITION], "offsets_um": {}}
    assert FocusMap.from_json(values).positions == (Position(**POSITION),)

    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        FocusMap.from_json(values | changes)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["x_um", "y_um", "z_um"])
def test_a_position_that_is_no_number_is_refused_for_what_it_is(name: str, number: float) -> None:
    with pytest.raises(RequestError, match=r"a finite x, y and z, not .*read the stage's position again"):
        FocusMap().measured(Position(**(POSITION | {name: number})))


@pytest.mark.parametrize("sigma_um", [1e-300, 0.0, -1.0, 9e-4, float("nan"), float("inf")])
def test_an_uncertainty_that_nobody_has_is_refused(sigma_um: float) -> None:
    with pytest.raises(RequestError, match=r"σ = .* no focus is known better than to 0\.001 µm"):
        FocusMap().measured(Position(**(POSITION | {"sigma_um": sigma_um})))
