"""The regions of a recorded stack in the score bench."""

from __future__ import annotations

import numpy as np
import pytest

from bench.score import CNN, REGION_PX, _measure, _scorer, regions_of
from focusd.scoring.views import TILE_PX


@pytest.mark.parametrize(("shape", "count"), [((1200, 1920), 15), ((512, 800), 6), ((256, 300), 4)])
def test_regions_cut_a_frame_up_without_overlap(shape: tuple[int, int], count: int) -> None:
    regions = list(regions_of(shape))
    assert len(regions) == count
    covered = np.zeros(shape, int)
    for y, x, height, width in regions:
        assert TILE_PX <= height == width <= REGION_PX
        covered[y : y + height, x : x + width] += 1
    assert covered.max() == 1
    assert covered.sum() == count * regions[0][2] ** 2


def test_a_frame_too_small_for_four_tiles_has_no_regions() -> None:
    assert list(regions_of((255, 600))) == []


def test_a_region_is_scored_in_its_surroundings_and_measured_alone() -> None:
    rng = np.random.default_rng(1)
    frame = rng.poisson(np.kron(rng.uniform(200, 2000, (64, 64)), np.ones((8, 8)))).astype(np.uint16)
    dimmed = frame.copy()
    dimmed[:, 256:] //= 4
    one, other = (_measure([each], _scorer(None), (0, 0, 256, 256)) for each in (frame, dimmed))
    assert one["tenengrad"] == other["tenengrad"]
    assert one[CNN] != other[CNN]
