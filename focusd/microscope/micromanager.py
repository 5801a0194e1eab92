"""Any Micro-Manager hardware, through pymmcore-plus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pymmcore
import structlog
from pymmcore_plus import CMMCorePlus, FocusDirection, find_micromanager

from focusd.config import CameraConfig, CoreConfig, RigConfig, StageConfig
from focusd.errors import ConfigError, FocusdError, HardwareError
from focusd.focus.frame import Frame
from focusd.microscope.pixels import full_scale, unsigned
from focusd.microscope.stream import Stream, Streamed

log = structlog.get_logger(__name__)

POLL_S = 0.0002
"""Between two looks at whether the stage still moves: half of it is lost in each move."""


class MicroManagerMicroscope:
    """The current camera and focus device of a core; `UniMMCore` included.

    The auto-shutter is left as the core has it.

    Attributes:
        closed: the hardware has been released.
    """

    def __init__(self, core: CMMCorePlus, camera: CameraConfig, stage: StageConfig) -> None:
        """Take over a core whose devices are loaded and chosen.

        Raises:
            ConfigError: no camera or stage is chosen, or they cannot be set up as configured.
            HardwareError: a device failed.
        """
        self._core = core
        self.camera_name = _chosen(core.getCameraDevice(), "camera")
        self._stage = _chosen(core.getFocusDevice(), "stage")
        self._bit_depth = camera.bit_depth
        self._sequence = 0
        self._timeout_s = stage.timeout_s + camera.exposure_ms / 1000
        self.closed = False
        self._set_up(camera, stage)
        exposure_s = self._exposure_ms / 1000
        streams = camera.acquisition == "sequence"
        self._stream = Stream(core, exposure_s, stage.timeout_s / 2 + exposure_s) if streams else None

    def _set_up(self, camera: CameraConfig, stage: StageConfig) -> None:
        with reported("set up the camera"):
            self._core.setTimeoutMs(int(self._timeout_s * 1000))
            self._core.setExposure(self.camera_name, camera.exposure_ms)
            self._exposure_ms = float(self._core.getExposure(self.camera_name))
            if (binning := binning_value(self._core, self.camera_name, camera.binning)) is not None:
                self._core.setProperty(self.camera_name, "Binning", binning)
        require_direction(self._core.getFocusDirection(self._stage), stage)

    @property
    def is_demo(self) -> bool:
        """Whether the camera is Micro-Manager's own demonstration."""
        return bool(self._core.getDeviceLibrary(self.camera_name) == "DemoCamera")

    def snap(self) -> Frame:
        """Expose one image where the stage stands.

        Raises:
            HardwareError: the camera failed, or stalled in the middle of a sequence.
            ConfigError: its pixels are of a kind that focusd cannot use.
        """
        z_um = self.position_um()
        with reported("take an image"):
            streamed = self._stream.next() if self._stream else self._snapped()
            time_s = time.perf_counter()
            reported_bits = int(self._core.getImageBitDepth())
        pixels = unsigned(streamed.image)
        self._sequence += streamed.exposures
        # Some colour cameras report more bits than a component holds.
        bit_depth = self._bit_depth or min(reported_bits, 8 * pixels.dtype.itemsize)
        scale = full_scale(pixels.dtype, bit_depth)
        return Frame(pixels, z_um, self._exposure_ms, time_s, self._sequence, scale, streamed.exposures)

    def _snapped(self) -> Streamed:
        self._core.snapImage()
        return Streamed(self._core.getImage(), 1)

    def end_sequence(self) -> None:
        """Let a camera rest that streams.

        Raises:
            HardwareError: the camera failed.
        """
        if self._stream:
            with reported("end the camera's sequence"):
                self._stream.stop()

    def position_um(self) -> float:
        """Where the stage says it is.

        Raises:
            HardwareError: the stage failed.
        """
        with reported("read the stage's position"):
            return float(self._core.getPosition(self._stage))

    def move_to(self, z_um: float) -> None:
        """Move to an absolute z and wait until the stage has settled.

        Raises:
            HardwareError: the stage failed.
        """
        with reported(f"move the stage to {z_um:.3f} µm"):
            self._core.setPosition(self._stage, z_um)
            self._wait_for_stage()

    def _wait_for_stage(self) -> None:
        """As the core's own `waitForDevice`, which looks only every 10 ms."""
        deadline_s = time.perf_counter() + self._timeout_s
        while self._core.deviceBusy(self._stage):
            if time.perf_counter() > deadline_s:
                raise HardwareError(
                    f"the stage has not settled after {self._timeout_s:g} s; check its load and tuning"
                )
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Stop a movement under way; a stage without a stop command goes on to its target.

        Raises:
            HardwareError: the stage failed.
        """
        with reported("stop the stage"):
            self._core.stop(self._stage)

    def close(self) -> None:
        """Release the hardware. May be called twice."""
        if self.closed:
            return
        self.closed = True
        close_core(self._core)


M = TypeVar("M", bound=MicroManagerMicroscope)


def open_micromanager(config: RigConfig) -> MicroManagerMicroscope:
    """Load the rig's Micro-Manager configuration file and take over its camera and stage.

    Raises:
        ConfigError: the file, the adapters or a device cannot be found.
        HardwareError: a device failed.
    """
    microscope = take_over(config, lambda core: MicroManagerMicroscope(core, config.camera, config.stage))
    if microscope.is_demo:
        log.warning(
            "the picture of Micro-Manager's demo camera does not depend on z and cannot be focused: set "
            'microscope.kind = "rehearsal", which lays a simulated sample before it'
        )
    return microscope


def take_over(config: RigConfig, microscope_of: Callable[[CMMCorePlus], M]) -> M:
    """Load the rig's Micro-Manager configuration file and make a microscope of its camera and stage.

    Raises:
        ConfigError: the file, the adapters or a device cannot be found.
        HardwareError: a device failed.
    """
    settings = config.microscope
    assert isinstance(settings, CoreConfig)
    core = CMMCorePlus(mm_path=_adapter_path(settings))
    try:
        _load(core, settings)
        _choose_devices(core, settings)
        microscope = microscope_of(core)
    except BaseException:
        close_core(core)
        raise
    _warn_of_shared_library(core)
    return microscope


def close_core(core: CMMCorePlus) -> None:
    """End a core so that the process can exit.

    MMCore calls back from its own thread while devices go; a callback into an interpreter that is going too
    aborts the process (docs/explanation/field-notes.md). So the callback is taken away first.
    """
    with suppress(Exception):
        if core.isSequenceRunning():
            core.stopSequenceAcquisition()
    with suppress(Exception):
        core.waitForSystem()
    pymmcore.CMMCore.registerCallback(core, None)
    with suppress(Exception):
        core.unloadAllDevices()


@contextmanager
def reported(action: str) -> Iterator[None]:
    """Every failure of the core becomes a HardwareError that says what was tried."""
    try:
        yield
    except FocusdError:
        raise
    except Exception as error:
        raise HardwareError(
            f"could not {action}: {error}; check the device's power, cable and settings"
        ) from error


def _chosen(label: str, kind: str) -> str:
    if not label:
        raise ConfigError(f"no {kind} is chosen: name one in microscope.{kind}, or in the Micro-Manager file")
    return label


def binning_value(core: CMMCorePlus, camera: str, binning: int) -> str | None:
    """Return what the camera calls this binning: `2` or `2x2`. None: it cannot bin, and 1 is asked for.

    Raises:
        ConfigError: it cannot bin so.
    """
    fixed = not core.hasProperty(camera, "Binning") or core.isPropertyReadOnly(camera, "Binning")
    offered = ("1",) if fixed else core.getAllowedPropertyValues(camera, "Binning")
    fitting = [value for value in offered if value in (str(binning), f"{binning}x{binning}")]
    if offered and not fitting:
        raise ConfigError(
            f"camera.binning: {camera!r} cannot bin by {binning}; it offers {', '.join(offered)}"
        )
    if fixed:
        return None
    return fitting[0] if fitting else str(binning)


def require_direction(direction: FocusDirection, stage: StageConfig) -> None:
    """Refuse a configuration that contradicts what the Micro-Manager file says of the stage."""
    said = {FocusDirection.TowardSample: "increasing", FocusDirection.AwayFromSample: "decreasing"}.get(
        direction
    )
    if said is not None and said != stage.towards_sample:
        raise ConfigError(
            f"stage.towards_sample is {stage.towards_sample!r}, but the Micro-Manager file says that {said} "
            "z brings objective and sample closer: find out by hand which is true, and correct the other"
        )


def _adapter_path(config: CoreConfig) -> str:
    path = config.adapter_path or find_micromanager()
    if path is None:
        raise ConfigError(
            "no Micro-Manager device adapters were found: set microscope.adapter_path, run `mmcore install`, "
            "or `pip install mm-test-adapters` for the demo devices"
        )
    if not Path(path).expanduser().is_dir():
        raise ConfigError(
            f"microscope.adapter_path: {path} is not a folder; name the one that holds the adapters"
        )
    return str(Path(path).expanduser())


def system_file(config: CoreConfig) -> Path:
    """Where the Micro-Manager file lies that a configuration names, if it exists.

    Raises:
        ConfigError: no device adapters are found.
    """
    file = Path(config.config_file).expanduser()
    return file if file.exists() or file.is_absolute() else Path(_adapter_path(config)) / file


def _load(core: CMMCorePlus, config: CoreConfig) -> None:
    file = system_file(config)
    if file.exists() and not file.is_file():
        raise ConfigError(f"microscope.config_file: {file} is no ordinary file; name a Micro-Manager file")
    try:
        core.loadSystemConfiguration(config.config_file)
    except FileNotFoundError as error:
        raise ConfigError(
            f"microscope.config_file: {config.config_file} does not exist, here or beside the device adapters"
        ) from error
    except Exception as error:
        raise HardwareError(
            f"{config.config_file} could not be loaded: {error}; check that the devices are on, free, and "
            "work in Micro-Manager"
        ) from error


def _choose_devices(core: CMMCorePlus, config: CoreConfig) -> None:
    """Make the configured devices the current ones."""
    choices = (("camera", config.camera, core.setCameraDevice), ("stage", config.stage, core.setFocusDevice))
    for kind, label, choose in choices:
        if label is None:
            continue
        try:
            choose(label)
        except Exception as error:
            loaded = ", ".join(core.getLoadedDevices())
            raise ConfigError(
                f"microscope.{kind}: {label!r} is no {kind}; the file loads {loaded}"
            ) from error


def _warn_of_shared_library(core: CMMCorePlus) -> None:
    """MMCore locks per adapter library (docs/explanation/field-notes.md)."""
    library = core.getDeviceLibrary(core.getCameraDevice())
    if library == core.getDeviceLibrary(core.getFocusDevice()):
        log.warning("camera and stage share an adapter: a move waits for the exposure's end", adapter=library)
