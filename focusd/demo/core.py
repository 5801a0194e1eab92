"""A microscope as another program has opened it: the simulated camera and stages in a core of that program's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pymmcore_plus.experimental.unicore import StateDevice, UniMMCore, XYStageDevice

from focusd.config import CameraConfig, RigConfig, SimulatedConfig
from focusd.microscope.simulated import SimulatedCamera, SimulatedStage, core_with
from focusd.microscope.simulation import World, instrument_of

FAR_UM = 1e-6
"""Positions further apart are two places."""


@dataclass(frozen=True)
class Exposed:
    """The truth of one exposure.

    Attributes:
        defocus_um: of the focal plane from the sample's focus.
        z_um: of the focal plane.
        by: the thread that asked for it.
    """

    defocus_um: float
    z_um: float
    by: str

    @property
    def by_focusd(self) -> bool:
        """Whether focusd asked for it, not the program."""
        return self.by.startswith("focusd")


class TriggeredStage(SimulatedStage):
    """A z stage that can also step through planes, one at each trigger of the camera."""

    def __init__(self, settings: SimulatedConfig, start_um: float) -> None:
        super().__init__(settings, start_um)
        self._planes_um: tuple[float, ...] = ()
        self._next: int | None = None
        self.can_step = False

    def get_sequence_max_length(self) -> int:
        """How many planes it keeps: none where it does not step."""
        return 1000 if self.can_step else 0

    def send_sequence(self, sequence: Sequence[float]) -> None:
        """Keep planes."""
        self._planes_um = tuple(sequence)

    def start_sequence(self) -> None:
        """Step at each trigger from now on."""
        self._next = 0

    def stop_sequence(self) -> None:
        """Step no longer."""
        self._next = None

    def trigger(self) -> None:
        """The camera is about to expose."""
        if self._next is None:
            return
        self.set_position_um(self._planes_um[self._next % len(self._planes_um)])
        self._next += 1
        while self.busy():
            time.sleep(0.001)


class WatchedCamera(SimulatedCamera):
    """The simulated camera, which notes the truth of each exposure.

    Attributes:
        exposed: all of them, in their order.
        fails: the next exposures raise.
    """

    def __init__(
        self, world: World, stage: TriggeredStage, settings: SimulatedConfig, camera: CameraConfig
    ) -> None:
        super().__init__(world, stage, settings, camera)
        self._truth, self._triggered = world, stage
        self.exposed: list[Exposed] = []
        self.fails = 0

    def snap(self, buffer: np.ndarray) -> Mapping[str, object]:
        """Expose one frame."""
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the camera's cable is loose")
        self._triggered.trigger()
        z_um = self._triggered.optical_z_um()
        by = threading.current_thread().name
        self.exposed.append(Exposed(z_um - self._truth.focus_z_um(), z_um, by))
        return super().snap(buffer)


class TiltedSlide(XYStageDevice):
    """An xy stage with a tilted slide on it: each place has a sample and a focus of its own.

    Attributes:
        empty: places that show nothing.
    """

    def __init__(self, world: World, settings: SimulatedConfig, tilt: tuple[float, float]) -> None:
        super().__init__()
        self._world, self._settings, self._tilt = world, settings, tilt
        self._xy = (0.0, 0.0)
        self._began_s = time.perf_counter()
        self.empty: set[tuple[float, float]] = set()

    def set_position_um(self, x: float, y: float) -> None:
        """Bring another place before the objective."""
        if max(abs(x - self._xy[0]), abs(y - self._xy[1])) > FAR_UM:
            self._xy = (x, y)
            self.refresh()

    def refresh(self) -> None:
        """Show what lies at this place."""
        x, y = self._xy
        drift_um = self._settings.drift_um_per_min * (time.perf_counter() - self._began_s) / 60
        focus_um = self._settings.focus_z_um + self._tilt[0] * x + self._tilt[1] * y + drift_um
        sample = "empty" if (x, y) in self.empty else self._settings.sample
        self._world.set_scene(sample, self._settings.seed + round(7 * x + 13 * y) % 1009, focus_um)

    def get_position_um(self) -> tuple[float, float]:
        """Where it is."""
        return self._xy

    def busy(self) -> bool:
        """It arrives at once."""
        return False

    def stop(self) -> None:
        """It is where it is."""

    def home(self) -> None:
        """It has no home."""
        raise NotImplementedError

    def set_origin(self) -> None:
        """Its origin is fixed."""
        raise NotImplementedError

    set_origin_x = set_origin_y = set_origin


class Lamps(StateDevice):
    """Which light shines; it changes nothing of the picture."""

    def __init__(self) -> None:
        self._lamp = 0
        super().__init__({0: "green", 1: "red", 2: "white"})

    def get_state(self) -> int:
        """The lamp's number."""
        return self._lamp

    def set_state(self, position: int) -> None:
        """Let another lamp shine."""
        self._lamp = position


@dataclass(frozen=True)
class OwnedMicroscope:
    """A core of a program's own, and the truth behind it."""

    core: UniMMCore
    world: World
    camera: WatchedCamera
    stage: TriggeredStage
    slide: TiltedSlide

    @property
    def defocus_um(self) -> float:
        """How far the focal plane is from the sample's focus now."""
        return self.stage.optical_z_um() - self.world.focus_z_um()

    def focus_by_eye(self) -> None:
        """Bring the sample into focus by the stage's own knob, as a person would."""
        self.stage.set_position_um(self.world.focus_z_um())
        while self.stage.busy():
            time.sleep(0.001)


def owned_microscope(
    config: RigConfig, scene: SimulatedConfig, tilt: tuple[float, float] = (0.0, 0.0)
) -> OwnedMicroscope:
    """Open a simulated microscope as another program would: camera, z, xy and a channel group `Channel`.

    Args:
        config: of the rig: its objective, its camera and the stage's limits.
        scene: what lies before the objective.
        tilt: of the slide, µm of focus a µm in x and y.
    """
    world = World(scene, instrument_of(config.objective, config.camera), (scene.height, scene.width))
    stage = TriggeredStage(scene, 0.0)
    camera = WatchedCamera(world, stage, scene, config.camera)
    core = core_with(camera, stage, config.camera.name)
    slide = TiltedSlide(world, scene, tilt)
    for label, device in (("xy", slide), ("lamps", Lamps())):
        core.loadPyDevice(label, device)
        core.initializeDevice(label)
    core.setXYStageDevice("xy")
    for lamp in ("green", "red", "white"):
        core.defineConfig("Channel", lamp, "lamps", "Label", lamp)
    core.setChannelGroup("Channel")
    core.setConfig("Channel", "green")
    core.setAutoShutter(
        False
    )  # pymmcore-plus 0.18 ends an acquisition where it is on and there is no shutter
    return OwnedMicroscope(core, world, camera, stage, slide)


def embedded_rig(config: RigConfig) -> tuple[RigConfig, SimulatedConfig]:
    """Return the same rig as another program's, and the scene before its objective."""
    scene = config.microscope
    assert isinstance(scene, SimulatedConfig)
    values = config.model_dump(exclude={"microscope"}) | {"microscope": {"kind": "embedded"}}
    return RigConfig.model_validate(values), scene
