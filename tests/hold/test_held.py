"""What a hold learns from its checks, and what it forgets."""

from __future__ import annotations

import pytest

from focusd.hold.held import Held, Refocused
from focusd.hold.lock import Lock, LockSettings
from focusd.hold.tracking import DriftModel
from focusd.protocol.requests import HoldParams
from focusd.protocol.results import FieldGeometry, RefocusResult


def checked(held: Held, exposures: int, thickness_um: float, shape: str = "flat") -> bool:
    """What is known of the thickness after one more check."""
    found = RefocusResult.model_construct(
        z_found_um=0.0,
        sigma_um=0.2,
        exposures=exposures,
        thickness_um=thickness_um,
        geometry=FieldGeometry.model_construct(shape=shape),
    )
    held.checked(held.checks + 10.0, found)
    held.ended("focused", 0.0)
    return held.is_thin


@pytest.fixture
def held() -> Held:
    lock = Lock(LockSettings(4.0, 60.0, 600.0, 30.0, 3), DriftModel(0.1, 1.0))
    return Held(HoldParams(client="test"), 8.3, lock, 0.0, 1.0)


def test_a_sample_is_known_to_be_thin_once_as_many_exposures_have_shown_it_as_may(held: Held) -> None:
    assert not checked(held, 2, 0.0)
    assert not checked(held, 4, 12.0)
    assert checked(held, 3, 0.0)
    assert checked(held, 2, 0.0), "nothing has changed it"


def test_a_field_that_slopes_is_not_known_to_be_thin(held: Held) -> None:
    assert not checked(held, 3, 0.0, "tilted"), "as a whole it looks thick"


def test_somebody_else_s_refocus_may_have_been_of_another_place(held: Held) -> None:
    checked(held, 3, 0.0)
    held.refocused = Refocused(20.0, 0.0, 0.2, "somebody")
    assert held.learn()
    assert not held.is_thin


def test_what_disturbs_the_hold_may_have_brought_another_sample(held: Held) -> None:
    checked(held, 3, 0.0)
    held.disturbed("somebody")
    assert not held.is_thin
