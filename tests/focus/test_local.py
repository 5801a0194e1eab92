"""The focus of each block, by its own spectra and where the field lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from focusd.focus.blocks import Array, LocalMap
from focusd.focus.calibration import Calibration
from focusd.focus.geometry import geometry_of
from focusd.focus.local import local_map
from focusd.focus.measurement import Measurement
from tests.focus.exposures import exposure

FIELD_UM, MIRROR_UM = 10.0, -9.5
TELLING = (-20.0, 0.0, 20.0)
MIRRORING = (-1.0, 1.0)
"""Planes so near each other hardly tell a focus from its mirror image about them."""


def mapped(calibration: Calibration, focus_um: float | Array, planes_um: Sequence[float]) -> LocalMap:
    return local_map([exposure(z, focus_um) for z in planes_um], calibration, FIELD_UM)


def noisy(seen: Measurement, rng: np.random.Generator, share: float) -> Measurement:
    """Each block errs in a way of its own."""
    errors = np.exp(rng.normal(0, share, seen.blocks.power.shape))
    return replace(seen, blocks=replace(seen.blocks, power=seen.blocks.power * errors))


def test_a_block_that_hardly_knows_its_side_is_no_other_surface(calibration: Calibration) -> None:
    focus_um = np.full((3, 4), FIELD_UM)
    focus_um[1, 2] = MIRROR_UM
    assert np.isnan(mapped(calibration, focus_um, MIRRORING).focus_um[1, 2])
    assert mapped(calibration, focus_um, TELLING).focus_um == pytest.approx(focus_um, abs=0.2)


def test_a_block_says_that_it_might_lie_elsewhere(calibration: Calibration) -> None:
    sure, unsure = (mapped(calibration, FIELD_UM, planes) for planes in (TELLING, MIRRORING))
    assert sure.focus_um == pytest.approx(FIELD_UM, abs=0.1)
    assert sure.sigma_um.max() < 0.3
    assert unsure.focus_um == pytest.approx(FIELD_UM, abs=0.1)
    assert unsure.sigma_um.min() > 4


def test_blocks_that_do_not_tell_lie_with_their_field(calibration: Calibration) -> None:
    rng = np.random.default_rng(1)
    seen = [noisy(exposure(z, FIELD_UM), rng, 0.02) for z in (-2.0, 2.0)]
    local = local_map(seen, calibration, FIELD_UM)
    assert local.counts.all()
    assert (np.abs(local.focus_um - FIELD_UM) < 2 * local.sigma_um).all()


def test_a_field_that_falls_into_two_is_mapped_as_it_is(calibration: Calibration) -> None:
    focus_um = np.where(np.arange(4) < 2, FIELD_UM, FIELD_UM + 20.0)[None, :].repeat(3, 0)
    local = mapped(calibration, focus_um, (*TELLING, 40.0))
    assert local.focus_um == pytest.approx(focus_um, abs=0.3)
    assert geometry_of(local, 0.65, 8.0, "increasing").shape == "stepped"
