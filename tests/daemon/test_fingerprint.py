"""A calibration belongs to one instrument, one model and one preprocessing: any other refuses it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from focusd import autofocus as autofocus_module
from focusd.daemon.operations import RigOperations
from focusd.errors import CalibrationError
from focusd.protocol.states import Unusable
from focusd.scoring.views import PREPROCESSING_VERSION
from focusd.storage.store import CalibrationStore
from tests.daemon.scripted import (
    ScriptedMicroscope,
    ScriptedScorer,
    calibrate_at_focus,
    config_of,
    operations_of,
    refocus,
)

pytestmark = pytest.mark.anyio


async def test_a_calibration_records_all_that_it_depends_on(operations: RigOperations) -> None:
    path = Path((await calibrate_at_focus(operations)).path)

    assert CalibrationStore(path.parent).load("10x/0.3").fingerprint == {
        "objective": "10x/0.3",
        "magnification": 10,
        "na": 0.3,
        "immersion_index": 1.0,
        "wavelength_um": 0.55,
        "camera": "scripted",
        "pixel_um": 6.5,
        "binning": 1,
        "model_sha256": "5c" * 32,
        "preprocessing": PREPROCESSING_VERSION,
    }


@pytest.mark.parametrize(
    ("field", "section"),
    [
        ("magnification", {"objective": {"magnification": 20}}),
        ("na", {"objective": {"na": 0.25}}),
        ("immersion_index", {"objective": {"immersion_index": 1.33}}),
        ("wavelength_um", {"objective": {"wavelength_um": 0.65}}),
        ("pixel_um", {"camera": {"pixel_um": 3.45}}),
        ("binning", {"camera": {"binning": 2}}),
    ],
)
async def test_calibration_of_another_instrument_is_refused_by_name(
    operations: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    tmp_path: Path,
    field: str,
    section: dict[str, Any],
) -> None:
    await calibrate_at_focus(operations)
    exposed = len(microscope.snaps)

    async with operations_of(config_of(tmp_path, **section), microscope, scorer) as changed:
        with pytest.raises(CalibrationError, match=f"{field} was .*; calibrate anew") as refused:
            await refocus(changed)
        state = await changed.state()

    assert refused.value.data["field"] == field
    assert len(microscope.snaps) == exposed, "nothing is exposed in vain"
    assert state.calibration == Unusable(usable=False, reason=refused.value.message)


@pytest.mark.parametrize(
    ("field", "target", "value"),
    [
        ("camera", (ScriptedMicroscope, "camera_name"), "another"),
        ("preprocessing", (autofocus_module, "PREPROCESSING_VERSION"), 99),
    ],
)
async def test_calibration_of_another_camera_or_preprocessing_is_refused_by_name(
    operations: RigOperations,
    microscope: ScriptedMicroscope,
    scorer: ScriptedScorer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    target: tuple[object, str],
    value: object,
) -> None:
    await calibrate_at_focus(operations)
    monkeypatch.setattr(*target, value)
    async with operations_of(config_of(tmp_path), microscope, scorer) as changed:
        with pytest.raises(CalibrationError, match=f"{field} was"):
            await refocus(changed)


async def test_calibration_of_other_weights_is_refused_by_name(
    operations: RigOperations, microscope: ScriptedMicroscope, tmp_path: Path
) -> None:
    await calibrate_at_focus(operations)
    retrained = ScriptedScorer(sha256="77" * 32)
    async with operations_of(config_of(tmp_path), microscope, retrained) as changed:
        with pytest.raises(CalibrationError, match="model_sha256 was"):
            await refocus(changed)
