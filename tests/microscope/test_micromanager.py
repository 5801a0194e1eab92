"""Micro-Manager: its real demo adapters in a real core; only the failing camera is ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mm_test_adapters import device_adapter_path
from pymmcore_plus.experimental.unicore import SimpleCameraDevice, UniMMCore

from focusd.config import CameraConfig, MicroManagerConfig, ObjectiveConfig, RigConfig, StageConfig
from focusd.errors import ConfigError, FocusdError, HardwareError
from focusd.microscope.micromanager import MicroManagerMicroscope, close_core
from focusd.microscope.pixels import full_scale, unsigned
from tests.microscope.opening import opening

CAMERA = CameraConfig(pixel_um=6.5, exposure_ms=1)
STAGE = StageConfig(min_um=-100, max_um=100, towards_sample="increasing")
DEMO = "MMConfig_demo.cfg"

Opener = Callable[..., MicroManagerMicroscope]


@pytest.fixture
def open_demo() -> Iterator[Opener]:
    """Opens demo microscopes, and closes them at the test's end."""
    with opening(MicroManagerMicroscope) as open_one:

        def demo(
            config_file: Path | str = DEMO, sensor: CameraConfig = CAMERA, **settings: str
        ) -> MicroManagerMicroscope:
            settings = {"adapter_path": device_adapter_path(), "config_file": str(config_file)} | settings
            config = RigConfig(
                objective=ObjectiveConfig(name="10x"),
                camera=sensor,
                stage=STAGE,
                microscope=MicroManagerConfig.model_validate({"kind": "micromanager", **settings}),
            )
            return open_one(config)

        yield demo


@pytest.fixture
def demo_with(tmp_path: Path) -> Callable[..., Path]:
    """Writes the demo configuration with some lines added."""

    def write(*lines: str) -> Path:
        demo = (Path(device_adapter_path()) / DEMO).read_text(encoding="utf-8")
        path = tmp_path / "rig.cfg"
        path.write_text("\n".join([demo, *lines, ""]), encoding="utf-8")
        return path

    return write


def test_a_frame_of_the_demo_camera(open_demo: Opener) -> None:
    microscope = open_demo()
    first, second = microscope.snap(), microscope.snap()
    assert microscope.camera_name == "Camera"
    assert (first.pixels.shape, first.pixels.dtype.name, first.full_scale) == ((512, 512), "uint16", 65535)
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.exposure_ms == 1
    assert second.time_s > first.time_s
    assert np.ptp(first.pixels) > 50, "the demo camera shows a wave"


def test_the_stage_goes_where_it_is_sent(open_demo: Opener) -> None:
    microscope = open_demo()
    microscope.move_to(-12.5)
    assert microscope.position_um() == pytest.approx(-12.5)
    assert microscope.snap().z_um == pytest.approx(-12.5)
    microscope.stop()


def test_the_camera_says_its_bit_depth(open_demo: Opener, demo_with: Callable[..., Path]) -> None:
    path = demo_with("Property,Camera,PixelType,16bit", "ConfigGroup,System,Startup,Camera,BitDepth,12")
    frame = open_demo(path).snap()
    assert (frame.pixels.dtype.name, frame.full_scale) == ("uint16", 4095)


def test_the_configuration_may_know_the_bit_depth_better(open_demo: Opener) -> None:
    assert open_demo(DEMO, CAMERA.model_copy(update={"bit_depth": 11})).snap().full_scale == 2047


def test_a_colour_camera_is_seen_in_its_colours(open_demo: Opener, demo_with: Callable[..., Path]) -> None:
    """The demo camera then claims 16 bits for its 8-bit components."""
    frame = open_demo(demo_with("ConfigGroup,System,Startup,Camera,PixelType,32bitRGB")).snap()
    assert (frame.pixels.shape, frame.pixels.dtype.name, frame.full_scale) == ((512, 512, 3), "uint8", 255)


def test_binning(open_demo: Opener) -> None:
    assert open_demo(sensor=CAMERA.model_copy(update={"binning": 2})).snap().pixels.shape == (256, 256)


def test_signed_pixels_are_read_as_unsigned() -> None:
    """A bright 16-bit pixel that arrives as −1 is 65535."""
    pixels = unsigned(np.array([[-1, 5]], np.int16))
    assert pixels.dtype == np.uint16
    assert pixels.tolist() == [[65535, 5]]
    with pytest.raises(ConfigError, match="float32"):
        unsigned(np.zeros((2, 2), np.float32))


def test_more_bits_than_the_pixels_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"camera\.bit_depth is 12.*uint8"):
        full_scale(np.dtype(np.uint8), 12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"config_file": "nowhere.cfg"}, r"microscope\.config_file: nowhere\.cfg does not exist"),
        ({"adapter_path": "/no/such/folder"}, r"microscope\.adapter_path: /no/such/folder"),
        ({"camera": "Lens"}, r"microscope\.camera: 'Lens'.*Camera"),
        ({"stage": "Camera"}, r"microscope\.stage: 'Camera'"),
    ],
)
def test_a_wrong_configuration_names_the_key(
    open_demo: Opener, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_demo(**settings)


def test_a_binning_that_the_camera_cannot_do_is_refused(open_demo: Opener) -> None:
    with pytest.raises(ConfigError, match=r"camera\.binning: 'Camera' cannot bin by 3; it offers 1, 2, 4, 8"):
        open_demo(sensor=CAMERA.model_copy(update={"binning": 3}))


def test_an_unknown_adapter_is_refused(open_demo: Opener, tmp_path: Path) -> None:
    path = tmp_path / "rig.cfg"
    path.write_text("Device,Z,NoSuchAdapter,Stage\n", encoding="utf-8")
    with pytest.raises(HardwareError, match=r"rig\.cfg could not be loaded: .*NoSuchAdapter"):
        open_demo(path)


@pytest.mark.parametrize("kind", ["Camera", "Focus"])
def test_a_file_without_camera_or_stage_is_refused(
    open_demo: Opener, demo_with: Callable[..., Path], kind: str
) -> None:
    key = {"Camera": "camera", "Focus": "stage"}[kind]
    with pytest.raises(ConfigError, match=rf"no {key} is chosen.*microscope\.{key}"):
        open_demo(demo_with(f"Property,Core,{kind},"))


def test_a_contradiction_about_the_focus_direction_is_refused(
    open_demo: Opener, demo_with: Callable[..., Path]
) -> None:
    open_demo(demo_with("FocusDirection,Z,1"))
    with pytest.raises(ConfigError, match=r"stage\.towards_sample is 'increasing'.*decreasing"):
        open_demo(demo_with("FocusDirection,Z,-1"))


class _BrokenCamera(SimpleCameraDevice):
    """Its cable has been pulled."""

    def sensor_shape(self) -> tuple[int, int]:
        return 8, 8

    def dtype(self) -> type[np.uint8]:
        return np.uint8

    def get_exposure(self) -> float:
        return 1.0

    def set_exposure(self, exposure: float) -> None:
        pass

    def snap(self, buffer: np.ndarray) -> Mapping[str, object]:
        raise OSError("no answer on the bus")


def test_a_camera_that_fails_is_a_hardware_error() -> None:
    """Beside a C++ stage, in a UniMMCore; a camera that has no binning to set bins by 1."""
    core = UniMMCore(mm_path=device_adapter_path())
    core.loadSystemConfiguration(DEMO)
    core.loadPyDevice("broken", _BrokenCamera())
    core.initializeDevice("broken")
    core.setCameraDevice("broken")
    microscope = MicroManagerMicroscope(core, CAMERA, STAGE)
    try:
        with pytest.raises(HardwareError, match="could not take an image: no answer on the bus; check"):
            microscope.snap()
        microscope.move_to(3.0)
        assert microscope.position_um() == pytest.approx(3.0)
    finally:
        microscope.close()


def test_a_stage_that_fails_is_a_hardware_error(open_demo: Opener) -> None:
    microscope = open_demo()
    microscope._core.unloadDevice("Z")  # pulled out under us
    attempts: list[Callable[[], object]] = [microscope.position_um, lambda: microscope.move_to(1.0)]
    for attempt in attempts:
        with pytest.raises(FocusdError, match="the stage") as caught:
            attempt()
        assert isinstance(caught.value, HardwareError)


def test_closing_twice_does_no_harm() -> None:
    core = UniMMCore(mm_path=device_adapter_path())
    core.loadSystemConfiguration(DEMO)
    microscope = MicroManagerMicroscope(core, CAMERA, STAGE)
    microscope.close()
    microscope.close()
    close_core(core)


_SESSION = """
from focusd.config import CameraConfig, MicroManagerConfig, ObjectiveConfig, RigConfig, StageConfig
from focusd.microscope.micromanager import open_micromanager
from mm_test_adapters import device_adapter_path
microscope = open_micromanager(RigConfig(
    objective=ObjectiveConfig(name="10x"),
    camera=CameraConfig(pixel_um=6.5, exposure_ms=1),
    stage=StageConfig(min_um=-100, max_um=100, towards_sample="increasing"),
    microscope=MicroManagerConfig(
        kind="micromanager", config_file="MMConfig_demo.cfg", adapter_path=device_adapter_path()
    ),
))
microscope.snap()
microscope.move_to(5.0)
microscope.snap()
microscope.close()
"""


@pytest.mark.slow
def test_twenty_processes_end_well() -> None:
    """MMCore must not call into an interpreter that has gone (docs/explanation/field-notes.md)."""

    def session(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", _SESSION], capture_output=True, text=True, timeout=120)

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(session, range(20)))
    assert [run.returncode for run in runs] == [0] * 20, [run.stderr[-500:] for run in runs if run.returncode]
