"""Which tiles are scored where not all are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focusd.scoring.pace import Pace
from focusd.scoring.scorer import Scorer
from focusd.scoring.tiles import informative, tile_grid
from focusd.scoring.views import TILE_PX, levels
from focusd.scoring.weights import Model
from tests.scoring.scenes import INSTRUMENT, noise


@pytest.mark.parametrize(
    ("shape", "most", "grid"),
    [
        ((2048, 2048), 16, (4, 4)),
        ((2048, 2048), 10, (3, 3)),
        ((2048, 2048), 1, (1, 1)),
        ((512, 512), 16, (4, 4)),
        ((256, 2048), 16, (1, 16)),
        ((2048, 256), 16, (16, 1)),
        ((1024, 2048), 18, (3, 6)),
    ],
)
def test_no_more_than_asked_for_and_spread_over_the_field(
    shape: tuple[int, int], most: int, grid: tuple[int, int]
) -> None:
    frame = torch.from_numpy(noise(shape).astype(np.float32))
    tiles = informative(tile_grid((0, 0, *shape), 1.0), levels(frame)[-1], most)
    assert tiles.y.shape == tiles.x.shape == grid
    cell = (shape[0] / grid[0] + TILE_PX, shape[1] / grid[1] + TILE_PX)
    assert (tiles.y.diff(dim=0) > 0).all()
    assert (tiles.x.diff(dim=1) > 0).all()
    assert (tiles.y.diff(dim=0) <= 2 * cell[0]).all()
    assert (tiles.x.diff(dim=1) <= 2 * cell[1]).all()


def test_of_each_part_of_the_field_the_tile_that_shows_something() -> None:
    frame = torch.full((1024, 1024), 100.0)
    for y, x in ((300, 70), (200, 900), (900, 200), (600, 700)):
        frame[y : y + 20, x : x + 20] += 50
    tiles = informative(tile_grid((0, 0, 1024, 1024), 1.0), levels(frame)[-1], 4)
    assert tiles.y.tolist() == [[256, 128], [896, 512]]
    assert tiles.x.tolist() == [[0, 896], [128, 640]]


def test_all_frames_of_a_run_are_scored_at_the_tiles_of_the_first(model: Model) -> None:
    scorer = Scorer(model, 2.2 * INSTRUMENT.sampling, max_tiles=4)
    one, other = noise((512, 512)), noise((512, 512))
    one[100:130, 100:130] += 400
    other[40:70, 200:230] += 400
    first = scorer.score(one)
    assert first.b.shape == (2, 2)
    alone, alike = scorer.score(other), scorer.score(other, None, first)
    assert (alike.y_px == first.y_px).all()
    assert (alike.x_px == first.x_px).all()
    assert (alone.y_px != first.y_px).any() or (alone.x_px != first.x_px).any()


def test_a_chosen_tile_has_the_scores_it_has_among_all(model: Model) -> None:
    """Its σ too: in one field tiles err together, so that fewer of them are no surer."""
    every = Scorer(model, INSTRUMENT.sampling).score(noise((512, 512)))
    few = Scorer(model, INSTRUMENT.sampling, max_tiles=4).score(noise((512, 512)))
    chosen = (few.y_px.flat, few.x_px.flat, few.b.flat, few.sigma.flat)
    for y_px, x_px, b, sigma in zip(*chosen, strict=True):
        same = (every.y_px == y_px) & (every.x_px == x_px)
        assert every.b[same] == pytest.approx(b, abs=1e-4)
        assert every.sigma[same] == pytest.approx(sigma, rel=1e-3)


def test_of_the_same_tiles_only_those_asked_for_are_scored(scorer: Scorer) -> None:
    frame = noise((512, 512))
    first = scorer.score(frame)
    only = np.eye(4, dtype=bool)
    some = scorer.score(frame, None, first, None, only)
    for part, whole in zip(
        (some.b, some.sigma, some.structure), (first.b, first.sigma, first.structure), strict=True
    ):
        assert part[only] == pytest.approx(whole[only], rel=1e-4)
        assert np.isnan(part[~only]).all()
    assert (some.y_px == first.y_px).all()


def test_what_a_few_tiles_cost_says_nothing_of_a_whole_frame(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(Pace, "took", lambda _pace, _seconds, tiles: told.append(tiles))
    scorer = Scorer(model, None)
    first = scorer.score(noise((512, 512)))
    scorer.score(noise((512, 512)), None, first, None, np.eye(4, dtype=bool))
    assert told == [16]
