"""Which planes of different objectives the invariance bench compares."""

import numpy as np
import pytest

from bench.invariance import AXIAL_UNITS, REFERENCE, planes_um
from focusd.optics.defocus import blurriness
from focusd.optics.instrument import Instrument


@pytest.mark.parametrize(("magnification", "na"), [(5.0, 0.15), (20.0, 0.5), (40.0, 0.75), (63.0, 0.95)])
def test_planes_of_one_number_are_equally_blurred_through_every_objective(
    magnification: float, na: float
) -> None:
    instrument, reference = Instrument(magnification=magnification, na=na), REFERENCE.instrument
    seen = [blurriness(instrument, z_um) for z_um in planes_um(instrument)]
    assert seen == pytest.approx([blurriness(reference, z_um) for z_um in planes_um(reference)], rel=1e-6)


def test_those_of_the_reference_are_its_axial_units() -> None:
    assert np.allclose(planes_um(REFERENCE.instrument), AXIAL_UNITS * REFERENCE.instrument.axial_unit_um)
