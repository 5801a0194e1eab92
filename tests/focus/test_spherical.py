"""Spherical aberration that was not there when the optics were calibrated."""

from __future__ import annotations

import numpy as np
import pytest

from focusd.focus.calibration import Calibration
from focusd.focus.extent import Optics, find_extent
from focusd.focus.measurement import Spectrum
from focusd.focus.posterior import Evidence
from focusd.focus.spherical import WAVES, aberrated, may_be_aberrated
from focusd.optics.instrument import Instrument
from tests.focus.exposures import BLOCK_PX, FREQUENCIES, MODES, NOISE, SPREAD

DRY = Instrument(40.0, 0.95)
WITHIN_UM = (-80.0, 80.0)
PLANES_UM = (-40.0, -46.0, 1.0, 12.0, 6.0)


@pytest.fixture
def optics(calibration: Calibration) -> Optics:
    """A dry objective of high NA whose axial unit is that of the calibration."""
    wavelength_um = calibration.axial_unit_um * DRY.na**2
    pixel_um = DRY.camera_pixel_um * wavelength_um / DRY.wavelength_um
    return Optics(Instrument(40.0, 0.95, 1.0, wavelength_um, pixel_um), BLOCK_PX)


def seen(calibration: Calibration, z_um: float, focus_um: float) -> Evidence:
    """A frame, without chance, of an instrument that passes what a calibration says."""
    objects = 1e5 / (1 + (FREQUENCIES / 0.05) ** 2)
    power = objects * np.exp(calibration.transfer.at(np.array([z_um - focus_um]))[0][0]) + NOISE
    return Evidence(z_um, None, 0.01, Spectrum(power, NOISE, 100 * MODES, SPREAD))


@pytest.mark.parametrize(
    ("instrument", "is_aberrated"),
    [
        (Instrument(4.0, 0.1), False),
        (Instrument(10.0, 0.3), False),
        (Instrument(20.0, 0.5), False),
        (Instrument(20.0, 0.75), True),
        (DRY, True),
        (Instrument(60.0, 1.2, 1.333), True),
        (Instrument(63.0, 1.4, 1.515), True),
        (Instrument(100.0, 1.45, 1.515), True),
    ],
)
def test_layers_aberrate_where_the_aperture_is_wide(instrument: Instrument, is_aberrated: bool) -> None:
    assert may_be_aberrated(instrument) == is_aberrated


def test_no_aberration_changes_nothing(calibration: Calibration, optics: Optics) -> None:
    assert aberrated(calibration, 0.0, optics.instrument, BLOCK_PX) is calibration


def test_opposite_aberrations_change_opposite_sides_of_the_focus(
    calibration: Calibration, optics: Optics
) -> None:
    z_um = np.linspace(-20.0, 20.0, 41)
    changes = []
    for waves in (WAVES[0], WAVES[-1]):
        changed = aberrated(calibration, waves, optics.instrument, BLOCK_PX).transfer
        changes.append(changed.at(z_um)[0] - calibration.transfer.at(z_um)[0])
    negative, positive = changes
    assert np.abs(negative).max() > 0.5
    assert np.corrcoef(negative.ravel(), positive[::-1].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("waves", WAVES)
def test_the_aberration_that_explains_the_frames_is_found(
    calibration: Calibration, optics: Optics, waves: float
) -> None:
    now = aberrated(calibration, waves, optics.instrument, BLOCK_PX)
    evidence = [seen(now, z_um, 3.0) for z_um in PLANES_UM]
    extent = find_extent(evidence, calibration, WITHIN_UM, optics)
    assert extent.spherical * waves > 0
    assert extent.uneven_um >= 0.05 * calibration.axial_unit_um, "its best plane is told only so well"


def test_where_the_optics_are_not_known_none_is_looked_for(calibration: Calibration, optics: Optics) -> None:
    now = aberrated(calibration, WAVES[0], optics.instrument, BLOCK_PX)
    evidence = [seen(now, z_um, 3.0) for z_um in PLANES_UM]
    assert find_extent(evidence, calibration, WITHIN_UM).spherical == 0.0


def test_a_sample_that_is_known_to_be_thin_is_not_taken_to_be_thick(
    calibration: Calibration, optics: Optics
) -> None:
    evidence = [seen(calibration.thickened(20.0), z_um, 3.0) for z_um in PLANES_UM]
    assert find_extent(evidence, calibration, WITHIN_UM).thick_um > 0.0
    assert find_extent(evidence, calibration, WITHIN_UM, is_thin=True).thick_um == 0.0
