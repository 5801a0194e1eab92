"""Backlash: what it does to a search, what compensation makes of it, and that the frames themselves measure it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from focusd.config import RigConfig
from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.errors import (
    CalibrationError,
    CancelledJobError,
    FocusdError,
    HardwareError,
    OutOfRangeError,
    TravelLimitError,
)
from focusd.focus.frame import Frame
from focusd.microscope.simulated import SimulatedMicroscope, open_simulated
from focusd.optics.instrument import Instrument
from focusd.protocol.requests import BacklashParams, CalibrateParams, MoveParams, RefocusParams
from focusd.scoring.scorer import Scorer
from focusd.scoring.weights import load_model
from focusd.storage.store import CalibrationStore
from tests.daemon.scripted import (
    HOME_UM,
    LooseMicroscope,
    Reports,
    ScriptedScorer,
    at,
    calibrate_at_focus,
    config_of,
    operations_of,
)

pytestmark = pytest.mark.anyio

PLAY_UM = 3.0
ASKED = BacklashParams(repeats=2)


@pytest.fixture
def microscope() -> LooseMicroscope:
    return LooseMicroscope()


class Watched:
    """Notes by how much the optics stand behind the encoder at each exposure."""

    def __init__(self, microscope: LooseMicroscope) -> None:
        self.behind_um: list[float] = []
        self._microscope, self._snap = microscope, microscope.snap
        microscope.snap = self._watch  # type: ignore[method-assign]

    def _watch(self) -> Frame:
        self.behind_um.append(self._microscope.z_um - self._microscope.optical_um)
        return self._snap()


@asynccontextmanager
async def compensated(
    state: Path, microscope: LooseMicroscope, scorer: ScriptedScorer, towards: str = "increasing"
) -> AsyncIterator[RigOperations]:
    config = config_of(state, stage={"backlash_um": 4.0, "towards_sample": towards})
    async with operations_of(config, microscope, scorer) as operations:
        yield operations


# What is configured.


@pytest.mark.parametrize(("towards", "behind_um"), [("increasing", 1.5), ("decreasing", -1.5)])
async def test_every_plane_of_calibration_search_and_answer_is_reached_from_one_side(
    tmp_path: Path, microscope: LooseMicroscope, scorer: ScriptedScorer, towards: str, behind_um: float
) -> None:
    microscope.play_um, scorer.focus_um = PLAY_UM, 2.0
    watched = Watched(microscope)
    async with compensated(tmp_path, microscope, scorer, towards) as operations:
        await operations.calibrate(CalibrateParams(), Reports())
        assert microscope.z_um == HOME_UM
        for focus_um in (9.0, -14.0, 4.0):
            scorer.focus_um = focus_um
            await operations.refocus(RefocusParams(), Reports())
            assert microscope.optical_um == pytest.approx(focus_um, abs=0.3)
            await operations.refocus(RefocusParams(prior=(microscope.z_um, 1.0)), Reports())
            assert microscope.optical_um == pytest.approx(focus_um, abs=0.3)
    assert len(watched.behind_um) > 90
    assert watched.behind_um == pytest.approx([behind_um] * len(watched.behind_um), abs=1e-6)


async def test_where_none_is_configured_the_first_plane_is_exposed_where_the_stage_stands(
    calibrated: RigOperations, microscope: LooseMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.focus_um = 9.0
    await calibrated.refocus(RefocusParams(), Reports())
    assert microscope.snaps[0] == HOME_UM
    assert microscope.moves[0] == microscope.snaps[1], "no move came before it"


async def test_a_check_goes_beyond_no_further_than_its_reach(
    tmp_path: Path, calibrated: RigOperations, microscope: LooseMicroscope, scorer: ScriptedScorer
) -> None:
    del calibrated  # its calibration is what counts
    scorer.focus_um = -3.0
    async with compensated(tmp_path, microscope, scorer) as operations:
        await operations.refocus(
            RefocusParams(prior=(HOME_UM, 1.0)), Reports(), within_um=(HOME_UM - 14, HOME_UM + 14)
        )
        assert microscope.z_um == pytest.approx(-3.0, abs=0.5)
        assert min(microscope.moves) >= HOME_UM - 14
        scorer.focus_um = HOME_UM - 12
        with pytest.raises(FocusdError):
            await operations.refocus(
                RefocusParams(prior=(HOME_UM, 1.0)), Reports(), within_um=(HOME_UM - 14, HOME_UM + 14)
            )
        assert min(microscope.moves) >= HOME_UM - 14, "there is no room to come to this focus from beyond"


async def test_a_stack_whose_ends_leave_no_room_beyond_is_refused_before_any_light(
    tmp_path: Path, microscope: LooseMicroscope, scorer: ScriptedScorer
) -> None:
    async with compensated(tmp_path, microscope, scorer) as operations:
        with pytest.raises(TravelLimitError, match=r"beyond what a run may use, -146 … 150 µm"):
            await operations.calibrate(CalibrateParams(range_um=150, step_um=5), Reports())
        assert not microscope.snaps
        assert (await operations.move(MoveParams(z_um=-150), Reports())).z_um == -150, "a move may go there"


# What is measured.


@pytest.mark.parametrize("play_um", [0.0, 1.0, PLAY_UM])
@pytest.mark.parametrize("configured_um", [0.0, 4.0])
async def test_the_frames_tell_the_backlash_whatever_is_configured(
    tmp_path: Path,
    calibrated: RigOperations,
    microscope: LooseMicroscope,
    scorer: ScriptedScorer,
    play_um: float,
    configured_um: float,
) -> None:
    del calibrated  # its calibration is what counts
    microscope.play_um, scorer.focus_um = play_um, 8.0
    watched, reports = Watched(microscope), Reports()
    async with operations_of(
        config_of(tmp_path, stage={"backlash_um": configured_um}), microscope, scorer
    ) as operations:
        found = await operations.backlash(ASKED, reports)
    assert abs(found.backlash_um - play_um) <= 2 * found.sigma_um
    assert found.exposures == len(watched.behind_um) == len(reports.of("focus.progress"))
    assert np.abs(watched.behind_um) == pytest.approx(play_um / 2)
    assert microscope.z_um == HOME_UM
    assert microscope.optical_um == HOME_UM - play_um / 2, "it has come home as it will come to each z"
    assert reports.events[-1] == ("focus.done", {"kind": "backlash", **found.model_dump()})
    if play_um == PLAY_UM:
        assert found.advised_um > PLAY_UM
        assert f"backlash_um = {found.advised_um:g} under [stage]" in found.message


async def test_a_stage_without_backlash_is_told_to_have_none(
    calibrated: RigOperations, scorer: ScriptedScorer
) -> None:
    scorer.focus_um = 8.0
    found = await calibrated.backlash(ASKED, Reports())
    assert found.advised_um == 0
    assert "no backlash can be seen" in found.message


async def test_a_backlash_that_is_larger_than_was_asked_for_is_no_result(
    calibrated: RigOperations, microscope: LooseMicroscope, scorer: ScriptedScorer
) -> None:
    """A search may notice first that the stage does not go where it says."""
    microscope.play_um, scorer.focus_um = 8.0, 8.0
    with pytest.raises((OutOfRangeError, HardwareError)) as raised:
        await calibrated.backlash(ASKED, Reports())
    assert raised.value.data["exposures"] == len(microscope.snaps)
    assert microscope.z_um == HOME_UM
    found = await calibrated.backlash(BacklashParams(repeats=2, up_to_um=10.0), Reports())
    assert abs(found.backlash_um - 8.0) <= 2 * found.sigma_um


async def test_it_needs_a_calibration(operations: RigOperations, microscope: LooseMicroscope) -> None:
    with pytest.raises(CalibrationError, match="focusctl calibrate"):
        await operations.backlash(ASKED, Reports())
    assert (microscope.moves, microscope.snaps) == ([], [])


async def test_it_needs_room_on_both_sides(calibrated: RigOperations, microscope: LooseMicroscope) -> None:
    with pytest.raises(OutOfRangeError, match="smaller up_to_um"):
        await calibrated.backlash(BacklashParams(up_to_um=80.0), Reports())
    assert (microscope.moves, microscope.snaps) == ([], [])


async def test_it_never_leaves_the_limits(
    tmp_path: Path, calibrated: RigOperations, microscope: LooseMicroscope, scorer: ScriptedScorer
) -> None:
    del calibrated  # its calibration is what counts
    config = config_of(tmp_path, stage={"min_um": -20, "max_um": 20})
    async with operations_of(config, microscope, scorer) as operations:
        await operations.backlash(ASKED, Reports())
    assert -20 <= min(microscope.moves) < max(microscope.moves) <= 20


async def test_cancelled_or_failed_it_goes_home_and_says_what_it_has_cost(
    calibrated: RigOperations, microscope: LooseMicroscope, scorer: ScriptedScorer
) -> None:
    scope, cancelling = anyio.CancelScope(), Reports()
    cancelling.at_progress = lambda _number: scope.cancel() if len(cancelling.events) == 9 else None
    with scope, pytest.raises(CancelledJobError) as cancelled:
        await calibrated.backlash(ASKED, cancelling)
    assert microscope.z_um == cancelled.value.data["stage_z_um"] == HOME_UM
    before = len(microscope.snaps)
    assert cancelled.value.data["exposures"] == before >= 9
    microscope.at_snap = at(before + 5, lambda: setattr(scorer, "structure", 0.01))
    reports = Reports()
    with pytest.raises(FocusdError) as failed:
        await calibrated.backlash(ASKED, reports)
    assert microscope.z_um == HOME_UM
    assert failed.value.data["exposures"] == len(microscope.snaps) - before > 4
    assert reports.events[-1][0] == "focus.failed"


# With real optics and the real network.


@asynccontextmanager
async def simulated(state: Path, **stage: Any) -> AsyncIterator[tuple[RigOperations, SimulatedMicroscope]]:
    """A 10×/0.3 with a stage of 3 µm of backlash."""
    values = {
        "name": "simulated",
        "state_dir": state,
        "objective": {"name": "10x/0.3", "magnification": 10, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 1},
        "stage": {"min_um": -150, "max_um": 150, "towards_sample": "increasing"} | stage,
        "microscope": {"kind": "simulated", "width": 256, "height": 256, "sample": "gravel", "seed": 1}
        | {"velocity_um_per_s": 1e6, "settling_ms": 0.0, "focus_z_um": 4.0, "backlash_um": PLAY_UM},
    }
    config = RigConfig.model_validate(values)
    microscope = open_simulated(config)
    instrument = Instrument.from_config(config.objective, config.camera)
    assert instrument
    rig = Rig(microscope, config.stage, config.camera)
    scorer = Scorer(load_model(), instrument.sampling)
    try:
        yield RigOperations(config, rig, scorer, CalibrationStore(state / "calibrations")), microscope
    finally:
        await rig.aclose()
        microscope.close()


async def off_focus_um(operations: RigOperations, microscope: SimulatedMicroscope) -> list[float]:
    """How far from the focus the optics end, where a search has found it and the stage comes back to it later.

    Infinite where a search finds none.
    """
    errors: list[float] = []
    for seed, focus_um, start_um in ((11, 13.0, 0.0), (12, -22.0, 0.0), (13, 5.0, 12.0), (14, 5.0, -9.0)):
        await operations.move(MoveParams(z_um=start_um), Reports())
        microscope.set_scene("beads", seed, focus_um)
        try:
            found = await operations.refocus(RefocusParams(), Reports())
        except FocusdError:
            errors.append(math.inf)
            continue
        errors.append(abs(microscope.optical_z_um() - focus_um))
        for elsewhere_um in (found.z_found_um + 40, found.z_found_um - 40):
            await operations.move(MoveParams(z_um=elsewhere_um), Reports())
            await operations.move(MoveParams(z_um=found.z_found_um), Reports())
            errors.append(abs(microscope.optical_z_um() - focus_um))
    return errors


async def test_backlash_is_seen_measured_and_compensated(tmp_path: Path) -> None:
    async with simulated(tmp_path / "as it is") as (operations, microscope):
        await operations.move(MoveParams(z_um=5.0), Reports())
        dof_um = (await calibrate_at_focus(operations)).dof_um
        assert max(await off_focus_um(operations, microscope)) > 0.2 * dof_um
        microscope.set_scene("cells", 21, -8.0)
        measured = await operations.backlash(BacklashParams(), Reports())
    assert abs(measured.backlash_um - PLAY_UM) <= 2 * measured.sigma_um
    assert measured.sigma_um < 0.1 * dof_um
    async with simulated(tmp_path / "compensated", backlash_um=measured.advised_um) as (
        operations,
        microscope,
    ):
        await operations.move(MoveParams(z_um=5.0), Reports())
        await calibrate_at_focus(operations)
        assert max(await off_focus_um(operations, microscope)) < 0.1 * dof_um
