"""What foci from both sides say of the backlash: its size, its σ, what to write, and when they say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from focusd.errors import OutOfRangeError
from focusd.focus.backlash import LENGTHS, ROUND, Backlash, Found, backlash_of

UP_TO_UM = 5.0


def found(
    play_um: float,
    rounds: int = 3,
    *,
    noise_um: float = 0.0,
    sigma_um: float = 0.2,
    drift_um: float = 0.0,
    first: int = 1,
) -> list[Found]:
    """Foci on a stage with backlash whose sample drifts by so much from each to the next."""
    rng = np.random.default_rng(1)
    foci: list[Found] = []
    for number in range(rounds):
        beyond_um = UP_TO_UM * LENGTHS[number % len(LENGTHS)]
        for side in ROUND:
            taken_up_um = min(beyond_um, play_um)
            behind_um = first * side * (taken_up_um - play_um / 2)
            focus_um = 7.0 + behind_um + drift_um * len(foci) + noise_um * float(rng.standard_normal())
            foci.append(Found(first * side, beyond_um, focus_um, sigma_um))
    return foci


@pytest.mark.parametrize("first", [1, -1])
@pytest.mark.parametrize("play_um", [0.0, 1.5, 3.0, 4.9])
def test_the_difference_of_the_sides_is_the_backlash(play_um: float, first: int) -> None:
    backlash = backlash_of(found(play_um, first=first))
    assert backlash.backlash_um == pytest.approx(play_um)
    assert backlash.differences_um == pytest.approx([play_um] * 3)
    assert backlash.sigma_um == pytest.approx(0.2 / np.sqrt(3))


def test_an_even_drift_of_the_sample_changes_nothing() -> None:
    assert backlash_of(found(3.0, drift_um=0.5)).backlash_um == pytest.approx(3.0)


def test_foci_that_scatter_more_than_they_say_are_believed_less() -> None:
    sure, scattered = (backlash_of(found(3.0, 8, noise_um=noise_um)) for noise_um in (0.0, 1.0))
    assert scattered.sigma_um > 2 * sure.sigma_um


def test_what_is_advised_has_room_for_the_uncertainty() -> None:
    backlash = backlash_of(found(3.0))
    assert backlash.advised_um == pytest.approx(3.9)
    assert backlash.advised_um > backlash.backlash_um + 2 * backlash.sigma_um


@pytest.mark.parametrize("play_um", [0.0, 0.1])
def test_a_backlash_that_cannot_be_seen_is_none(play_um: float) -> None:
    assert backlash_of(found(play_um)).advised_um == 0.0


@pytest.mark.parametrize("play_um", [6.0, 8.0, 12.0, 20.0])
def test_a_backlash_that_is_larger_than_the_way_beyond_is_not_taken_for_a_smaller_one(play_um: float) -> None:
    with pytest.raises(OutOfRangeError, match=r"larger than 5 µm.*larger up_to_um"):
        backlash_of(found(play_um))


def test_what_is_larger_than_the_way_beyond_is_refused_after_one_round_too() -> None:
    too_large = [Found(side, UP_TO_UM, 3.0 * side, 0.2) for side in ROUND]
    with pytest.raises(OutOfRangeError, match="larger than 5 µm"):
        backlash_of(too_large)


def test_one_round_says_what_it_can() -> None:
    backlash: Backlash = backlash_of(found(3.0, rounds=1))
    assert (backlash.backlash_um, backlash.sigma_um) == pytest.approx((3.0, 0.2))
