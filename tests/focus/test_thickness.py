"""How far a sample extends within a block, and that a run says so: shape, message and thickness tell the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from focusd.errors import AmbiguousError
from focusd.focus.budget import Budget
from focusd.focus.calibration import Calibration
from focusd.focus.extent import find_extent
from focusd.focus.focus import Surface
from focusd.focus.frame import Frame
from focusd.focus.geometry import Array
from focusd.focus.measurement import Mask, Measurement, blocks_with_structure
from focusd.focus.posterior import Evidence
from focusd.focus.refocus import Field, RefocusRun
from focusd.focus.search import PosteriorSearch
from focusd.focus.thickness import thickness_of
from focusd.optics.bands import BlockSpectra
from focusd.protocol.results import RefocusResult
from tests.focus.exposures import WholeFrames, exposure

DOF_UM = 8.3
PLANES_UM = (-40.0, -46.0, 1.0, 12.0)
LEVEL = np.zeros((3, 4))
SLOPE = 12.0 * np.array([-1.5, -0.5, 0.5, 1.5]) * np.ones((3, 1))
"""By 12 µm from block to block."""


def seen(z_um: float, focus_um: Array, thick_um: float) -> Measurement:
    """An exposure of a field whose blocks are even slabs."""
    depths_um = thick_um * np.linspace(-0.5, 0.5, 41)
    layers = [exposure(z_um - depth_um, focus_um) for depth_um in depths_um]
    middle = replace(exposure(z_um, focus_um), sigma=np.full(LEVEL.shape, 0.05))
    power = np.mean([layer.blocks.power for layer in layers], axis=0)
    return replace(middle, blocks=replace(middle.blocks, power=power))


class Sample(WholeFrames):
    """Measures frames of a field of slabs."""

    def __init__(self, focus_um: Array, thick_um: float) -> None:
        self._focus_um = focus_um
        self._thick_um = thick_um

    def measure(
        self, frame: Frame, spectra: BlockSpectra | None = None, only: Mask | None = None
    ) -> Measurement:
        return seen(frame.z_um, self._focus_um, self._thick_um).scored_on(only)


def refocused(
    calibration: Calibration, focus_um: Array, thick_um: float, surface: Surface = "mean"
) -> RefocusResult:
    search = PosteriorSearch(
        calibration, (-150.0, 150.0), away_is_low=True, threshold=0.5, target_um=0.1 * DOF_UM
    )
    run = RefocusRun(
        Sample(focus_um, thick_um),
        search,
        Budget(12, None, None),
        Field(0.65, DOF_UM, "increasing", surface),
        start_um=-20.0,
        limits_um=(-150.0, 150.0),
        exposure_ms=1.0,
        strategy="posterior",
        note="",
    )
    while run.expose_um:
        run.tell(Frame(np.zeros((16, 16), np.uint8), run.expose_um[0], 1.0))
    return run.result


@pytest.mark.parametrize("thick_um", [0.0, 12.0, 24.0])
@pytest.mark.parametrize("focus_um", [LEVEL, SLOPE])
def test_the_extent_within_a_block_does_not_depend_on_the_shape_of_the_field(
    calibration: Calibration, focus_um: Array, thick_um: float
) -> None:
    found = thickness_of([seen(z, focus_um, thick_um) for z in PLANES_UM], calibration, 0.0)

    assert found.um == pytest.approx(thick_um, rel=0.4)
    assert found.at_least_um <= found.um


def test_over_the_field_a_slope_looks_thick(calibration: Calibration) -> None:
    """That is why the blocks are asked."""
    exposures = [seen(z, SLOPE, 0.0) for z in PLANES_UM]
    blocks = blocks_with_structure(exposures)
    evidence = [Evidence(e.z_um, None, 0.01, e.spectrum(blocks)) for e in exposures]

    assert find_extent(evidence, calibration, (-80.0, 80.0)).thick_um > DOF_UM


@pytest.mark.parametrize("thick_um", [18.0, 27.0])
def test_a_slab_is_called_thick(calibration: Calibration, thick_um: float) -> None:
    result = refocused(calibration, LEVEL, thick_um)

    assert result.geometry.shape == "thick"
    assert result.thickness_um == pytest.approx(thick_um, rel=0.4)
    assert f"extends over about {result.thickness_um:.2g} µm" in result.geometry.reason
    assert result.geometry.reason in result.message
    assert result.share_in_focus == pytest.approx(DOF_UM / result.thickness_um, abs=0.1)
    assert f"{result.share_in_focus:.0%} of it is in focus" in result.message
    assert np.ptp(result.geometry.depths_um) == pytest.approx(0.9 * result.thickness_um, rel=0.1)


def test_a_thin_field_is_flat_and_all_in_focus(calibration: Calibration) -> None:
    result = refocused(calibration, LEVEL, 0.0)

    assert (result.geometry.shape, result.thickness_um, result.share_in_focus) == ("flat", 0.0, 1.0)
    assert result.message == ""
    assert result.geometry.spread_um == pytest.approx(0.0, abs=0.1)


def test_a_slope_is_tilted_and_not_thick(calibration: Calibration) -> None:
    result = refocused(calibration, SLOPE / 2, 0.0)

    assert (result.geometry.shape, result.thickness_um) == ("tilted", 0.0)
    assert result.geometry.spread_um == pytest.approx(9.0, rel=0.15)


def test_a_surface_of_a_thick_sample_can_be_asked_for(calibration: Calibration) -> None:
    """That no sample is even is part of σ, and no reason to refuse: no exposure would tell more."""
    result = refocused(calibration, LEVEL, 18.0, "sharpest")

    assert result.focus_um == pytest.approx(0.0, abs=2 * result.sigma_um)
    assert result.sigma_um > 0.1 * result.thickness_um > 0.1 * DOF_UM


def test_two_equal_surfaces_are_ambiguous(calibration: Calibration) -> None:
    halves = np.where(np.arange(4) < 2, -7.0, 7.0) * np.ones((3, 1))
    with pytest.raises(AmbiguousError, match="sharpest surface"):
        refocused(calibration, halves, 0.0, "sharpest")
