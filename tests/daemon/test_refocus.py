"""The published search on a scripted microscope: where it looks, where it stops, what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from focusd.daemon.operations import RigOperations
from focusd.errors import BudgetError
from focusd.focus import refocus as refocus_module
from tests.daemon.scripted import (
    HOME_UM,
    Reports,
    ScriptedMicroscope,
    ScriptedScorer,
    calibrate_at_focus,
    config_of,
    operations_of,
    refocus,
)

pytestmark = pytest.mark.anyio


def narrow(defocus_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """A blurriness whose profile is 30 µm wide at half maximum."""
    return 1.05 - 1 / (1 + (defocus_um / 15) ** 2)


@pytest.mark.parametrize("focus_um", [-58.0, -7.5, 3.0, 41.3])
async def test_the_focus_is_found_and_the_stage_stays_there(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer, focus_um: float
) -> None:
    scorer.focus_um = focus_um

    result = await refocus(calibrated)

    assert result.z_found_um == microscope.z_um == pytest.approx(focus_um, abs=0.3)
    assert result.shift_um == pytest.approx(focus_um - HOME_UM, abs=0.3)
    assert (result.outcome, result.z_start_um) == ("focused", HOME_UM)
    assert result.exposures == len(microscope.snaps) == len(result.probes) >= 3
    assert [probe.z_um for probe in result.probes] == microscope.snaps
    assert [len(row) for row in result.geometry.focus_um] == [3, 3]
    assert result.dof_um == pytest.approx(0.55 / 0.09 + 6.5 / 3)


@pytest.mark.parametrize("focus_um", [-58.0, 41.3])
async def test_far_from_focus_the_uncertainty_is_that_of_the_scores(
    calibrated: RigOperations, scorer: ScriptedScorer, focus_um: float
) -> None:
    scorer.focus_um = focus_um
    assert (await refocus(calibrated)).sigma_um < 3


async def test_a_focus_that_is_of_use_is_kept_when_the_budget_is_spent(
    tmp_path: Path, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    config = config_of(tmp_path, autofocus={"target_dof": 1e-4})  # nothing is ever known so well
    async with operations_of(config, microscope, scorer) as operations:
        await calibrate_at_focus(operations)
        scorer.focus_um = 21.0
        result = await refocus(operations, strategy="posterior")
        assert result.exposures == 8
        assert result.z_found_um == microscope.z_um == pytest.approx(21.0, abs=0.5)
        assert "the budget is spent (σ = " in result.message
        with pytest.raises(BudgetError):
            await refocus(operations, strategy="posterior", target_um=1e-3)
    assert microscope.z_um == pytest.approx(21.0, abs=0.5), "where it began"


async def test_progress_and_end_are_reported(calibrated: RigOperations) -> None:
    reports = Reports()

    result = await refocus(calibrated, report=reports)

    progress = reports.of("focus.progress")
    assert [(p["exposure"], p["of"]) for p in progress] == [(n + 1, 8) for n in range(result.exposures)]
    assert reports.events[-1] == ("focus.done", {"kind": "refocus", **result.model_dump()})


@pytest.mark.parametrize(
    ("towards_sample", "order"), [("increasing", [0, -1, 1]), ("decreasing", [0, 1, -1])]
)
async def test_planes_away_from_the_sample_are_probed_first(
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    tmp_path: Path,
    towards_sample: str,
    order: list[int],
) -> None:
    config = config_of(tmp_path, stage={"towards_sample": towards_sample})
    async with operations_of(config, microscope, scorer) as operations:
        await calibrate_at_focus(operations)
        result = await refocus(operations)
    assert [np.sign(probe.z_um - HOME_UM) for probe in result.probes] == order


async def test_the_interval_is_two_widths_to_each_side(
    operations: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.blur = narrow
    fwhm_um = (await calibrate_at_focus(operations)).fwhm_um

    result = await refocus(operations)

    assert fwhm_um == pytest.approx(30, rel=0.1)
    opening = sorted(probe.z_um for probe in result.probes[:3])
    assert opening == pytest.approx([HOME_UM - 2 * fwhm_um, HOME_UM, HOME_UM + 2 * fwhm_um])
    assert result.message == ""


async def test_an_interval_wider_than_the_calibration_is_clipped_and_says_so(
    calibrated: RigOperations,
) -> None:
    result = await refocus(calibrated)

    assert result.message == "the search was clipped to the calibrated range"
    opening = sorted(probe.z_um for probe in result.probes[:3])
    assert opening == pytest.approx([HOME_UM - 97, HOME_UM, HOME_UM + 103], abs=0.5)


async def test_what_limited_the_search_does_not_hide_what_the_field_looks_like(
    calibrated: RigOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refocus_module, "_warning", lambda geometry: "the field is tilted")
    result = await refocus(calibrated)
    assert result.message == "the search was clipped to the calibrated range; the field is tilted"


async def test_an_interval_beyond_the_limits_is_clipped_and_says_so(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.focus_um = 60.0
    microscope.z_um = 120.0

    result = await refocus(calibrated)

    assert "stage limits" in result.message
    assert max(microscope.moves) == 150
    assert result.z_found_um == pytest.approx(60, abs=0.3)


async def test_a_stage_that_stands_at_its_limit_still_finds_the_focus(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.focus_um = 90.0
    microscope.z_um = 150.0

    result = await refocus(calibrated)

    assert result.z_found_um == pytest.approx(90, abs=0.3)
    assert len(set(microscope.snaps)) == len(microscope.snaps) >= 3


async def test_the_region_of_interest_is_what_is_scored(
    calibrated: RigOperations, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> None:
    scorer.regions.clear()
    await refocus(calibrated, roi=(1, 2, 10, 12))
    assert scorer.regions == [(1, 2, 10, 12)] * len(microscope.snaps)


async def test_saturation_within_what_is_allowed_is_accepted(
    calibrated: RigOperations, microscope: ScriptedMicroscope
) -> None:
    microscope.saturated = 0.05
    assert (await refocus(calibrated)).outcome == "focused"
