"""A calibration curve, and exposures made from it."""

import numpy as np
import pytest

from focusd.focus.calibration import Calibration
from focusd.focus.stack import calibrate
from tests.focus.exposures import Observe, exposure


@pytest.fixture
def observe() -> Observe:
    """Makes an exposure at z of a field whose focus, a number or a map, is given."""
    return exposure


@pytest.fixture
def calibration() -> Calibration:
    """A calibration over ±100 µm."""
    return calibrate([exposure(z) for z in np.arange(-100, 101, 4.0)], {"objective": "10x"}, 0.5)[0]
