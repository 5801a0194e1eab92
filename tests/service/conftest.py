"""A scripted microscope at z = 3 µm, its scorer, and the operations on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from focusd.service.operations import RigOperations
from tests.service.scripted import (
    ScriptedMicroscope,
    ScriptedScorer,
    calibrate_at_focus,
    config_of,
    operations_of,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def microscope() -> ScriptedMicroscope:
    return ScriptedMicroscope()


@pytest.fixture
def scorer() -> ScriptedScorer:
    return ScriptedScorer()


@pytest.fixture
async def operations(
    tmp_path: Path, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> AsyncIterator[RigOperations]:
    async with operations_of(config_of(tmp_path), microscope, scorer) as operations:
        yield operations


@pytest.fixture
async def calibrated(operations: RigOperations, microscope: ScriptedMicroscope) -> RigOperations:
    """The operations after a calibration; the microscope's notes begin anew."""
    await calibrate_at_focus(operations)
    microscope.snaps.clear()
    microscope.moves.clear()
    return operations
