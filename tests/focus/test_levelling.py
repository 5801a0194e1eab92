"""A calibration's field that is tilted or curved is levelled."""

from __future__ import annotations

import numpy as np
import pytest

from focusd.focus import stack
from focusd.focus.blocks import Array
from focusd.focus.calibration import Calibration
from tests.focus.exposures import exposure

PLANES_UM = np.arange(-100, 101, 4.0)
DOWN, ACROSS = np.meshgrid(np.linspace(-1, 1, 3), np.linspace(-1, 1, 4), indexing="ij")


def calibrated(focus_um: float | Array) -> tuple[Calibration, float]:
    return stack.calibrate([exposure(z, focus_um) for z in PLANES_UM], {}, 0.5)


def off(one: Calibration, other: Calibration) -> float:
    """How far two transfers differ near the focus (RMS of the logarithm)."""
    defocus_um = np.array([-12.0, -6.0, 0.0, 6.0, 12.0])
    difference = one.transfer.at(defocus_um)[0] - other.transfer.at(defocus_um)[0]
    return float(np.sqrt((difference**2).mean()))


@pytest.mark.parametrize("height_um", [6.0 * ACROSS + 3.0 * DOWN, 5.0 * (ACROSS**2 + DOWN**2)])
def test_a_field_that_is_not_level_calibrates_as_a_level_one(
    height_um: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    level, levelled = calibrated(3.0)[0], calibrated(3.0 + height_um - height_um.mean())[0]
    monkeypatch.setattr(stack, "uneven_field", lambda *_: None)
    as_it_is = calibrated(3.0 + height_um - height_um.mean())[0]
    assert levelled.rise_um == pytest.approx(np.ptp(height_um), rel=0.2)
    assert off(levelled, level) < off(as_it_is, level) / 3
    assert level.rise_um == as_it_is.rise_um == 0


def test_one_wrong_block_is_no_slope() -> None:
    focus_um = np.full((3, 4), 3.0)
    focus_um[0, 0] = 15.0
    assert calibrated(focus_um)[0].rise_um == 0
