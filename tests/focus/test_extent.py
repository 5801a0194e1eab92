"""Thick samples: layers that add in power."""

from __future__ import annotations

import numpy as np
import pytest

from focusd.focus.calibration import Calibration
from focusd.focus.extent import find_extent
from focusd.focus.measurement import Spectrum
from focusd.focus.posterior import Evidence
from tests.focus.exposures import FREQUENCIES, MODES, NOISE, SPREAD, transfer

WITHIN_UM = (-80.0, 80.0)
PLANES_UM = (-40.0, -46.0, 1.0, 12.0)


def seen(z_um: float, middle_um: float, thick_um: float) -> Evidence:
    """A frame of an even slab, without chance."""
    depths_um = middle_um + thick_um * np.linspace(-0.5, 0.5, 41)
    objects = 1e5 / (1 + (FREQUENCIES / 0.05) ** 2)
    power = objects * transfer(z_um - depths_um).mean(0) + NOISE
    return Evidence(z_um, None, 0.01, Spectrum(power, NOISE, 100 * MODES, SPREAD))


@pytest.mark.parametrize("middle_um", [-7.0, 0.0, 9.0])
def test_a_thin_sample_is_taken_to_be_thin(calibration: Calibration, middle_um: float) -> None:
    extent = find_extent([seen(z, middle_um, 0.0) for z in PLANES_UM], calibration, WITHIN_UM)
    assert extent.thick_um == 0.0
    assert extent.uneven_um == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("units", [2.0, 3.0, 4.5])
def test_the_extent_of_a_thick_one_is_found(calibration: Calibration, units: float) -> None:
    thick_um = units * calibration.axial_unit_um
    extent = find_extent([seen(z, 3.0, thick_um) for z in PLANES_UM], calibration, WITHIN_UM)
    assert extent.thick_um == pytest.approx(thick_um, rel=0.55)
    assert extent.uneven_um == pytest.approx(0.1 * extent.thick_um, rel=0.5)


def test_a_transfer_of_no_extent_is_the_same(calibration: Calibration) -> None:
    assert calibration.transfer.thickened(0.0) is calibration.transfer


def test_a_thick_sample_keeps_more_power_far_from_its_middle(calibration: Calibration) -> None:
    thin, thick = calibration.transfer, calibration.transfer.thickened(30.0)
    far_um = np.array([40.0])
    assert (thick.at(far_um)[0] >= thin.at(far_um)[0] - 0.05).all()
    assert (thick.at(np.zeros(1))[0][:, 1:] < thin.at(np.zeros(1))[0][:, 1:]).all()
