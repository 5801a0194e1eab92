"""As many tiles as fit into a frame's budget."""

from __future__ import annotations

import time

import pytest

from focusd.scoring.backends import Backends, CpuBackend
from focusd.scoring.network import Score
from focusd.scoring.pace import LEAST_TILES, REMEMBERED, Pace
from focusd.scoring.scorer import Scorer
from focusd.scoring.views import Views
from focusd.scoring.weights import Model
from tests.scoring.scenes import INSTRUMENT, noise

SECONDS_PER_TILE = 0.02


class Slow(CpuBackend):
    """A machine that takes so long for a tile, or longer."""

    def __call__(self, views: Views) -> Score:
        time.sleep(SECONDS_PER_TILE * len(views.pixels))
        return super().__call__(views)


@pytest.mark.parametrize(
    ("seconds_per_tile", "tiles"), [(0.001, 16), (0.004, 10), (0.008, 5), (0.1, LEAST_TILES)]
)
def test_as_many_tiles_as_fit(seconds_per_tile: float, tiles: int) -> None:
    pace = Pace(16, 0.041)
    assert pace.tiles == 16, "nothing is known yet"
    pace.took(16 * seconds_per_tile, 16)
    assert pace.tiles == tiles


def test_no_more_than_asked_for_and_all_where_nothing_is_said() -> None:
    few, every = Pace(2, 0.04), Pace(None, None)
    for pace in (few, every):
        pace.took(10.0, 1)
    assert (few.tiles, every.tiles) == (2, None)


def test_a_moment_of_load_changes_nothing_and_a_lasting_one_does() -> None:
    pace = Pace(16, 0.04)
    for seconds in (0.01, 5.0, 0.01):
        pace.took(seconds, 16)
    assert pace.tiles == 16
    for _ in range(REMEMBERED):
        pace.took(5.0, 16)
    assert pace.tiles == LEAST_TILES


def test_a_slow_machine_scores_fewer_tiles_and_the_same_ones_all_through_an_operation(model: Model) -> None:
    slow = Backends(Slow(model.network))
    scorer = Scorer(model, INSTRUMENT.sampling, slow, max_tiles=16, budget_s=0.1)
    first = scorer.score(noise((512, 512)))
    assert first.b.size == 16
    assert scorer.score(noise((512, 512)), None, first).b.size == 16, "of one operation"
    few = scorer.score(noise((512, 512)))
    assert few.b.shape == (2, 2)
    again = scorer.score(noise((512, 512)), None, few)
    assert (again.y_px == few.y_px).all()
    assert (again.x_px == few.x_px).all()
