"""Calibrate, move and tell the state, on a scripted microscope: what is stored, and where the stage ends."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import numpy as np
import pytest

from focusd.daemon.operations import RigOperations
from focusd.errors import (
    CalibrationError,
    CancelledJobError,
    FocusdError,
    HardwareError,
    NoSampleError,
    RequestError,
    SaturatedError,
    TravelLimitError,
)
from focusd.focus.calibrating import REPEATED
from focusd.protocol.requests import CalibrateParams, MoveParams
from focusd.protocol.results import MoveResult
from focusd.storage.store import CalibrationStore
from tests.daemon.scripted import (
    HOME_UM,
    Reports,
    ScriptedMicroscope,
    ScriptedScorer,
    at,
    calibrate_at_focus,
    config_of,
    operations_of,
)

pytestmark = pytest.mark.anyio


def stored(state: Path) -> dict[Path, str]:
    """The files of the rig's calibrations in force, and their content."""
    return {path: path.read_text() for path in (state / "scripted" / "calibrations").glob("*.json*")}


def failing(error: Exception, at: int) -> Callable[[int], None]:
    """An `at_snap` that raises before one exposure."""

    def at_snap(number: int) -> None:
        if number == at:
            raise error

    return at_snap


async def test_calibration_is_stored_and_the_stage_back_at_its_start(
    operations: RigOperations, microscope: ScriptedMicroscope, tmp_path: Path
) -> None:
    result = await calibrate_at_focus(operations)

    assert microscope.z_um == HOME_UM
    assert (result.planes, result.exposures, len(microscope.snaps)) == (81, 88, 88)
    planes_um = np.arange(-97, 103.5, 2.5)
    twice_um = [HOME_UM, -97.0, *planes_um, 103.0]
    assert microscope.snaps[: len(twice_um)] == pytest.approx(twice_um)
    assert result.z_focus_um == pytest.approx(0, abs=0.5)
    assert result.range_um == pytest.approx([-97, 103], abs=0.5)
    assert list(stored(tmp_path)) == [Path(result.path)]
    assert (result.in_force, result.message) == (True, "")
    saved = CalibrationStore(Path(result.path).parent).load("10x/0.3")
    assert (saved.fwhm_um, saved.r2) == (result.fwhm_um, result.r2)


async def test_a_stack_that_nobody_configured_is_the_objectives(
    microscope: ScriptedMicroscope, scorer: ScriptedScorer, tmp_path: Path
) -> None:
    usual = {"range_um": None, "step_um": None}
    async with operations_of(config_of(tmp_path, calibration=usual), microscope, scorer) as operations:
        await calibrate_at_focus(operations)
    assert microscope.snaps[:2] == [HOME_UM, HOME_UM - 98.0]
    sweep = np.diff(microscope.snaps[1:-REPEATED])
    assert sweep[1:-1] == pytest.approx(3.9)
    assert (sweep[[0, -1]] == 0).all(), "the ends are exposed twice"


async def test_calibration_reports_each_plane_and_its_end(operations: RigOperations) -> None:
    reports = Reports()

    result = await operations.calibrate(CalibrateParams(range_um=40, step_um=8), reports)

    assert [(p["exposure"], p["of"]) for p in reports.of("focus.progress")] == [(n, 18) for n in range(1, 19)]
    assert reports.events[-1] == ("focus.done", {"kind": "calibrate", **result.model_dump()})


async def test_a_score_that_tells_no_more_before_the_stack_ends_is_told_and_stored(
    operations: RigOperations, scorer: ScriptedScorer
) -> None:
    usual, anything = scorer.blur, np.random.default_rng(0)
    scorer.blur = lambda z: np.where(np.abs(z) <= 30, usual(z), anything.uniform(0.1, 0.3))

    result = await calibrate_at_focus(operations)

    low_um, high_um = result.curve.z_um[0], result.curve.z_um[-1]
    assert -45 < low_um < -20
    assert 20 < high_um < 45
    assert result.range_um == pytest.approx([-97, 103], abs=0.5)
    assert f"from {low_um:.3g} to {high_um:.3g} µm only" in result.message
    assert "of 81 planes" in result.message
    saved = CalibrationStore(Path(result.path).parent).load("10x/0.3")
    assert (len(saved.z_um), len(saved.transfer.z_um)) == (len(result.curve.z_um), 81)


async def test_given_planes_are_taken_in_ascending_order(
    operations: RigOperations, microscope: ScriptedMicroscope
) -> None:
    planes = [50.0, -60.0, -50.0, -40.0, -30.0, -20.0, -10.0, -5.0, 5.0, 10.0, 20.0, 30.0, 40.0, 61.0]

    result = await operations.calibrate(CalibrateParams(planes_um=planes), Reports())

    assert microscope.snaps[:-REPEATED] == [HOME_UM, min(planes), *sorted(planes), max(planes)]
    assert set(microscope.snaps[-REPEATED:]) <= set(planes)
    assert result.planes == 14
    assert microscope.z_um == HOME_UM


def flatten(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    scorer.blur = lambda z: 0.5 + 0.01 * np.cos(z)


def defocus(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    scorer.focus_um = 98.0


def empty(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    scorer.structure = 0.1


def saturate(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    microscope.saturated = 0.5


def darken(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    microscope.at_snap = failing(HardwareError("no light"), at=9)


def slip(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    microscope.at_snap = at(9, lambda: setattr(microscope, "slips_to_um", 90.0))


HARMS = [
    (flatten, CalibrationError, "do not form a calibration curve"),
    (defocus, CalibrationError, "at the edge of the stack; focus by eye first"),
    (empty, NoSampleError, "choose a textured, flat field"),
    (saturate, SaturatedError, "50% of the pixels"),
    (darken, HardwareError, "no light"),
    (slip, HardwareError, "reads back 90.000 µm"),
]


@pytest.mark.parametrize(("harm", "error", "message"), HARMS)
async def test_calibration_that_fails_changes_nothing(
    operations: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    harm: Callable[[ScriptedMicroscope, ScriptedScorer], None],
    error: type[FocusdError],
    message: str,
    tmp_path: Path,
) -> None:
    harm(microscope, scorer)
    reports = Reports()

    with pytest.raises(error, match=message) as raised:
        await operations.calibrate(CalibrateParams(), reports)

    assert microscope.snaps, "it failed on the way"
    assert microscope.z_um == HOME_UM
    assert stored(tmp_path) == {}
    assert reports.events[-1] == (
        "focus.failed",
        {"kind": "calibrate", "outcome": raised.value.outcome, "reason": raised.value.message},
    )


async def test_cancelled_calibration_goes_home_and_keeps_the_last_one(
    operations: RigOperations, microscope: ScriptedMicroscope, tmp_path: Path
) -> None:
    await calibrate_at_focus(operations)
    before = stored(tmp_path)
    scope = anyio.CancelScope()
    reports = Reports(at_progress=at(5, scope.cancel))
    with scope, pytest.raises(CancelledJobError) as raised:
        await operations.calibrate(CalibrateParams(range_um=80, step_um=5), reports)

    assert microscope.z_um == raised.value.data["stage_z_um"] == HOME_UM
    assert len(reports.of("focus.progress")) == 5
    topic, told = reports.events[-1]
    assert (topic, told["outcome"]) == ("focus.failed", "cancelled")
    assert stored(tmp_path) == before


async def test_stack_beyond_the_limits_is_refused(
    operations: RigOperations, microscope: ScriptedMicroscope
) -> None:
    with pytest.raises(TravelLimitError, match=r"stage\.min_um"):
        await operations.calibrate(CalibrateParams(range_um=200, step_um=10), Reports())
    with pytest.raises(TravelLimitError, match=r"stage\.max_um.*a stack of ±147 µm is the widest"):
        await operations.calibrate(CalibrateParams(planes_um=[100, 110, 120, 130, 140, 150, 151]), Reports())
    assert (microscope.moves, microscope.snaps) == ([], []), "no light is spent, nothing moves"


@pytest.mark.parametrize(("range_um", "step_um"), [(10, 4), (100, 0.01)])
async def test_stack_of_too_few_or_too_many_planes_is_refused_before_it_begins(
    operations: RigOperations, microscope: ScriptedMicroscope, range_um: float, step_um: float
) -> None:
    with pytest.raises(RequestError, match="3 to 500 steps"):
        await operations.calibrate(CalibrateParams(range_um=range_um, step_um=step_um), Reports())
    assert not microscope.snaps


async def test_a_calibration_that_could_not_be_stored_takes_no_light(
    operations: RigOperations, microscope: ScriptedMicroscope, tmp_path: Path
) -> None:
    (tmp_path / "scripted").write_text("a file where the folder should be")
    with pytest.raises(CalibrationError, match="cannot be written"):
        await calibrate_at_focus(operations)
    assert not microscope.snaps
    assert microscope.z_um == HOME_UM


async def test_calibration_that_cannot_be_stored_brings_the_stage_home(
    calibrated: RigOperations, microscope: ScriptedMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (await calibrated.state()).calibration
    microscope.at_snap = lambda number: monkeypatch.setattr(os, "fsync", refuse) if number == 9 else None
    with pytest.raises(CalibrationError, match=r"cannot be written .No space left on device"):
        await calibrate_at_focus(calibrated)
    monkeypatch.undo()
    assert len(microscope.snaps) == 88
    assert microscope.z_um == HOME_UM
    assert (await calibrated.state()).calibration == before


def refuse(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_moves_inside_the_limits_only(
    operations: RigOperations, microscope: ScriptedMicroscope
) -> None:
    assert await operations.move(MoveParams(z_um=-20.0), Reports()) == MoveResult(
        z_start_um=HOME_UM, z_um=-20.0
    )
    with pytest.raises(TravelLimitError, match=r"stage\.max_um"):
        await operations.move(MoveParams(z_um=150.1), Reports())
    assert microscope.z_um == -20


async def test_a_move_that_goes_wrong_is_taken_back(
    operations: RigOperations, microscope: ScriptedMicroscope
) -> None:
    microscope.slips_to_um = 55.0
    with pytest.raises(HardwareError, match="reads back 55"):
        await operations.move(MoveParams(z_um=20.0), Reports())
    assert microscope.moves == [20, HOME_UM]


async def test_the_state_tells_where_the_rig_stands(
    operations: RigOperations, microscope: ScriptedMicroscope
) -> None:
    before = await operations.state()
    await calibrate_at_focus(operations)
    after = await operations.state()

    assert before.z_um is None
    assert before.calibration.usable is False
    assert "focusctl calibrate" in before.calibration.reason
    assert (after.z_um, after.limits_um, after.fault) == (HOME_UM, [-150, 150], None)
    assert (after.rig, after.camera, after.model) == ("scripted", "scripted", "scripted")
    assert after.backend == "cpu"
    assert after.calibration.usable is True
    assert after.calibration.fwhm_um > 0


async def test_the_state_answers_after_a_fault_and_the_hardware_is_left_alone(
    microscope: ScriptedMicroscope, scorer: ScriptedScorer, tmp_path: Path
) -> None:
    released = threading.Event()
    microscope.at_snap = lambda number: number == 5 and released.wait(60)
    config = config_of(tmp_path, stage={"timeout_s": 0.3})
    async with operations_of(config, microscope, scorer) as operations:
        with pytest.raises(HardwareError, match="the camera did not answer"):
            await calibrate_at_focus(operations)
        left_at_um, moved = microscope.z_um, len(microscope.moves)
        for refused in (operations.move(MoveParams(z_um=0.0), Reports()), calibrate_at_focus(operations)):
            with pytest.raises(HardwareError, match="an operator has to check it"):
                await refused
        state = await operations.state()
        released.set()

    assert state.fault is not None
    assert "the camera did not answer" in state.fault
    assert (state.z_um, len(microscope.moves)) == (left_at_um, moved)
    assert left_at_um != HOME_UM, "a rig at fault is not moved, not even home"
