"""What the accuracy bench varies: objective, optics, light, scene, and how far from the focus a run may start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.synthetic import FIELD_PX, INSTRUMENT, Image
from focusd.optics.instrument import Instrument

OBJECTIVES = {
    "10x/0.3": INSTRUMENT,
    "20x/0.5": Instrument(magnification=20.0, na=0.5),
    "40x/0.75": Instrument(magnification=40.0, na=0.75),
    "60x/1.4 oil": Instrument(magnification=60.0, na=1.4, immersion_index=1.515),
}

LIMITS_UM = (-300.0, 300.0)
"""Of the stage at 10×/0.3; it stands at 0."""
_FEWEST_BEADS, _MOST_BEADS = 3, 12
_EMPTY_LEVEL = 0.2


@dataclass(frozen=True)
class Setting:
    """One line of the tables.

    Attributes:
        optics: `aberrated`, `ideal` or `gaussian`.
        reach_um: a run starts anywhere within ± this, at 10×/0.3; in other objectives as many axial units. With a
            warm start the SD of the drift since the last focus, which the search knows.
        scene: `plain`, `tilted`, `sparse`, `empty`, `saturated`, `drifting` or `flickering`.
        warm: the search begins with the last focus as its prior.
    """

    objective: str = "10x/0.3"
    optics: str = "aberrated"
    reach_um: float = 60.0
    electrons: float = 8000.0
    scene: str = "plain"
    warm: bool = False

    @property
    def instrument(self) -> Instrument:
        """Objective and a camera of 6.5 µm pixels."""
        return OBJECTIVES[self.objective]

    @property
    def scale(self) -> float:
        """Axial unit over that of 10×/0.3."""
        return self.instrument.axial_unit_um / INSTRUMENT.axial_unit_um

    @property
    def start_um(self) -> float:
        """How far from the focus a run may start, or the SD of the drift."""
        return self.reach_um * self.scale

    @property
    def limits_um(self) -> tuple[float, float]:
        """Of the stage."""
        return LIMITS_UM[0] * self.scale, LIMITS_UM[1] * self.scale

    def draw_focus(self, rng: np.random.Generator) -> float:
        """Where the focus hides from a stage that stands at 0."""
        if self.warm:
            return float(rng.normal(0, self.start_um))
        return float(rng.uniform(-self.start_um, self.start_um))

    def __str__(self) -> str:
        start = f"warm ± {self.start_um:.3g} µm" if self.warm else f"±{self.start_um:.3g} µm"
        return f"{self.objective}, {self.optics}, {self.electrons:,.0f} e⁻, {self.scene}, {start}"


def seen_in(scene: str, texture: Image, rng: np.random.Generator) -> Image:
    """The object of a scene, (512, 512), 0…1: the texture, a few beads, or nothing."""
    if scene == "empty":
        return np.full((FIELD_PX, FIELD_PX), _EMPTY_LEVEL, np.float32)
    return few_beads(rng) if scene == "sparse" else texture


def few_beads(rng: np.random.Generator) -> Image:
    """3 to 12 beads of 1 to 3 px, bright on nothing, in a periodic field."""
    image = np.zeros((FIELD_PX, FIELD_PX), np.float32)
    y, x = np.indices(image.shape)
    for _ in range(int(rng.integers(_FEWEST_BEADS, _MOST_BEADS + 1))):
        centre, radius = rng.uniform(0, FIELD_PX, 2), rng.uniform(1, 3)
        distance = np.hypot(_around(y - centre[0]), _around(x - centre[1]))
        image += np.float32(rng.uniform(0.3, 1)) * np.clip(radius - distance + 0.5, 0, 1).astype(np.float32)
    return image.clip(0, 1)


def _around(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets in a field whose ends meet."""
    return np.asarray((offset + FIELD_PX / 2) % FIELD_PX - FIELD_PX / 2)
