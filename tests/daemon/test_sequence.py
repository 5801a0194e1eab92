"""Operations on a camera that streams: the real service on the simulated rig, whose camera can stall."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from pymmcore_plus.experimental.unicore.core._unicore import AcquisitionThread

from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.errors import CancelledJobError, FocusdError, HardwareError
from focusd.microscope.simulated import SimulatedCamera, SimulatedMicroscope, open_simulated
from focusd.protocol.requests import CalibrateParams, MoveParams
from focusd.protocol.results import CalibrationResult
from focusd.storage.store import CalibrationStore
from tests.daemon.scripted import Reports, ScriptedScorer, config_of

pytestmark = pytest.mark.anyio

GRAVEL = {"kind": "simulated", "sample": "gravel", "width": 128, "height": 128, "settling_ms": 0}
PLANES = 9
STAGE_S = 5.0
"""The simulator's core waits 2 s for a stalled camera to end its sequence."""


class Bench:
    """A rig, its operations, and a gate before each exposure."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config = config_of(
            state,
            camera={"exposure_ms": 5.0, "acquisition": "sequence"},
            stage={"timeout_s": STAGE_S},
            microscope=GRAVEL,
        )
        self.open = threading.Event()
        self.open.set()
        render = SimulatedCamera.snap

        def snap(camera: SimulatedCamera, buffer: np.ndarray) -> Mapping[str, object]:
            self.open.wait(60)
            return render(camera, buffer)

        monkeypatch.setattr(SimulatedCamera, "snap", snap)
        self.microscope: SimulatedMicroscope = open_simulated(config)
        self.rig = Rig(self.microscope, config.stage, config.camera)
        store = CalibrationStore(state / "calibrations")
        self.operations = RigOperations(config, self.rig, SpectralScorer(), store)

    @property
    def streams(self) -> bool:
        return bool(self.microscope._core.isSequenceRunning())

    async def stack(self, at_plane: Any = lambda _number: None) -> CalibrationResult:
        planes = np.linspace(-40, 40, PLANES).tolist()
        reports = Reports(at_progress=at_plane)
        return await self.operations.calibrate(CalibrateParams(planes_um=planes), reports)


class SpectralScorer(ScriptedScorer):
    """Frames of the simulator have no z printed into them: whatever they show is scored alike."""

    def _defocus_um(self, pixels: np.ndarray) -> float:
        return 10.0


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    yield bench
    bench.open.set()
    for thread in threading.enumerate():
        if isinstance(thread, AcquisitionThread):  # the core gave up waiting for the one that stalled
            thread.join(10)
    await bench.rig.aclose()
    bench.microscope.close()


async def test_the_camera_streams_through_an_operation_and_rests_after_it(bench: Bench) -> None:
    streamed: list[bool] = []
    with pytest.raises(FocusdError):  # scores that are all alike are no curve
        await bench.stack(lambda _number: streamed.append(bench.streams))
    assert streamed[: PLANES - 2] == [True] * (PLANES - 2), "the last frames are scored when all are exposed"
    assert not bench.streams
    assert bench.rig.last_z_um == 0.0


async def test_a_move_lights_nothing(bench: Bench) -> None:
    await bench.operations.move(MoveParams(z_um=5.0), Reports())
    assert not bench.streams


async def test_cancelled_in_mid_sequence(bench: Bench) -> None:
    with anyio.fail_after(20), anyio.CancelScope() as scope, pytest.raises(CancelledJobError) as caught:
        await bench.stack(lambda number: scope.cancel() if number == 3 else None)
    assert caught.value.data["stage_z_um"] == bench.microscope.position_um() == 0.0
    assert not bench.streams
    assert bench.rig.fault is None


async def test_a_camera_that_stalls_in_mid_sequence(bench: Bench) -> None:
    with pytest.raises(HardwareError, match="no frame for") as caught, anyio.fail_after(20):
        await bench.stack(lambda number: bench.open.clear() if number == 3 else None)
    assert caught.value.data["stage_z_um"] == bench.microscope.position_um() == 0.0
    assert bench.rig.fault is None, "its driver still answers: another operation may be tried"
    assert not bench.streams


async def test_a_sequence_that_does_not_end_is_a_fault(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hung, end = threading.Event(), bench.microscope.end_sequence
    monkeypatch.setattr(bench.microscope, "end_sequence", lambda: hung.wait(60))
    with pytest.raises(HardwareError, match="the camera did not answer within"), anyio.fail_after(20):
        await bench.stack()
    hung.set()
    end()
    assert bench.rig.fault is not None
