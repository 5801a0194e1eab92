"""Hardware that lies: no search may end beside the focus for it, and each lie that shows is named."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from focusd.errors import AmbiguousError, FocusdError, HardwareError, NoConvergenceError
from focusd.focus.calibration import Calibration
from focusd.focus.focus import Focus
from focusd.focus.posterior import Prior
from focusd.focus.search import PosteriorSearch
from tests.focus.exposures import exposure

TARGET_UM, BUDGET = 0.5, 8
WRONG_UM = 4.0
"""Half a depth of field at 10×/0.3."""

Lie = Callable[[list[float]], float]
"""From all reported z so far, in their order, to where the last frame was really taken; the stage begins at 0."""


def moves_by(factor: float) -> Lie:
    return lambda z_um: factor * z_um[-1]


def one_frame_late(z_um: list[float]) -> float:
    return z_um[-2] if len(z_um) > 1 else 0.0


def sticks_after(count: int) -> Lie:
    return lambda z_um: [0.0, *z_um][min(len(z_um), count - 1)]


def creeps(z_um: list[float]) -> float:
    before_um = z_um[-2] if len(z_um) > 1 else 0.0
    return z_um[-1] - 0.3 * (z_um[-1] - before_um)


LIES: dict[str, Lie] = {
    "does not move": moves_by(0.0),
    "half": moves_by(0.5),
    "twice": moves_by(2.0),
    "one and a half": moves_by(1.5),
    "frame before": one_frame_late,
    "sticks after the first move": sticks_after(2),
    "creeps": creeps,
}
SETTLES = ("frame before", "creeps")
"""With these the stage comes to stand where it was sent, in the end."""


def search_of(calibration: Calibration, prior: Prior | None) -> PosteriorSearch:
    return PosteriorSearch(
        calibration,
        (-150.0, 150.0),
        away_is_low=True,
        threshold=0.5,
        target_um=TARGET_UM,
        usable_um=2.0,
        prior=prior,
    )


def run(search: PosteriorSearch, lie: Lie, focus_um: float) -> Focus:
    """Drive a search to its end on hardware that lies; what it raises is passed on."""
    asked_um = search.opening_um(0.0)[:1]
    while True:
        shown = exposure(lie(asked_um), focus_um)
        search.add(replace(shown, z_um=asked_um[-1]))
        z_um = search.next_z_um()
        if z_um is None or len(asked_um) == BUDGET:
            return search.decide()
        asked_um.append(z_um)


def rests_um(search: PosteriorSearch, lie: Lie, name: str, z_um: float) -> float:
    """Where the stage really stands after it has been sent to the focus."""
    return z_um if name in SETTLES else lie([*[o.z_um for o in search.measurements], z_um])


@pytest.mark.parametrize("prior", [None, Prior(0.0, 3.0), Prior(0.0, 0.4)], ids=["cold", "warm", "check"])
@pytest.mark.parametrize("name", LIES)
def test_hardware_that_lies_leads_no_search_beside_the_focus(
    calibration: Calibration, name: str, prior: Prior | None
) -> None:
    for focus_um in (33.0, -18.0, 7.0) if prior is None else (3.0, -2.0, 0.3):
        search, lie = search_of(calibration, prior), LIES[name]
        try:
            focus = run(search, lie, focus_um)
        except FocusdError:
            continue
        assert abs(rests_um(search, lie, name, focus.z_um) - focus_um) < WRONG_UM


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("does not move", "does not move, or the camera delivers the same image"),
        ("frame before", "the camera delivers the frame before"),
    ],
)
def test_the_error_names_what_is_suspected(calibration: Calibration, name: str, words: str) -> None:
    with pytest.raises(HardwareError, match=words) as told:
        run(search_of(calibration, None), LIES[name], 10.0)
    assert words in told.value.data["suspect"]
    assert told.value.message.count("focusd doctor") == 1, "what to do"


def test_where_frames_were_taken_beyond_the_range_the_error_tells_the_suspicion_as_one(
    calibration: Calibration,
) -> None:
    with pytest.raises(AmbiguousError, match="it may be that the camera delivers the frame before"):
        run(search_of(calibration, None), LIES["frame before"], -30.0)


@pytest.mark.parametrize("focus_um", [20.0, 33.0, 50.0])
def test_a_camera_that_is_one_frame_late_is_named(calibration: Calibration, focus_um: float) -> None:
    with pytest.raises(HardwareError, match="the camera delivers the frame before"):
        run(search_of(calibration, None), LIES["frame before"], focus_um)


@pytest.mark.parametrize("focus_um", [-61.0, -20.0, 0.0, 12.0, 47.0])
@pytest.mark.parametrize("prior", [None, Prior(0.0, 3.0)])
def test_honest_hardware_is_not_suspected(
    calibration: Calibration, focus_um: float, prior: Prior | None
) -> None:
    search = search_of(calibration, prior)
    focus = run(search, moves_by(1.0), focus_um)
    assert abs(focus.z_um - focus_um) <= min(3 * focus.sigma_um, 0.5)
    assert not search.axis.suspect


def test_other_optics_stretch_the_axis_and_accuse_nobody(calibration: Calibration) -> None:
    """With another NA the stage moves as it says, but each µm blurs by more or by less."""
    search = search_of(calibration, None)
    focus = run(search, moves_by(0.9), 40.0)
    assert abs(moves_by(0.9)([0.0, focus.z_um]) - 40.0) <= 3 * focus.sigma_um


def test_the_plane_where_a_search_began_does_not_verify_it(calibration: Calibration) -> None:
    """It was exposed before the search knew anything: near the focus or not, one more exposure has to agree."""
    search = search_of(calibration, Prior(0.5, 3.0))
    run(search, moves_by(1.0), 0.3)
    assert len(search.measurements) == 3
    first, _, last = (o.z_um for o in search.measurements)
    assert abs(last - 0.3) < 3.0
    assert abs(last - first) > 1.0, "the same plane would say the same again"


@pytest.mark.parametrize("rise_um", [10.0, 20.0, 40.0])
def test_a_sloping_field_accuses_nobody(calibration: Calibration, rise_um: float) -> None:
    """Its frames fit no single focus either, but its blocks say why."""
    focus_um = 20.0 + np.linspace(-0.5, 0.5, 4)[None, :] * rise_um + np.zeros((3, 1))
    search = search_of(calibration, None)
    z_um: float | None = 0.0
    with suppress(NoConvergenceError):
        while z_um is not None and len(search.measurements) < BUDGET:
            search.add(exposure(z_um, focus_um))
            z_um = search.next_z_um()


def test_whoever_suspects_the_hardware_does_not_trust_what_it_told_before(calibration: Calibration) -> None:
    """A stage that got stuck 8 µm below: its frames are all alike, and the focus is not where it was expected."""
    search = search_of(calibration, Prior(0.0, 0.9))
    with pytest.raises(HardwareError, match="does not move"):
        run(search, lambda _: -8.0, 0.0)
    assert len(search.measurements) <= 4


def test_a_search_that_ends_in_doubt_tells_the_doubt_and_no_focus(calibration: Calibration) -> None:
    search = search_of(calibration, Prior(0.0, 0.9))
    with suppress(FocusdError):
        run(search, lambda _: -8.0, 0.0)
    assert search.so_far() == {}
    assert "the stage does not move" in search.whereabouts
