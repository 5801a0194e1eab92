"""A recorded stack in the place of a microscope: calibrate on its planes, and focus from several of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from focusd.errors import TravelLimitError
from focusd.protocol.results import CalibrationResult
from tests.system.daemon import Daemon, rig, running
from tests.system.stack import write_stack

FOCUS_UM = 4.0
PLANES_UM = [float(z) for z in np.linspace(-60, 60, 13)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, CalibrationResult]]:
    """A daemon on the stack, and its calibration."""
    folder = tmp_path_factory.mktemp("recorded")
    write_stack(folder / "stack.ome.tif", PLANES_UM, FOCUS_UM)
    values = rig(folder / "state", stage={"min_um": -60.0, "max_um": 60.0})
    with running(folder, values | {"microscope": {"kind": "recorded", "stack": "stack.ome.tif"}}) as daemon:
        yield daemon, daemon.client.calibrate(planes_um=PLANES_UM)


def test_the_calibration_is_taken_on_the_recorded_planes(recorded: tuple[Daemon, CalibrationResult]) -> None:
    daemon, calibration = recorded

    assert calibration.planes == len(PLANES_UM)
    assert calibration.z_focus_um == pytest.approx(FOCUS_UM, abs=calibration.dof_um)
    assert np.diff(calibration.curve.z_um) == pytest.approx([10.0] * 12)
    state = daemon.client.state()
    assert (state.microscope, state.calibration.usable) == ("recorded", True)
    assert state.z_um == 0.0, "the middle of the stack, where it stood"


@pytest.mark.parametrize("start_um", [-40.0, -20.0, 10.0, 30.0])
def test_the_focus_is_found_from_several_planes(
    recorded: tuple[Daemon, CalibrationResult], start_um: float
) -> None:
    daemon, _ = recorded
    daemon.client.move(start_um)

    result = daemon.client.refocus()

    assert abs(result.z_found_um - FOCUS_UM) <= result.dof_um
    assert result.z_start_um == start_um
    assert all(-60 <= probe.z_um <= 60 for probe in result.probes)


def test_a_published_search_that_would_leave_the_stack_is_clipped_and_says_so(
    recorded: tuple[Daemon, CalibrationResult],
) -> None:
    daemon, calibration = recorded
    daemon.client.move(-40.0)

    result = daemon.client.refocus(strategy="published")

    assert -40 - 2 * calibration.fwhm_um < -60
    assert "stage limits" in result.message
    assert min(probe.z_um for probe in result.probes) == -60


def test_a_z_outside_the_stack_is_refused(recorded: tuple[Daemon, CalibrationResult]) -> None:
    daemon, _ = recorded
    daemon.client.move(20.0)

    with pytest.raises(TravelLimitError, match=r"stage\.max_um"):
        daemon.client.move(61.0)
    with pytest.raises(TravelLimitError):
        daemon.client.calibrate(planes_um=[*PLANES_UM, 70.0])

    assert daemon.client.state().z_um == 20.0
