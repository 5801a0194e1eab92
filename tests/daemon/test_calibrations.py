"""A calibration that is worse does not displace the better one, nothing is lost, and little light is spent in vain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusd.config import RigConfig
from focusd.daemon.jobs import Report
from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.errors import CalibrationError, NoSampleError, RequestError, TravelLimitError
from focusd.focus.calibrating import REPEATED, TWICE
from focusd.microscope.simulated import SimulatedMicroscope, open_simulated
from focusd.optics.instrument import Instrument
from focusd.protocol.calibrations import CalibrationRemoved, KeptCalibration
from focusd.protocol.requests import CalibrateParams, MoveParams, RefocusParams
from focusd.protocol.results import CalibrationResult
from focusd.protocol.states import Usable
from focusd.scoring.scorer import Scorer
from focusd.scoring.weights import load_model
from focusd.storage.store import CalibrationStore
from tests.daemon.scripted import (
    HOME_UM,
    Reports,
    ScriptedMicroscope,
    ScriptedScorer,
    calibrate_at_focus,
    config_of,
    operations_of,
)

pytestmark = pytest.mark.anyio


async def calibrate(
    operations: RigOperations, report: Report | None = None, **given: Any
) -> CalibrationResult:
    asked = CalibrateParams.model_construct(**given)  # what the wire refuses is refused here too
    return await operations.calibrate(asked, report or Reports())


async def range_in_force(operations: RigOperations) -> list[float]:
    calibration = (await operations.state()).calibration
    assert isinstance(calibration, Usable)
    return calibration.range_um


async def kept(operations: RigOperations) -> dict[str, KeptCalibration]:
    """All calibrations, by their ids."""
    return {line.id: line for line in (await operations.calibrations.listed()).calibrations}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"range_um": 40.0}, "reaches only 37 µm to its shorter side, against 97 µm"),
        ({"planes_um": np.arange(-30.0, 120.0, 2.5).tolist()}, "reaches only 30 µm to its shorter side"),
        ({"step_um": 5.0}, "its planes lie 5 µm apart, against 2.5 µm"),
    ],
)
async def test_a_worse_calibration_is_kept_beside_the_one_in_force(
    operations: RigOperations, asked: dict[str, Any], reason: str
) -> None:
    good = await calibrate_at_focus(operations)
    worse = await calibrate(operations, **asked)

    assert (good.in_force, worse.in_force) == (True, False)
    assert reason in worse.message
    assert f"`focusctl calibrations use {worse.id}`" in worse.message
    lines = await kept(operations)
    assert {name: line.in_force for name, line in lines.items()} == {good.id: True, worse.id: False}
    assert reason in lines[worse.id].remark
    assert await range_in_force(operations) == good.range_um

    assert (await operations.calibrations.use(id=worse.id)).in_force
    assert await range_in_force(operations) == worse.range_um
    better = await calibrate_at_focus(operations)
    assert (better.in_force, better.message) == (True, "")
    assert len(await kept(operations)) == 3


async def test_a_less_regular_curve_is_worse(operations: RigOperations, scorer: ScriptedScorer) -> None:
    await calibrate_at_focus(operations)
    usual, noise = scorer.blur, np.random.default_rng(1)
    scorer.blur = lambda z: usual(z) + noise.normal(0, 0.06)
    assert "its curve is less regular (R² 0." in (await calibrate_at_focus(operations)).message


async def test_after_a_change_of_the_rig_the_new_calibration_is_in_force_however_poor(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer, tmp_path: Path
) -> None:
    good = await calibrate_at_focus(operations)
    async with operations_of(config_of(tmp_path, camera={"binning": 2}), microscope, scorer) as changed:
        poor = await calibrate(changed, range_um=40.0)
        assert poor.in_force
        assert "binning was 1, is 2" in (await kept(changed))[good.id].remark
        with pytest.raises(CalibrationError, match="binning was 1, is 2"):
            await changed.calibrations.use(id=good.id)
        assert (await changed.state()).calibration.usable


async def test_one_is_shown_with_its_curve_and_removed_unless_it_is_in_force(
    operations: RigOperations,
) -> None:
    first, second = await calibrate_at_focus(operations), await calibrate_at_focus(operations)

    shown = await operations.calibrations.show(id=first.id)
    assert (shown.curve, shown.in_force) == (first.curve, False)
    with pytest.raises(RequestError, match="in force"):
        await operations.calibrations.remove(id=second.id)
    assert await operations.calibrations.remove(id=first.id) == CalibrationRemoved(removed=first.id)
    assert list(await kept(operations)) == [second.id]
    with pytest.raises(RequestError, match="there is no calibration"):
        await operations.calibrations.show(id=first.id)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"planes_um": [5.0] * 7}, RequestError, "given twice"),
        ({"planes_um": [*range(-30, 30, 5), float("nan")]}, RequestError, "not a number"),
        ({"planes_um": np.linspace(4.94, 5.0, 7).tolist()}, RequestError, r"±15\.3 µm is the least"),
        ({"range_um": 10.0, "step_um": 2.0}, RequestError, "±98 µm in steps of 3.9 µm is usual"),
        ({"range_um": 90.0, "step_um": 30.0}, RequestError, r"steps of 12\.2 µm are the most"),
        ({"range_um": 150.0}, TravelLimitError, r"stage\.max_um.*a stack of ±147 µm is the widest"),
    ],
)
async def test_what_cannot_become_a_calibration_costs_no_light(
    operations: RigOperations,
    microscope: ScriptedMicroscope,
    asked: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        await calibrate(operations, **asked)
    assert (microscope.moves, microscope.snaps) == ([], [])


async def test_a_way_that_is_too_long_costs_no_light_and_the_advice_is_right(
    microscope: ScriptedMicroscope, scorer: ScriptedScorer, tmp_path: Path
) -> None:
    config = config_of(tmp_path, stage={"max_travel_um": 200.0})
    async with operations_of(config, microscope, scorer) as operations:
        with pytest.raises(TravelLimitError, match=r"max_travel_um.*a stack of ±(\d+\.\d) µm") as refused:
            await calibrate_at_focus(operations)
        assert microscope.snaps == []
        widest_um = float(refused.value.message.split("±")[1].split()[0])
        assert (await calibrate(operations, range_um=widest_um - 5)).in_force


async def test_an_empty_field_ends_a_stack_after_a_few_planes(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.structure = 0.1
    reports = Reports()
    with pytest.raises(NoSampleError, match=r"the field is empty as far as 5 exposures .* show"):
        await calibrate(operations, report=reports)
    unit_um = Instrument(magnification=10.0, na=0.3).axial_unit_um
    assert (np.array(microscope.snaps) - HOME_UM) / unit_um == pytest.approx([0, 1, 2, -1, -2])
    assert len(reports.of("focus.progress")) == 5
    assert microscope.z_um == HOME_UM


async def test_a_field_that_shows_nothing_in_its_focus_alone_is_calibrated(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    """As a phase does; and a sweep goes from end to end, whatever was looked at before."""
    score = scorer.score

    def vanishing(pixels: np.ndarray, *given: Any) -> Any:
        scorer.structure = 0.1 if abs(scorer._defocus_um(pixels)) < 4 else 1.0
        return score(pixels, *given)

    scorer.score = vanishing  # type: ignore[method-assign, assignment]
    result = await calibrate_at_focus(operations)
    assert result.exposures == result.planes + 2 + TWICE + REPEATED
    sweep, repeated = microscope.snaps[2:-REPEATED], microscope.snaps[-REPEATED:]
    assert (np.diff(sweep) >= 0).all()
    assert (np.diff(repeated) >= 0).all()


@asynccontextmanager
async def simulated(state: Path) -> AsyncIterator[tuple[RigOperations, SimulatedMicroscope]]:
    """A rig with real optics and the real network; its focus lies at 4 µm, the stage stands at 0."""
    values = {
        "name": "simulated",
        "state_dir": state,
        "objective": {"name": "10x/0.3", "magnification": 10, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 1},
        "stage": {"min_um": -150, "max_um": 150, "towards_sample": "increasing"},
        "microscope": {"kind": "simulated", "width": 256, "height": 256, "focus_z_um": 4.0}
        | {"velocity_um_per_s": 1e6, "settling_ms": 0.0},
        "calibration": {"range_um": 96.0, "step_um": 6.0},
    }
    config = RigConfig.model_validate(values)
    microscope = open_simulated(config)
    instrument = Instrument.from_config(config.objective, config.camera)
    assert instrument
    rig = Rig(microscope, config.stage, config.camera)
    store = CalibrationStore(state / "calibrations")
    try:
        yield RigOperations(config, rig, Scorer(load_model(), instrument.sampling), store), microscope
    finally:
        await rig.aclose()
        microscope.close()


async def test_after_a_good_calibration_nonsense_changes_nothing_and_the_focus_is_found(
    tmp_path: Path,
) -> None:
    async with simulated(tmp_path) as (operations, microscope):
        good = await calibrate(operations)
        nonsense = [
            ("cells", {"planes_um": np.linspace(4.94, 5.0, 7).tolist()}, RequestError),
            ("cells", {"planes_um": np.arange(20.0, 120.0, 6.0).tolist()}, CalibrationError),
            (
                "cells",
                {"range_um": 140.0, "planes_um": np.arange(-140.0, -20.0, 6.0).tolist()},
                CalibrationError,
            ),
            ("empty", {}, NoSampleError),
        ]
        for sample, asked, error in nonsense:
            microscope.set_scene(sample, 0, 4.0)
            with pytest.raises(error):
                await calibrate(operations, **asked)
        microscope.set_scene("cells", 0, 4.0)
        poor = await calibrate(operations, planes_um=np.arange(-16.0, 80.0, 6.0).tolist())

        assert not poor.in_force
        assert await range_in_force(operations) == good.range_um
        for sample, start_um in (("cells", 40.0), ("gravel", -35.0)):
            microscope.set_scene(sample, 1, 4.0)
            await operations.move(MoveParams(z_um=start_um), Reports())
            found = await operations.refocus(RefocusParams(), Reports())
            assert found.outcome == "focused"
            assert abs(found.z_found_um - 4.0) <= found.dof_um / 2
