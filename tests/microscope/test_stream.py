"""A camera that streams: the demo camera of Micro-Manager, and one of ours that says where it began to expose."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from mm_test_adapters import device_adapter_path
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import SimpleCameraDevice, UniMMCore

from focusd.config import CameraConfig, StageConfig
from focusd.errors import HardwareError
from focusd.microscope.micromanager import MicroManagerMicroscope, close_core

EXPOSURE_MS = 10.0
CAMERA = CameraConfig(pixel_um=6.5, exposure_ms=EXPOSURE_MS, acquisition="sequence")
STAGE = StageConfig(min_um=-100, max_um=100, towards_sample="increasing", timeout_s=1.0)
PLANES_UM = (5.0, -20.0, 0.0, 60.0, 60.0, -3.0)


class Witness(SimpleCameraDevice):
    """Writes into each frame where the stage stood when its exposure began and when it ended.

    Attributes:
        readout_s: from the end of an exposure to the frame's arrival, while the next one is not yet exposed.
        gate: while it is not set, no exposure ends.
        broken: the cable is pulled out.
    """

    def __init__(self, core: CMMCorePlus) -> None:
        super().__init__()
        self._core = core
        self.readout_s = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.exposed = 0

    def sensor_shape(self) -> tuple[int, int]:
        return 8, 8

    def dtype(self) -> type[np.uint16]:
        return np.uint16

    def get_exposure(self) -> float:
        return EXPOSURE_MS

    def set_exposure(self, exposure: float) -> None:
        pass

    def snap(self, buffer: np.ndarray) -> Mapping[str, object]:
        if self.broken:
            raise OSError("no answer on the bus")
        began = self._z_code()
        self.exposed += 1
        time.sleep(EXPOSURE_MS / 1000)
        buffer[:4], buffer[4:] = began, self._z_code()
        time.sleep(self.readout_s)
        self.gate.wait(60)
        return {}

    def _z_code(self) -> int:
        return round(1000 + 10 * self._core.getPosition("Z"))


class Rig:
    """The witness beside the demo stage."""

    def __init__(self) -> None:
        core = UniMMCore(mm_path=device_adapter_path())
        core.loadSystemConfiguration("MMConfig_demo.cfg")
        self.camera = Witness(core)
        core.loadPyDevice("witness", self.camera)
        core.initializeDevice("witness")
        core.setCameraDevice("witness")
        self.core = core
        self.microscope = MicroManagerMicroscope(core, CAMERA, STAGE)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.camera.gate.set()
    rig.microscope.close()


def test_frames_of_the_demo_camera_stream_until_the_operation_ends() -> None:
    core = CMMCorePlus(mm_path=device_adapter_path())
    core.loadSystemConfiguration("MMConfig_demo.cfg")
    try:
        microscope = MicroManagerMicroscope(core, CAMERA, STAGE)
        for _ in range(2):
            frames = [microscope.snap() for _ in range(3)]
            assert core.isSequenceRunning()
            assert [f.pixels.shape for f in frames] == [(512, 512)] * 3
            assert np.ptp(frames[0].pixels) > 50, "the demo camera shows a wave"
            microscope.end_sequence()
            assert not core.isSequenceRunning()
        microscope.end_sequence()
    finally:
        close_core(core)


@pytest.mark.parametrize("readout_s", [0.0, 0.008])
def test_frames_exposed_during_a_move_are_dropped(rig: Rig, readout_s: float) -> None:
    rig.camera.readout_s = readout_s
    for z_um in PLANES_UM:
        rig.microscope.move_to(z_um)
        assert rig.microscope.snap().pixels.ravel().tolist() == [1000 + 10 * z_um] * 64


def test_a_stream_that_has_run_on_for_long_shows_what_is_there_now(rig: Rig) -> None:
    rig.microscope.snap()
    rig.core._seq_buffer._size_bytes = 1024  # eight frames: it overflows meanwhile
    before = rig.camera.exposed
    while rig.camera.exposed < before + 20:
        time.sleep(0.001)
    rig.microscope.move_to(42.0)
    assert rig.microscope.snap().pixels.ravel().tolist() == [1420] * 64


def test_dropped_frames_count_as_light(rig: Rig) -> None:
    first = rig.microscope.snap()
    rig.microscope.move_to(9.0)
    second = rig.microscope.snap()
    assert second.sequence == first.sequence + second.exposures
    assert first.exposures + second.exposures >= rig.camera.exposed - 1 >= 4


def test_a_camera_that_stalls_in_mid_sequence_is_an_error_and_its_sequence_ends(rig: Rig) -> None:
    rig.microscope.snap()
    rig.camera.gate.clear()
    with pytest.raises(
        HardwareError, match=r"no frame for 0\.5 s in the middle of a sequence; check its cable"
    ):
        rig.microscope.snap()
    rig.camera.gate.set()
    rig.microscope.end_sequence()
    assert not rig.core.isSequenceRunning()
    rig.microscope.snap()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # the core's own thread ends
def test_a_camera_that_fails_in_mid_sequence_is_an_error(rig: Rig) -> None:
    rig.microscope.snap()
    rig.camera.broken = True
    with pytest.raises(HardwareError, match="has ended its sequence by itself"):
        rig.microscope.snap()
    rig.camera.broken = False
    rig.microscope.end_sequence()
    rig.microscope.snap()
