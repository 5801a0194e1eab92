"""A simulated microscope of real timings that costs no more CPU than a real one: it shows frames that it has rendered
before."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from focusd.config import RigConfig, SimulatedConfig
from focusd.microscope.micromanager import MicroManagerMicroscope
from focusd.microscope.simulated import SimulatedCamera, SimulatedStage, core_with
from focusd.microscope.simulation import World, instrument_of


class RehearsedCamera(SimulatedCamera):
    """Renders a plane when it is first exposed, and shows the same frame ever after.

    Attributes:
        rendered: frames that had to be rendered; a run in which this grew is no measurement.
    """

    def __init__(self, world: World, stage: SimulatedStage, config: RigConfig) -> None:
        assert isinstance(config.microscope, SimulatedConfig)
        super().__init__(world, stage, config.microscope, config.camera)
        self.rendered = 0
        self._frames: dict[float, np.ndarray] = {}

    def snap(self, buffer: np.ndarray) -> Mapping[str, object]:
        """Expose one frame; takes the exposure time."""
        began_s = time.perf_counter()
        z_um = round(self._stage.optical_z_um(), 3)
        if z_um not in self._frames:
            super().snap(buffer)
            self._frames[z_um] = buffer.copy()
            self.rendered += 1
        buffer[:] = self._frames[z_um]
        time.sleep(max(0.0, began_s + self.get_exposure() / 1000 - time.perf_counter()))
        return {}

    def forget(self) -> None:
        """Another sample lies on the slide."""
        self._frames.clear()


class RehearsedMicroscope(MicroManagerMicroscope):
    """The simulated microscope with a camera that rehearses.

    Attributes:
        camera: that rehearses.
    """

    def __init__(self, config: RigConfig) -> None:
        assert isinstance(config.microscope, SimulatedConfig)
        shape = (config.microscope.height, config.microscope.width)
        self._world = World(config.microscope, instrument_of(config.objective, config.camera), shape)
        stage = SimulatedStage(config.microscope, 0.0)
        self.camera = RehearsedCamera(self._world, stage, config)
        super().__init__(core_with(self.camera, stage, config.camera.name), config.camera, config.stage)

    def set_scene(self, sample: str, seed: int, focus_z_um: float) -> None:
        """Put another sample on the slide."""
        self._world.set_scene(sample, seed, focus_z_um)
        self.camera.forget()
