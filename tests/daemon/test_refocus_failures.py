"""A search that finds nothing says why, never guesses, stays in its budget, and leaves the stage where it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import anyio
import numpy as np
import pytest
from numpy.typing import NDArray

from focusd.daemon.operations import RigOperations
from focusd.errors import (
    BudgetError,
    CalibrationError,
    CancelledJobError,
    FocusdError,
    HardwareError,
    NoConvergenceError,
    NoSampleError,
    RequestError,
    SaturatedError,
)
from focusd.focus.frame import Frame
from focusd.protocol.requests import MoveParams
from tests.daemon.scripted import (
    FULL_SCALE,
    HOME_UM,
    Curve,
    Reports,
    ScriptedMicroscope,
    ScriptedScorer,
    at,
    refocus,
)

pytestmark = pytest.mark.anyio

NO_FOCUS = (NoConvergenceError, BudgetError)


def empty(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    scorer.structure = 0.1


def saturate(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    microscope.saturated = 0.25


def take_away(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    scorer.focus_um = -110.0


def blunt(_microscope: ScriptedMicroscope, scorer: ScriptedScorer) -> None:
    scorer.sigma = 2.0


def darken(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    def no_light(number: int) -> None:
        if number == 3:
            raise HardwareError("no light")

    microscope.at_snap = no_light


def slip(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    microscope.slips_to_um = -40.0


def spoil_the_third(microscope: ScriptedMicroscope, value: int, noise: int) -> None:
    """Two good frames and a bad one: the worst case, for they fit a focus that is none."""
    snap = microscope.snap

    def spoilt() -> Frame:
        frame = snap()
        if frame.sequence < 3:
            return frame
        pixels = value + np.arange(frame.pixels.size, dtype=np.uint16).reshape(frame.pixels.shape) % (
            noise + 1
        )
        return replace(frame, pixels=pixels.astype(np.uint16))

    microscope.snap = spoilt  # type: ignore[method-assign]


def die(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    spoil_the_third(microscope, 0, 0)


def shut(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    spoil_the_third(microscope, 100, 4)


def dazzle(microscope: ScriptedMicroscope, _scorer: ScriptedScorer) -> None:
    spoil_the_third(microscope, FULL_SCALE, 0)


HARMS = [
    (empty, NoSampleError, "nothing to focus on"),
    (saturate, SaturatedError, "25% of the pixels"),
    (take_away, BudgetError, "8 exposures do not tell the focus"),
    (blunt, NoConvergenceError, r"fit no focus clearly \(σ = "),
    (darken, HardwareError, "no light"),
    (die, HardwareError, "all pixels of the frame are 0: the camera does not read out"),
    (shut, HardwareError, r"the light has changed from a mean of \d+ to 102"),
    (dazzle, SaturatedError, "100% of the pixels"),
    (slip, HardwareError, "reads back -40"),
]


@pytest.mark.parametrize(("harm", "error", "message"), HARMS)
async def test_a_search_that_fails_says_why_and_goes_home(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    harm: Callable[[ScriptedMicroscope, ScriptedScorer], None],
    error: type[FocusdError] | tuple[type[FocusdError], ...],
    message: str,
) -> None:
    harm(microscope, scorer)
    reports = Reports()

    with pytest.raises(error, match=message) as raised:
        await refocus(calibrated, report=reports)

    assert microscope.z_um == raised.value.data["stage_z_um"] == HOME_UM
    assert microscope.moves[-1:] in ([], [HOME_UM])
    assert reports.events[-1] == (
        "focus.failed",
        {"kind": "refocus", "outcome": raised.value.outcome, "reason": raised.value.message},
    )


async def test_failures_carry_what_was_measured(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.structure = 0.1
    with pytest.raises(NoSampleError) as nothing:
        await refocus(calibrated)
    assert [probe["z_um"] for probe in nothing.value.data["probes"]] == microscope.snaps

    microscope.saturated = 0.25
    with pytest.raises(SaturatedError) as bright:
        await refocus(calibrated)
    assert bright.value.data["saturated_fraction"] == pytest.approx(0.25)
    assert bright.value.data["z_um"] == HOME_UM


async def test_cancelled_search_goes_home(calibrated: RigOperations, microscope: ScriptedMicroscope) -> None:
    scope = anyio.CancelScope()
    reports = Reports(at_progress=at(2, scope.cancel))
    with scope, pytest.raises(CancelledJobError, match=r"the stage stands at -?[\d.]+ µm") as raised:
        await refocus(calibrated, report=reports)

    assert raised.value.data["stage_z_um"] == HOME_UM
    assert len(microscope.snaps) in (2, 3), "the third plane may be under way"
    assert microscope.moves[-1] == microscope.z_um == HOME_UM
    topic, told = reports.events[-1]
    assert (topic, told["outcome"]) == ("focus.failed", "cancelled")


@pytest.mark.parametrize("strategy", ["published", "posterior"])
async def test_nothing_is_exposed_after_a_frame_that_is_refused(
    calibrated: RigOperations, microscope: ScriptedMicroscope, strategy: str
) -> None:
    microscope.saturated = 0.25
    with pytest.raises(SaturatedError):
        await refocus(calibrated, strategy=strategy)
    assert microscope.snaps == [HOME_UM]


@pytest.mark.parametrize("strategy", ["published", "posterior"])
async def test_a_budget_within_the_opening_still_scores_what_was_exposed(
    calibrated: RigOperations, microscope: ScriptedMicroscope, strategy: str
) -> None:
    with pytest.raises(BudgetError) as spent:
        await refocus(calibrated, strategy=strategy, max_dose_ms=1.0)  # of one exposure
    assert [probe["z_um"] for probe in spent.value.data["probes"]] == microscope.snaps == [HOME_UM]
    assert spent.value.data["dose_ms"] == 1


async def test_a_spent_budget_says_what_is_known_of_the_focus(calibrated: RigOperations) -> None:
    with pytest.raises(BudgetError, match=r"so far it is .* ± .* µm, and ± .* µm is asked for") as spent:
        await refocus(calibrated, strategy="posterior", max_exposures=2, target_um=1e-3)
    told = spent.value.data
    assert told["sigma_um"] > told["target_um"] == 1e-3
    assert abs(told["focus_um"]) < 5 * told["sigma_um"]


def uphill(defocus_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of no focus at all: never convex."""
    return 0.5 + 0.002 * defocus_um


def level(defocus_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores that do not depend on z."""
    return np.full_like(defocus_um, 0.5)


@pytest.mark.parametrize(("given", "allowed"), [(None, 8), (3, 3), (5, 5), (12, 12)])
async def test_exposures_end_with_the_budget(
    calibrated: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    given: int | None,
    allowed: int,
) -> None:
    scorer.blur = uphill
    with suppress(FocusdError):
        await refocus(calibrated, max_exposures=given)
    assert len(microscope.snaps) == allowed


@pytest.mark.parametrize("blur", [uphill, level])
async def test_scores_that_follow_no_curve_are_no_focus(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer, blur: Curve
) -> None:
    scorer.blur = blur
    with pytest.raises(NO_FOCUS):
        await refocus(calibrated)
    assert microscope.z_um == HOME_UM


async def test_a_focus_beyond_the_calibrated_range_is_never_guessed(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    guessed = {}
    for focus_um in [*range(-160, -109, 10), *range(120, 171, 10)]:
        scorer.focus_um = float(focus_um)
        with suppress(*NO_FOCUS):
            guessed[focus_um] = (await refocus(calibrated)).z_found_um
        await calibrated.move(MoveParams(z_um=HOME_UM), Reports())
    assert guessed == {}


async def test_an_unknown_strategy_is_refused_before_anything_moves(
    calibrated: RigOperations, microscope: ScriptedMicroscope
) -> None:
    with pytest.raises(RequestError, match="unknown strategy 'guess'"):
        await refocus(calibrated, strategy="guess")
    assert (microscope.snaps, microscope.moves) == ([], [])
    assert (await refocus(calibrated, strategy="published")).outcome == "focused"


async def test_without_a_calibration_nothing_is_exposed(
    operations: RigOperations, microscope: ScriptedMicroscope
) -> None:
    with pytest.raises(CalibrationError, match="run `focusctl calibrate`"):
        await refocus(operations)
    assert (microscope.snaps, microscope.moves) == ([], [])


async def test_a_frozen_camera_is_named_by_its_second_frame(
    calibrated: RigOperations, microscope: ScriptedMicroscope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two frames that are the same bit for bit at two z prove it: a camera has noise."""
    first = microscope.snap()

    def frozen() -> Frame:
        microscope.snaps.append(microscope.z_um)
        return replace(first, z_um=microscope.z_um, sequence=len(microscope.snaps))

    monkeypatch.setattr(microscope, "snap", frozen)
    before = len(microscope.snaps)
    with pytest.raises(HardwareError, match=r"the same image at .* bit for bit") as told:
        await refocus(calibrated, strategy="posterior")
    assert "same image again and again" in told.value.data["suspect"]
    assert len(microscope.snaps) - before <= 3
    assert microscope.z_um == HOME_UM


async def test_a_stage_that_moves_by_half_of_what_it_reports_is_named(
    calibrated: RigOperations,
    scorer: ScriptedScorer,
    microscope: ScriptedMicroscope,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = microscope.snap

    def half_way() -> Frame:
        says_um = microscope.z_um
        microscope.z_um = HOME_UM + (says_um - HOME_UM) / 2
        frame = honest()
        microscope.z_um = says_um
        return replace(frame, z_um=says_um)

    monkeypatch.setattr(microscope, "snap", half_way)
    scorer.focus_um = 40.0
    with pytest.raises(FocusdError, match=r"the stage moves by about 0\.[456]") as told:
        await refocus(calibrated, strategy="posterior")
    assert told.value.data["stage_z_um"] == HOME_UM


@pytest.mark.parametrize("strategy", ["posterior", "published"])
async def test_a_search_stays_where_it_is_told_to(
    calibrated: RigOperations, scorer: ScriptedScorer, microscope: ScriptedMicroscope, strategy: str
) -> None:
    scorer.focus_um = 60.0
    microscope.moves.clear()
    with pytest.raises(FocusdError):
        await refocus(calibrated, strategy=strategy, within_um=(HOME_UM - 20.0, HOME_UM + 20.0))
    assert all(abs(z_um - HOME_UM) <= 20.0 for z_um in microscope.moves)
    with pytest.raises(NoConvergenceError, match="nothing is left between"):
        await refocus(calibrated, strategy=strategy, within_um=(5000.0, 6000.0))
