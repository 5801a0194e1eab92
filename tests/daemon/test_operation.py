"""What an operation refuses, how it says so, and that a stack ends whatever its steps are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import numpy as np
import pytest

from focusd.config import CameraConfig, ObjectiveConfig, RigConfig, StageConfig, load_config
from focusd.daemon.operation import Operation
from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.errors import FocusdError, HardwareError, InternalError
from focusd.focus.frame import Frame
from focusd.focus.planes import stack_um
from focusd.optics.instrument import Instrument
from focusd.protocol.model import Result
from focusd.protocol.requests import CalibrateParams, MoveParams
from tests.daemon.scripted import (
    HOME_UM,
    Reports,
    ScriptedMicroscope,
    ScriptedScorer,
    config_of,
    operations_of,
    refocus,
)

pytestmark = pytest.mark.anyio

PATIENCE_S = 60.0
OBJECTIVES = [
    (4.0, 0.1, 1.0),
    (5.0, 0.15, 1.0),
    (10.0, 0.3, 1.0),
    (20.0, 0.5, 1.0),
    (40.0, 0.75, 1.0),
    (63.0, 1.2, 1.33),
    (100.0, 1.4, 1.515),
]
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))

Requested = Callable[[RigOperations], Awaitable[Result]]


def short_stack(operations: RigOperations) -> Awaitable[Result]:
    return operations.calibrate(CalibrateParams(range_um=30, step_um=10), Reports())


def published(operations: RigOperations) -> Awaitable[Result]:
    return refocus(operations)


def posterior(operations: RigOperations) -> Awaitable[Result]:
    return refocus(operations, strategy="posterior")


EACH = pytest.mark.parametrize("operation", [short_stack, published, posterior])


@EACH
@pytest.mark.parametrize("max_step_um", [4.0, 25.0])
async def test_operations_end_where_moves_take_several_steps(
    tmp_path: Path,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    calibrated: RigOperations,
    operation: Requested,
    max_step_um: float,
) -> None:
    scorer.focus_um = 9.0
    with anyio.fail_after(PATIENCE_S):
        expected = await operation(calibrated)
        await calibrated.move(MoveParams(z_um=HOME_UM), Reports())
        before = len(microscope.moves)
        config = config_of(tmp_path, stage={"max_step_um": max_step_um})
        async with operations_of(config, microscope, scorer) as operations:
            result = await operation(operations)
    steps_um = np.abs(np.diff([HOME_UM, *microscope.moves[before:]]))
    assert steps_um.max() <= max_step_um + 1e-9
    found = "z_focus_um" if operation is short_stack else "z_found_um"
    assert getattr(result, found) == pytest.approx(getattr(expected, found), abs=0.1)


async def swept(stage: StageConfig, camera: CameraConfig, planes_um: list[float]) -> ScriptedMicroscope:
    """A stack alone, on a microscope that obeys."""
    microscope = ScriptedMicroscope(0.0)
    rig = Rig(microscope, stage, camera)
    frames: list[Frame] = []

    async def taken(frame: Frame) -> None:
        frames.append(frame)

    with anyio.fail_after(PATIENCE_S):
        await Operation(rig).sweep(planes_um, taken)
        await rig.aclose()
    assert [frame.z_um for frame in frames] == pytest.approx(planes_um)
    return microscope


def usual_planes_um(config: RigConfig) -> list[float]:
    """As calibrate takes them, around 0."""
    usual = stack_um(Instrument.from_config(config.objective, config.camera))
    half = config.calibration.range_um or usual[0]
    step = config.calibration.step_um or usual[1]
    return cast(list[float], np.arange(-half, half + step / 2, step).tolist())


@pytest.mark.parametrize(("magnification", "na", "index"), OBJECTIVES)
async def test_the_usual_stack_of_each_objective_ends(magnification: float, na: float, index: float) -> None:
    """Below NA 0.17 it is wider than one step may be."""
    objective = ObjectiveConfig(name="any", magnification=magnification, na=na, immersion_index=index)
    config = config_of(Path(), objective=objective.model_dump())
    stage = StageConfig(min_um=-5000, max_um=5000, towards_sample="increasing")
    microscope = await swept(stage, config.camera, usual_planes_um(config))
    assert np.abs(np.diff([0.0, *microscope.moves])).max() <= stage.max_step_um + 1e-9


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
async def test_the_stack_of_each_shipped_configuration_ends(file: Path) -> None:
    config = load_config(file)
    microscope = await swept(config.stage, config.camera, usual_planes_um(config))
    assert np.abs(np.diff([0.0, *microscope.moves])).max() <= config.stage.max_step_um + 1e-9


def shrunk(microscope: ScriptedMicroscope, shape: tuple[int, int], since: int) -> None:
    """From an exposure on, its frames have another shape."""
    snap = microscope.snap

    def other() -> Frame:
        frame = snap()
        if len(microscope.snaps) < since:
            return frame
        return replace(frame, pixels=np.resize(frame.pixels, shape))

    microscope.snap = other  # type: ignore[method-assign]


@EACH
@pytest.mark.parametrize(
    ("shape", "since", "message"),
    [
        ((40, 32), 2, r"frames of 40 × 32 pixels .* now, and sent 20 × 32 pixels"),
        ((1, 640), 2, "1 × 640 pixels"),
        ((1, 640), 1, "fewer than 16 along a side tell no focus"),
        ((640, 4), 1, "fewer than 16 along a side tell no focus"),
    ],
)
async def test_frames_that_change_or_are_too_small_are_a_fault_of_the_camera(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    operation: Requested,
    shape: tuple[int, int],
    since: int,
    message: str,
) -> None:
    shrunk(microscope, shape, since)
    with pytest.raises(HardwareError, match=message) as raised:
        await operation(calibrated)
    assert "z_um" in raised.value.data
    assert raised.value.data["stage_z_um"] == microscope.z_um == HOME_UM


@EACH
async def test_a_surprise_is_an_error_that_says_where_the_stage_stands(
    calibrated: RigOperations, microscope: ScriptedMicroscope, operation: Requested
) -> None:
    def surprise(number: int) -> None:
        if number == 2:
            raise ZeroDivisionError("of the driver")

    microscope.at_snap = surprise
    with pytest.raises(InternalError, match=r"a fault in focusd itself .*of the driver") as raised:
        await operation(calibrated)
    assert raised.value.data["stage_z_um"] == microscope.z_um == HOME_UM
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


@EACH
@pytest.mark.parametrize(("says", "error"), [(float("nan"), HardwareError), ("here", InternalError)])
async def test_a_stage_that_says_nonsense_is_an_error_with_the_last_z_that_was_none(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    operation: Requested,
    says: Any,
    error: type[FocusdError],
) -> None:
    await calibrated.move(MoveParams(z_um=HOME_UM), Reports())
    microscope.z_um = says
    with pytest.raises(error) as raised:
        await operation(calibrated)
    assert raised.value.data["stage_z_um"] == HOME_UM
    assert microscope.moves == [HOME_UM]
