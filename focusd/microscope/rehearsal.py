"""A rehearsal: Micro-Manager's camera exposes and its stage moves as ever, while the picture is a simulated one.

Whoever has no sample, or a demo camera that shows no focus, sees all of focusd work on their devices.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import structlog
from pymmcore_plus import CMMCorePlus

from focusd.config import RehearsalConfig, RigConfig
from focusd.focus.frame import Frame
from focusd.microscope.micromanager import MicroManagerMicroscope, take_over
from focusd.microscope.simulation import Sensor, World, instrument_of

log = structlog.get_logger(__name__)


@dataclass
class Showing:
    """What a rehearsal has shown of the devices. Camera and stage each write what is theirs."""

    exposures: int = 0
    slowest_exposure_ms: float = 0.0
    moves: int = 0
    slowest_move_ms: float = 0.0
    furthest_off_um: float = 0.0
    """Between where the stage was sent and what it read back."""

    def exposed(self, seconds: float) -> None:
        """Count an exposure that took so long, with all that the driver takes."""
        self.exposures += 1
        self.slowest_exposure_ms = max(self.slowest_exposure_ms, 1000 * seconds)

    def moved(self, seconds: float, off_um: float) -> None:
        """Count a move that took so long and missed by so much."""
        self.moves += 1
        self.slowest_move_ms = max(self.slowest_move_ms, 1000 * seconds)
        self.furthest_off_um = max(self.furthest_off_um, abs(off_um))


class RehearsedMicroscope(MicroManagerMicroscope):
    """Micro-Manager's devices in front of a simulated sample, which is seen as the stage's own z has it.

    Attributes:
        showing: what the devices have shown so far.
    """

    def __init__(self, core: CMMCorePlus, config: RigConfig) -> None:
        """Take over a core whose devices are loaded and chosen, and lay the sample on the slide.

        Raises:
            ConfigError, HardwareError: as for `MicroManagerMicroscope`; or there is no such sample.
        """
        super().__init__(core, config.camera, config.stage)
        assert isinstance(config.microscope, RehearsalConfig)
        self._scene = config.microscope
        self._binning = config.camera.binning
        self._configured_ms = config.camera.exposure_ms
        shape = (core.getImageHeight() * self._binning, core.getImageWidth() * self._binning)
        self._world = World(self._scene, instrument_of(config.objective, config.camera), shape)
        self._sensor: Sensor | None = None  # the first frame says how many bits it has
        self.showing = Showing()
        log.warning(config.note)

    def snap(self) -> Frame:
        """Expose one image, and draw what the simulated sample shows at the z where the stage stood.

        Raises:
            HardwareError, ConfigError: as for `MicroManagerMicroscope.snap`.
        """
        began_s = time.perf_counter()
        frame = super().snap()
        self.showing.exposed(time.perf_counter() - began_s)
        sensor = self._sensor or Sensor(self._scene, self._configured_ms, frame.largest_value.bit_length())
        self._sensor = sensor
        light = self._world.light(frame.z_um, frame.time_s)
        counts = sensor.expose(light, frame.exposure_ms, self._binning).numpy()
        return replace(frame, pixels=counts.astype(frame.pixels.dtype))

    def move_to(self, z_um: float) -> None:
        """Move to an absolute z and wait until the stage has settled.

        Raises:
            HardwareError: the stage failed.
        """
        began_s = time.perf_counter()
        super().move_to(z_um)
        self.showing.moved(time.perf_counter() - began_s, self.position_um() - z_um)

    def close(self) -> None:
        """Release the hardware, and say what the rehearsal has shown of it. May be called twice."""
        if not self.closed:
            log.info("the rehearsal is over; it showed", **vars(self.showing))
        super().close()


def open_rehearsal(config: RigConfig) -> RehearsedMicroscope:
    """Load the rig's Micro-Manager configuration file, and rehearse with its camera and stage.

    Raises:
        ConfigError: the file, the adapters, a device or the sample cannot be found.
        HardwareError: a device failed.
    """
    return take_over(config, lambda core: RehearsedMicroscope(core, config))
