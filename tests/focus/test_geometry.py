"""The shape of a field from the focus of its blocks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from focusd.focus.blocks import Array, LocalMap
from focusd.focus.geometry import (
    Direction,
    describe,
    fit_plane,
    geometry_of,
    quantile,
)

PIXEL_UM = 0.65
DOF_UM = 8.0
SIGMA_UM = 0.5

Height = Callable[[Array, Array], Array]


def field(height: Height, rows: int = 7, columns: int = 9, noise: int | None = None) -> LocalMap:
    """Half-overlapping blocks whose focus is a function of their place in the field, −½ … ½ along y and x.

    `noise` seeds errors of SIGMA_UM, which overlapping blocks share: each averages four cells of half its size.
    """
    y, x = np.meshgrid(128.0 + 128 * np.arange(rows), 128.0 + 128 * np.arange(columns), indexing="ij")
    z = height(*((p - p.mean()) / (np.ptp(p) + 256) for p in (y, x)))
    if noise is not None:
        cells = np.random.default_rng(noise).normal(0, 2 * SIGMA_UM, (rows + 1, columns + 1))
        z = z + (cells[1:, 1:] + cells[:-1, 1:] + cells[1:, :-1] + cells[:-1, :-1]) / 4
    return LocalMap(z, np.full_like(z, SIGMA_UM), y, x)


def plane(tip_um: float, tilt_um: float) -> Height:
    return lambda v, u: np.asarray(20 + tip_um * v + tilt_um * u, np.float64)


def step(height_um: float, at: float = 0.0) -> Height:
    return lambda v, u: np.asarray(height_um * (u > at), np.float64)


def test_a_plane_is_found_with_its_angles() -> None:
    found = fit_plane(field(plane(6.0, -9.0)), PIXEL_UM)

    assert (found.tip_um, found.tilt_um, found.z_um) == pytest.approx((6.0, -9.0, 20.0), abs=1e-3)
    assert (found.height_px, found.width_px) == (6 * 128 + 256, 8 * 128 + 256)
    assert found.tip_mrad == pytest.approx(1000 * 6.0 / (1024 * PIXEL_UM), rel=1e-3)
    assert found.tilt_mrad == pytest.approx(1000 * -9.0 / (1280 * PIXEL_UM), rel=1e-3)
    assert found.residual_um == pytest.approx(0.0, abs=1e-3)


def test_blocks_that_do_not_know_their_focus_are_no_second_surface() -> None:
    stepped = field(step(9.0, 0.2))
    assert geometry_of(stepped, PIXEL_UM, DOF_UM, "increasing").shape == "stepped"
    unsure = np.where(stepped.focus_um > 5, 3.0, SIGMA_UM)
    shape = geometry_of(replace(stepped, sigma_um=unsure), PIXEL_UM, DOF_UM, "increasing").shape
    assert shape != "stepped"


def test_without_a_pixel_size_there_is_no_angle() -> None:
    found = fit_plane(field(plane(6.0, -9.0)), None)

    assert math.isnan(found.tip_mrad)
    assert found.tip_um == pytest.approx(6.0, abs=1e-3)


def test_the_uncertainty_is_the_scatter_of_the_answers_though_blocks_overlap() -> None:
    planes = [fit_plane(field(plane(6.0, -9.0), noise=seed), PIXEL_UM) for seed in range(300)]

    pulls = {
        "z": [(p.z_um - 20) / p.sigma_um for p in planes],
        "tip": [(p.tip_um - 6) / p.tip_sigma_um for p in planes],
        "tilt": [(p.tilt_um + 9) / p.tilt_sigma_um for p in planes],
    }
    for name, values in pulls.items():
        assert 0.8 < np.std(values) < 1.2, name
        assert abs(np.mean(values)) < 0.2, name


@given(
    seed=st.integers(0, 1000),
    off_um=st.floats(30, 1000) | st.floats(-1000, -30),
    chosen=st.sets(st.integers(0, 62), max_size=9),
)
def test_blocks_that_are_wrong_have_no_say(seed: int, off_um: float, chosen: set[int]) -> None:
    blocks = field(plane(6.0, -9.0), noise=seed)
    blocks.focus_um.flat[list(chosen)] += off_um

    found = fit_plane(blocks, PIXEL_UM)

    assert abs(found.tip_um - 6) < 6 * found.tip_sigma_um < 6
    assert abs(found.tilt_um + 9) < 6 * found.tilt_sigma_um < 6


def test_a_scatter_beyond_the_blocks_own_widens_the_uncertainty() -> None:
    rough = np.random.default_rng(1).normal(0, 5, (7, 9))
    calm, wild = field(plane(0, 0), noise=1), field(lambda v, u: rough)

    assert fit_plane(wild, PIXEL_UM).tip_sigma_um > 5 * fit_plane(calm, PIXEL_UM).tip_sigma_um


@pytest.mark.parametrize("noise", range(3))
@pytest.mark.parametrize(
    ("height", "shape"),
    [
        (plane(0, 0), "flat"),
        (plane(2, -2), "flat"),
        (plane(12, 0), "tilted"),
        (plane(-20, 30), "tilted"),
        (lambda v, u: 15.0 * (u > 0), "stepped"),
        (lambda v, u: 30 * v + 15.0 * (u > 0.1), "stepped"),
        (lambda v, u: -15.0 * ((u > 0.2) & (v > 0.2)), "stepped"),
        (lambda v, u: 15.0 * (np.hypot(u, v) < 0.2), "stepped"),
        (lambda v, u: 3.0 * (u > 0), "flat"),
        (lambda v, u: 80 * (u**2 + v**2), "thick"),
        (lambda v, u: 80 * u * v, "thick"),
        (lambda v, u: np.random.default_rng(2).uniform(-15, 15, u.shape), "thick"),
    ],
)
def test_the_shape_of_a_field(height: Height, shape: str, noise: int) -> None:
    found = geometry_of(field(height, noise=noise), PIXEL_UM, DOF_UM, "increasing")

    assert found.shape == shape
    assert found.reason


def test_a_step_is_told_with_its_height() -> None:
    found = geometry_of(field(step(15.0), noise=1), PIXEL_UM, DOF_UM, "increasing")

    assert found.reason.startswith("two surfaces 15.")


def only(blocks: LocalMap, rows: slice, columns: slice) -> LocalMap:
    """The blocks of a part of the field; the others do not count."""
    kept = np.full_like(blocks.focus_um, np.nan)
    kept[rows, columns] = blocks.focus_um[rows, columns]
    return replace(blocks, focus_um=kept)


def test_one_block_is_its_own_focus_and_no_shape() -> None:
    found = geometry_of(only(field(plane(6, -9)), slice(0, 1), slice(0, 1)), PIXEL_UM, DOF_UM, "increasing")

    assert found.shape == "unknown"
    assert found.reason.startswith("1 of 63 blocks count")
    assert (found.plane.z_um, found.plane.sigma_um) == pytest.approx((found.mean_um, SIGMA_UM))
    assert math.isnan(found.plane.tip_um)
    assert found.mean_um == found.median_um == found.nearest_um


def test_one_row_tells_the_tilt_and_not_the_tip() -> None:
    found = geometry_of(only(field(plane(6, -9)), slice(3, 4), slice(None)), PIXEL_UM, DOF_UM, "increasing")

    assert found.plane.tilt_um == pytest.approx(-9, abs=0.01)
    assert math.isnan(found.plane.tip_um)
    assert math.isnan(found.plane.tip_sigma_um)
    assert found.shape == "unknown"


def test_a_diagonal_tells_neither() -> None:
    blocks = field(plane(6, -9), 9, 9)
    blocks.focus_um[~np.eye(9, dtype=bool)] = np.nan

    found = geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing")

    assert math.isnan(found.plane.tip_um)
    assert math.isnan(found.plane.tilt_um)
    assert found.shape == "unknown"


def test_an_empty_field_is_unknown_and_no_error() -> None:
    found = geometry_of(only(field(plane(0, 0)), slice(0), slice(0)), PIXEL_UM, DOF_UM, "increasing")

    assert found.shape == "unknown"
    assert found.reason.startswith("0 of 63 blocks count")
    assert all(math.isnan(value) for value in (found.mean_um, found.median_um, found.nearest_um))


def nearest(blocks: LocalMap, towards: Direction) -> tuple[float, float]:
    found = geometry_of(blocks, PIXEL_UM, DOF_UM, towards)
    return found.nearest_um, found.nearest_sigma_um


@pytest.mark.parametrize(("share", "least_um", "most_um"), [(0.5, 5.0, 10.1), (0.2, 0.0, 0.1)])
def test_the_median_is_as_uncertain_as_the_choice_between_two_surfaces(
    share: float, least_um: float, most_um: float
) -> None:
    """20 µm apart: of half and half it may be either."""
    blocks = field(step(20.0, 0.5 - share))

    assert least_um <= quantile(blocks, 0.5)[1] <= most_um


def test_the_median_of_scattered_blocks_is_as_uncertain_as_a_normal_one() -> None:
    """1.25 σ over √n, by 20 blocks side by side; averaged over fields, for a quantile of few blocks scatters itself."""
    rng = np.random.default_rng(5)
    fields = [field(lambda v, u: rng.normal(0, 1, v.shape)) for _ in range(200)]
    stated = np.mean([quantile(blocks, 0.5)[1] for blocks in fields])

    assert stated == pytest.approx(1.25 / math.sqrt(20), rel=0.25)


def test_the_nearest_surface_depends_on_which_way_the_sample_is() -> None:
    blocks = field(step(15.0))

    assert nearest(blocks, "increasing")[0] == 0.0, "in focus with the objective furthest back"
    assert nearest(blocks, "decreasing")[0] == 15.0


def test_one_wrong_block_is_not_the_nearest_surface() -> None:
    blocks = field(plane(0, 0))
    blocks.focus_um[2, 2] = -300.0

    assert nearest(blocks, "increasing") == pytest.approx((20.0, 0.0), abs=1e-6)


def test_surer_blocks_are_no_more_of_the_field() -> None:
    blocks = field(plane(0, 30))
    blocks.sigma_um[:, :4] = 10 * SIGMA_UM

    found = geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing")

    assert found.median_um == pytest.approx(20.0)
    assert found.mean_um == pytest.approx(20.0, abs=0.01)
    assert found.plane.z_um == pytest.approx(20.0, abs=1e-3), "in the middle of the field"
    assert (found.plane.y_px, found.plane.x_px) == (512.0, 640.0)


def bowl(v: Array, u: Array) -> Array:
    return 18.0 + 24 * (v**2 + u**2)


def test_the_mean_of_a_bowl_is_that_of_the_whole_field() -> None:
    """Blocks show little of the corners: their own average would be more than 0.5 µm too low."""
    blocks = field(bowl)
    found = geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing")
    assert found.mean_um == pytest.approx(22.0, abs=3 * found.mean_sigma_um)
    assert np.nanmean(blocks.focus_um) < 21.5


sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))
heights = st.floats(-1e4, 1e4) | st.just(math.nan)


@st.composite
def any_map(draw: st.DrawFn) -> LocalMap:
    """Blocks of any focus and uncertainty, gaps and nonsense included."""
    rows, columns = draw(sizes)
    blocks = field(plane(0, 0), rows, columns)
    focus_um = draw(arrays(np.float64, (rows, columns), elements=heights))
    sigmas = st.floats(1e-300, 1e300) | st.sampled_from([math.nan, math.inf, 0.0, -1.0])
    return replace(
        blocks, focus_um=focus_um, sigma_um=draw(arrays(np.float64, (rows, columns), elements=sigmas))
    )


@given(blocks=any_map(), towards=st.sampled_from(["increasing", "decreasing"]))
def test_any_map_has_a_geometry_that_json_can_hold(blocks: LocalMap, towards: str) -> None:
    found = geometry_of(blocks, PIXEL_UM, DOF_UM, towards)  # type: ignore[arg-type]

    told = json.loads(json.dumps(describe(blocks, found, PIXEL_UM).model_dump(mode="json"), allow_nan=False))
    counted = blocks.focus_um[blocks.counts]
    assert (told["mean_um"] is None) == (counted.size == 0)
    if counted.size:
        slack = 1e-6 * (1 + float(np.abs(counted).max()))
        for value in (found.median_um, found.nearest_um, found.sharpest_um):
            assert counted.min() - slack <= value <= counted.max() + slack
        assert abs(found.mean_um - np.median(counted)) <= np.ptp(counted) + slack
        assert found.mean_sigma_um > 0
        assert found.plane.sigma_um > 0
    assert (told["sharpest_um"] is None) == (counted.size == 0)
    if counted.size < 6:
        assert (found.shape, told["spread_um"], told["depths_um"]) == ("unknown", None, [])
    else:
        assert told["spread_um"] >= 0
        assert told["depths_um"] == sorted(told["depths_um"])


@given(blocks=any_map(), by_um=st.floats(-1e3, 1e3))
def test_a_map_moved_along_z_is_the_same_map_elsewhere(blocks: LocalMap, by_um: float) -> None:
    here = geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing")
    there = geometry_of(replace(blocks, focus_um=blocks.focus_um + by_um), PIXEL_UM, DOF_UM, "increasing")

    for name in ("mean_um", "median_um", "nearest_um"):
        assert getattr(there, name) - by_um == pytest.approx(getattr(here, name), abs=1e-4, nan_ok=True)


def test_rows_and_columns_are_treated_alike() -> None:
    blocks = field(plane(6.0, -9.0), noise=3)
    turned = LocalMap(blocks.focus_um.T, blocks.sigma_um.T, blocks.x_px.T, blocks.y_px.T)

    upright, lying = fit_plane(blocks, PIXEL_UM), fit_plane(turned, PIXEL_UM)

    assert (upright.tip_um, upright.tilt_um) == pytest.approx((lying.tilt_um, lying.tip_um))
    assert (upright.tip_sigma_um, upright.tilt_mrad) == pytest.approx((lying.tilt_sigma_um, lying.tip_mrad))
    assert quantile(blocks, 0.5) == quantile(turned, 0.5)
