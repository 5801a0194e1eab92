"""Which z the daemon goes to, given what the search found and what the blocks of the field say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusd.errors import AmbiguousError
from focusd.focus.blocks import Array, LocalMap
from focusd.focus.focus import Focus, Surface, surface_of
from focusd.focus.geometry import geometry_of
from focusd.focus.thickness import Thickness
from tests.focus.test_geometry import DOF_UM, PIXEL_UM, any_map, field, plane

FOUND_UM = 22.0
"""By the search, which the sharper parts of a field lead; the fields' middle is at 20."""
SURE_UM = 0.1


def gone_to(blocks: LocalMap, surface: Surface = "mean", target_um: float = math.inf) -> tuple[float, float]:
    focus = Focus(FOUND_UM, SURE_UM, blocks, target_um=target_um)
    return surface_of(focus, geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing"), surface)


def step(v: Array, u: Array) -> Array:
    return np.where(u > 0.1, 40.0, 20.0)


def nothing(v: Array, u: Array) -> Array:
    return np.full_like(v, np.nan)


@pytest.mark.parametrize("fall_um", [5.0, 25.0])
def test_of_a_slope_the_middle_is_brought_into_focus(fall_um: float) -> None:
    z_um, sigma_um = gone_to(field(plane(0.0, fall_um), noise=1))
    assert z_um == pytest.approx(20, abs=3 * sigma_um)
    assert abs(FOUND_UM - 20) > 3 * sigma_um


def test_of_a_level_field_the_search_knows_best() -> None:
    assert gone_to(field(plane(0.0, 0.0), noise=1)) == (FOUND_UM, SURE_UM)


def test_a_few_blocks_do_not_overrule_the_search() -> None:
    """Three blocks fit any plane, one that is far off too: a sparse field was once left by 16 µm for it."""
    blocks = field(plane(0.0, 0.0))
    blocks.focus_um[:] = np.nan
    blocks.focus_um[0, 4], blocks.focus_um[6, 4], blocks.focus_um[6, 8] = 20.0, -12.5, 20.1
    assert geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing").plane.is_sloped
    assert gone_to(blocks) == (FOUND_UM, SURE_UM)


def test_a_field_that_is_empty_in_part_does_not_overrule_the_search() -> None:
    """Six of nine blocks of a field with few beads once told a slope of 35 µm, and moved the focus by 7."""
    blocks = field(step)
    blocks.focus_um[0] = blocks.focus_um[1, ::3] = np.nan
    assert geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing").shape == "stepped"
    assert gone_to(blocks)[0] == 20
    blocks.focus_um[1] = np.nan
    assert geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing").shape == "stepped"
    assert gone_to(blocks) == (FOUND_UM, SURE_UM)


def test_of_a_step_the_larger_surface_is_brought_into_focus() -> None:
    assert gone_to(field(step))[0] == 20


@pytest.mark.parametrize(("surface", "z_um"), [("nearest", 20.0), ("median", 20.0)])
def test_a_surface_that_is_asked_for_is_gone_to(surface: Surface, z_um: float) -> None:
    assert gone_to(field(step), surface)[0] == z_um


def test_the_sharpest_plane_is_hardly_drawn_by_a_surface_far_from_it() -> None:
    z_um, sigma_um = gone_to(field(step), "sharpest")
    assert z_um == pytest.approx(20.0, abs=1e-3)
    assert sigma_um < 0.2


@pytest.mark.parametrize("surface", ["nearest", "median", "sharpest"])
def test_a_surface_that_no_block_tells_is_refused(surface: Surface) -> None:
    with pytest.raises(AmbiguousError, match=f"where its {surface} surface lies"):
        gone_to(field(nothing), surface)


def halves(v: Array, u: Array) -> Array:
    return np.where(u > 0, 40.0, 20.0)


def test_blocks_that_do_not_know_the_middle_to_the_target_leave_it_to_the_search() -> None:
    """Of two halves the median may be either: 10 µm of uncertainty once stood in an answer that asked for 1."""
    assert gone_to(field(halves))[1] > 5
    assert gone_to(field(halves), target_um=1.0) == (FOUND_UM, SURE_UM)


@pytest.mark.parametrize("surface", ["median", "sharpest"])
def test_a_surface_asked_for_that_is_not_known_to_the_target_is_refused(surface: Surface) -> None:
    with pytest.raises(AmbiguousError, match=rf"the {surface} surface .*\(1.00 µm is wanted"):
        gone_to(field(halves, columns=10), surface, target_um=1.0)


@pytest.mark.parametrize("surface", ["mean", "median", "sharpest"])
def test_what_no_exposure_takes_away_is_reported_and_refuses_nothing(surface: Surface) -> None:
    """The origin of a calibration, and that a thick sample is not even."""
    blocks = field(plane(0.0, 5.0), noise=1)
    geometry = geometry_of(blocks, PIXEL_UM, DOF_UM, "increasing")
    focus = Focus(FOUND_UM, 5.0, blocks, "", 0.8, SURE_UM, 3.0, Thickness(40.0, 30.0, 4.0))
    sigma_um = surface_of(focus, geometry, surface)[1]
    assert 5.0 < sigma_um < math.hypot(0.8, 3.0, 4.0)


@given(
    blocks=any_map(),
    surface=st.sampled_from(["mean", "median", "nearest", "sharpest"]),
    target_um=st.floats(SURE_UM, 20),
)
def test_no_answer_is_less_certain_than_was_asked_for(
    blocks: LocalMap, surface: Surface, target_um: float
) -> None:
    try:
        sigma_um = gone_to(blocks, surface, target_um)[1]
    except AmbiguousError:
        return
    assert sigma_um <= target_um
