"""A stand-in for your camera and stage, so that the examples run: focusd's simulator, in focus at z = 12.5 µm."""

from pathlib import Path

from focusd.config import load_config
from focusd.microscope.simulated import open_simulated

CONFIG = Path(__file__).parents[1] / "configs" / "simulated-10x.toml"


class Microscope:
    def __init__(self, focus_um=12.5):
        self._inner = open_simulated(load_config(CONFIG))
        self._inner.set_scene("gravel", 1, focus_um)

    def snap(self):
        return self._inner.snap().pixels

    def move_to(self, z_um):
        self._inner.move_to(z_um)

    def position_um(self):
        return self._inner.position_um()
