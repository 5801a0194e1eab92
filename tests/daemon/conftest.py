"""A scripted microscope at z = 3 µm, its scorer, and the operations on them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from focusd.daemon.operations import RigOperations
from tests.daemon.scripted import (
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


@pytest.fixture(scope="session")
def calibration_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration of the scripted rig, made once: it takes a second."""
    state = tmp_path_factory.mktemp("calibrated")

    async def make() -> str:
        async with operations_of(config_of(state), ScriptedMicroscope(), ScriptedScorer()) as operations:
            return str((await calibrate_at_focus(operations)).path)

    return Path(anyio.run(make))


@pytest.fixture
async def calibrated(operations: RigOperations, tmp_path: Path, calibration_file: Path) -> RigOperations:
    """The operations with a calibration."""
    folder = tmp_path / "scripted" / "calibrations"
    folder.mkdir(parents=True)
    shutil.copy(calibration_file, folder)
    return operations
