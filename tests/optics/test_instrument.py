"""The instrument's derived numbers against arithmetic by hand."""

import pytest

from focusd.config import CameraConfig, ObjectiveConfig
from focusd.optics.instrument import Instrument


@pytest.mark.parametrize(
    ("instrument", "depth_um"),
    [
        (Instrument(10, 0.3, 1.0, 0.55, 6.5), 0.55 / 0.09 + 6.5 / 3),  # 6.111 + 2.167
        (Instrument(60, 1.4, 1.515, 0.52, 6.5), 0.40194 + 0.11723),
        (Instrument(20, 0.5, 1.0, 0.6, 13.0), 2.4 + 1.3),
    ],
)
def test_depth_of_field(instrument: Instrument, depth_um: float) -> None:
    assert instrument.depth_of_field_um == pytest.approx(depth_um, rel=1e-4)


def test_from_config_counts_binning() -> None:
    objective = ObjectiveConfig(name="20x", magnification=20, na=0.5, immersion_index=1.33, wavelength_um=0.6)
    instrument = Instrument.from_config(objective, CameraConfig(pixel_um=6.5, binning=2))

    assert instrument
    assert instrument.pixel_um == pytest.approx(0.65)
    assert instrument.sampling == pytest.approx(0.65 * 0.5 / 0.6)
    assert instrument.axial_unit_um == pytest.approx(0.6 * 1.33 / 0.25)
    assert instrument.sin_alpha == pytest.approx(0.5 / 1.33)


def test_blur_radius_is_the_cone_and_the_airy_disc() -> None:
    """NA 0.6 in air is a 3-4-5 cone: 8 µm of defocus spread to 6 µm."""
    instrument = Instrument(20, 0.6, wavelength_um=0.6)
    assert instrument.blur_radius_um(-8.0) == pytest.approx(6.0 + 0.61)
