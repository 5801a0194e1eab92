"""Where most of a field is sharp, and how its focus is spread: on fields of a known shape."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from focusd.focus.blocks import LocalMap
from focusd.focus.depth import depths_of, share_in_focus, sharpest, spread_of
from tests.focus.test_geometry import DOF_UM, SIGMA_UM, Height, field, only, plane, step

SEEDS = range(40)
SHARES = (5, 25, 50, 75, 95)


def of_noise(height: Height, sigma_um: float, seed: int, grid: tuple[int, int]) -> LocalMap:
    """A field whose blocks err by so much, as overlapping blocks do together."""
    clean_um = field(height, *grid).focus_um
    errors_um = (field(height, *grid, noise=seed).focus_um - clean_um) * sigma_um / SIGMA_UM
    blocks = field(height, *grid)
    return replace(blocks, focus_um=clean_um + errors_um, sigma_um=np.full_like(clean_um, sigma_um))


def truth_of(height: Height, grid: tuple[int, int]) -> float:
    """The sharpest plane of the same field, seen without error."""
    blocks = field(height, *grid)
    return sharpest(replace(blocks, sigma_um=np.full_like(blocks.focus_um, 1e-3)), DOF_UM)[0]


def bowl(depth_um: float) -> Height:
    return lambda v, u: np.asarray(2 * depth_um * (u**2 + v**2), np.float64)


def rough(v: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 4, u.shape)


@pytest.mark.parametrize("sigma_um", [0.5, 2.0])
@pytest.mark.parametrize("grid", [(7, 9), (3, 3)])
@pytest.mark.parametrize("height", [plane(0, 0), bowl(20), plane(0, 6), plane(0, 15), rough, step(5.0, 0.1)])
def test_the_sharpest_plane_scatters_as_its_sigma_says(
    height: Height, grid: tuple[int, int], sigma_um: float
) -> None:
    found = np.array([sharpest(of_noise(height, sigma_um, seed, grid), DOF_UM) for seed in SEEDS])
    off_um, stated_um = found[:, 0] - truth_of(height, grid), found[:, 1]

    assert np.sqrt((off_um**2).mean()) < 1.15 * np.sqrt((stated_um**2).mean())
    assert (np.abs(off_um) < 2 * stated_um).mean() >= 0.9


@pytest.mark.parametrize("height", [plane(0, 0), step(20.0, 0.2), plane(0, 6)])
def test_its_sigma_is_not_larger_than_it_has_to_be(height: Height) -> None:
    found = np.array([sharpest(of_noise(height, 2.0, seed, (7, 9)), DOF_UM) for seed in SEEDS])
    off_um = found[:, 0] - truth_of(height, (7, 9))

    assert found[:, 1].mean() < 1.4 * np.sqrt((off_um**2).mean())


@pytest.mark.parametrize("edge", [-0.1, 0.1])
def test_of_two_surfaces_the_larger_is_the_sharpest(edge: float) -> None:
    """60 to 40 %."""
    z_um, sigma_um = sharpest(of_noise(step(20.0, edge), SIGMA_UM, 1, (10, 10)), DOF_UM)

    assert z_um == pytest.approx(20.0 if edge < 0 else 0.0, abs=4 * sigma_um)
    assert sigma_um < 0.1 * DOF_UM


def test_of_two_equal_surfaces_it_may_be_either() -> None:
    assert sharpest(of_noise(step(20.0), SIGMA_UM, 1, (10, 10)), DOF_UM)[1] > 5


def test_on_a_long_slope_it_may_be_anywhere() -> None:
    assert sharpest(of_noise(plane(0, 40), SIGMA_UM, 1, (7, 9)), DOF_UM)[1] > DOF_UM / 4


def test_of_a_level_field_it_is_the_mean() -> None:
    blocks = of_noise(plane(0, 0), SIGMA_UM, 3, (7, 9))
    z_um, sigma_um = sharpest(blocks, DOF_UM)

    assert z_um == pytest.approx(blocks.focus_um.mean(), abs=sigma_um)


def test_blocks_that_hardly_know_their_focus_count_for_less() -> None:
    blocks = field(step(20.0), 10, 10)
    blocks.sigma_um[blocks.focus_um > 10] = 6.0

    assert sharpest(blocks, DOF_UM)[0] == pytest.approx(0.0, abs=0.5)


def test_one_block_is_its_own_sharpest_plane() -> None:
    z_um, sigma_um = sharpest(only(field(plane(0, 0)), slice(1, 2), slice(1, 2)), DOF_UM)

    assert z_um == 20.0
    assert sigma_um == pytest.approx(SIGMA_UM, rel=0.2)
    assert all(map(math.isnan, sharpest(only(field(plane(0, 0)), slice(0), slice(0)), DOF_UM)))


def test_a_thick_sample_is_sharpest_in_its_middle() -> None:
    blocks = of_noise(plane(0, 0), SIGMA_UM, 3, (7, 9))

    assert sharpest(blocks, DOF_UM, 30.0)[0] == pytest.approx(sharpest(blocks, DOF_UM)[0], abs=0.05)


@pytest.mark.parametrize("sigma_um", [0.5, 2.0])
def test_a_level_field_has_no_spread_however_its_blocks_err(sigma_um: float) -> None:
    spreads = [spread_of(of_noise(plane(0, 0), sigma_um, seed, (7, 9))) for seed in SEEDS]

    assert np.mean(spreads) < 0.25 * sigma_um


@pytest.mark.parametrize("height", [plane(0, 15), bowl(40), step(20.0, 0.2), rough])
def test_the_spread_is_that_of_the_field_and_not_of_the_errors(height: Height) -> None:
    clean_um = field(height).focus_um
    low_um, high_um = np.quantile(clean_um, [0.16, 0.84])
    spreads = [spread_of(of_noise(height, 2.0, seed, (7, 9))) for seed in SEEDS]

    assert np.mean(spreads) == pytest.approx((high_um - low_um) / 2, rel=0.15)


def test_one_wrong_block_does_not_spread_a_field() -> None:
    blocks = of_noise(plane(0, 0), SIGMA_UM, 3, (7, 9))
    blocks.focus_um[2, 2] = 60.0

    assert spread_of(blocks) < 1.5 * SIGMA_UM


def test_the_depths_of_a_slope_are_even() -> None:
    clean_um = field(plane(0, 30), 20, 20).focus_um

    assert depths_of(field(plane(0, 30), 20, 20), 0.0) == pytest.approx(
        np.percentile(clean_um, SHARES), abs=0.2
    )


def test_the_depths_of_a_thick_sample_hold_its_extent() -> None:
    depths_um = depths_of(of_noise(plane(0, 0), SIGMA_UM, 3, (7, 9)), 30.0)

    assert depths_um == pytest.approx([6.5, 12.5, 20.0, 27.5, 33.5], abs=1.0)


def test_the_share_in_focus_is_that_of_the_field() -> None:
    blocks = of_noise(step(20.0, 0.2), SIGMA_UM, 1, (10, 10))

    assert share_in_focus(blocks, 0.0, 0.0, DOF_UM) == pytest.approx(0.7)
    assert share_in_focus(blocks, 0.0, 20.0, DOF_UM) == pytest.approx(0.3)
    assert share_in_focus(blocks, 0.0, 10.0, DOF_UM) == 0


def test_of_a_thick_sample_a_depth_of_field_is_in_focus() -> None:
    blocks = of_noise(plane(0, 0), 2.0, 1, (7, 9))

    assert share_in_focus(blocks, 0.0, 20.0, DOF_UM) == 1
    assert share_in_focus(blocks, 4 * DOF_UM, 20.0, DOF_UM) == pytest.approx(0.25, abs=0.1)
