"""The simulated microscope: Python devices in a real `UniMMCore`, so that the pymmcore-plus path runs.

Exposures, moves and settling take real time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pymmcore_plus.experimental.unicore import SimpleCameraDevice, StageDevice, UniMMCore

from focusd.config import CameraConfig, ObjectiveConfig, RigConfig, SimulatedConfig, StageConfig
from focusd.microscope.micromanager import MicroManagerMicroscope, close_core
from focusd.microscope.simulation import Sensor, World, instrument_of


@dataclass(frozen=True)
class _Move:
    """A movement: where stage and optics began, where it leads, and when it started."""

    from_um: float
    to_um: float
    optical_from_um: float
    started_s: float


class SimulatedStage(StageDevice):
    """A z stage with finite velocity, settling and backlash. What it reads back is its motor's encoder."""

    def __init__(self, settings: SimulatedConfig, start_um: float) -> None:
        super().__init__()
        self._velocity_um_per_s = settings.velocity_um_per_s
        self._settling_s = settings.settling_ms / 1000
        self._play_um = settings.backlash_um / 2
        self._move = _Move(start_um, start_um, start_um, -np.inf)

    def set_position_um(self, val: float) -> None:
        """Start to move; `busy` until it has settled."""
        self._move = _Move(self.get_position_um(), val, self.optical_z_um(), time.perf_counter())

    def get_position_um(self) -> float:
        """Where the motor is now."""
        move = self._move
        path_um = self._velocity_um_per_s * (time.perf_counter() - move.started_s)
        low, high = sorted((move.from_um, move.to_um))
        forward = move.to_um >= move.from_um
        return min(move.from_um + path_um, high) if forward else max(move.from_um - path_um, low)

    def optical_z_um(self) -> float:
        """Where the focal plane is now: the motor drags it along once the play is taken up."""
        motor_um, before_um = self.get_position_um(), self._move.optical_from_um
        return min(max(before_um, motor_um - self._play_um), motor_um + self._play_um)

    def busy(self) -> bool:
        """Whether it moves or settles."""
        move = self._move
        duration_s = abs(move.to_um - move.from_um) / self._velocity_um_per_s + self._settling_s
        return time.perf_counter() < move.started_s + duration_s

    def stop(self) -> None:
        """Stay where it is now."""
        self.set_position_um(self.get_position_um())

    def home(self) -> None:
        """It has no home: homing is never asked for."""
        raise NotImplementedError

    def set_origin(self) -> None:
        """Its origin is fixed."""
        raise NotImplementedError


class SimulatedCamera(SimpleCameraDevice):
    """A camera that looks at the world through the objective."""

    def __init__(
        self, world: World, stage: SimulatedStage, settings: SimulatedConfig, camera: CameraConfig
    ) -> None:
        self._world, self._stage = world, stage
        self._settings = settings
        self._exposure_ms = camera.exposure_ms
        self._bit_depth = camera.bit_depth or 16
        self._binning = 1
        self._sensor = Sensor(settings, camera.exposure_ms, self._bit_depth)
        super().__init__()
        self.set_property_allowed_values("Binning", [str(factor) for factor in range(1, 9)])

    def seed_noise(self, seed: int) -> None:
        """Begin the noise of all further frames anew."""
        self._sensor.seed_noise(seed)

    def sensor_shape(self) -> tuple[int, int]:
        """(y, x) of a frame."""
        return self._settings.height // self._binning, self._settings.width // self._binning

    def dtype(self) -> type[np.unsignedinteger]:
        """Of a frame's pixels."""
        return np.uint8 if self._bit_depth <= 8 else np.uint16

    def get_exposure(self) -> float:
        """Exposure time, ms."""
        return self._exposure_ms

    def set_exposure(self, exposure: float) -> None:
        """Set the exposure time, ms; the signal grows with it."""
        self._exposure_ms = exposure

    def get_binning(self) -> int:
        """Sensor pixels along one side of a frame's pixel."""
        return self._binning

    def set_binning(self, value: int | str) -> None:
        """Set the binning; the core passes what its caller wrote."""
        self._binning = int(value)

    def snap(self, buffer: np.ndarray) -> Mapping[str, object]:
        """Expose one frame; takes the exposure time, or the time to compute it where that is longer."""
        started_s = time.perf_counter()
        light = self._world.light(self._stage.optical_z_um(), started_s)
        buffer[:] = self._sensor.expose(light, self._exposure_ms, self._binning).numpy()
        time.sleep(max(0.0, started_s + self._exposure_ms / 1000 - time.perf_counter()))
        return {}


class SimulatedMicroscope(MicroManagerMicroscope):
    """The simulated devices behind the same code that runs real ones.

    Attributes:
        world: the truth, for tests, bench and demo; the daemon never looks.
    """

    def __init__(
        self, settings: SimulatedConfig, objective: ObjectiveConfig, camera: CameraConfig, stage: StageConfig
    ) -> None:
        """Build the world and load its devices. The stage starts at 0, or mid-way where its limits exclude 0.

        Raises:
            ConfigError: there is no such sample.
        """
        shape = (settings.height, settings.width)
        self.world = World(settings, instrument_of(objective, camera), shape)
        self._z_stage = SimulatedStage(settings, _start_um(stage))
        self._eye = SimulatedCamera(self.world, self._z_stage, settings, camera)
        core = core_with(self._eye, self._z_stage, camera.name)
        try:
            super().__init__(core, camera, stage)
        except BaseException:
            close_core(core)
            raise

    def optical_z_um(self) -> float:
        """Where the focal plane is, which backlash keeps from where the stage says that it stands."""
        return self._z_stage.optical_z_um()

    def set_scene(self, sample: str, seed: int, focus_z_um: float) -> None:
        """Put another sample on the slide: it and the noise of its frames follow from the seed. Safe from any thread.

        Raises:
            ConfigError: there is no such sample.
        """
        self.world.set_scene(sample, seed, focus_z_um)
        self._eye.seed_noise(seed)


def open_simulated(config: RigConfig) -> SimulatedMicroscope:
    """Build the rig's simulated microscope.

    Raises:
        ConfigError: there is no such sample, or the optics are not given.
    """
    settings = config.microscope
    assert isinstance(settings, SimulatedConfig)
    return SimulatedMicroscope(settings, config.objective, config.camera, config.stage)


def core_with(camera: SimulatedCamera, stage: SimulatedStage, camera_name: str) -> UniMMCore:
    # A path, or it looks for device adapters and reports an error where there are none; these devices are Python.
    core = UniMMCore(mm_path=str(Path(__file__).parent))
    core.loadPyDevice(camera_name, camera)
    core.loadPyDevice("z", stage)
    core.initializeAllDevices()
    core.setCameraDevice(camera_name)
    core.setFocusDevice("z")
    return core


def _start_um(stage: StageConfig) -> float:
    return 0.0 if stage.min_um <= 0 <= stage.max_um else (stage.min_um + stage.max_um) / 2
