"""Nonsense makes no calibration, and every objective and sample does: real optics, the real network, real noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focusd.config import SimulatedConfig
from focusd.errors import CalibrationError, FocusdError, NoSampleError, RequestError
from focusd.focus.calibration import Calibration
from focusd.focus.measurement import Measurement
from focusd.focus.planes import check_planes
from focusd.focus.stack import calibrate
from focusd.microscope.simulation import World
from focusd.optics.imaging import Camera
from focusd.optics.instrument import Instrument
from focusd.scoring.scorer import Scorer
from focusd.scoring.weights import load_model

Array = NDArray[np.float64]
Truth = Callable[[Array], Array]

THRESHOLD = 0.5
MAIN = Instrument(magnification=10.0, na=0.3)
UNIT_UM = MAIN.axial_unit_um
USUAL = np.arange(-96.0, 97.0, 6.0)
OBJECTIVES = {
    "4x/0.1": Instrument(magnification=4.0, na=0.1),
    "10x/0.3": MAIN,
    "20x/0.8": Instrument(magnification=20.0, na=0.8),
    "40x/0.95": Instrument(magnification=40.0, na=0.95),
    "60x/1.4 oil": Instrument(magnification=60.0, na=1.4, immersion_index=1.515),
    "100x/1.4 oil": Instrument(magnification=100.0, na=1.4, immersion_index=1.515),
}


class Eye:
    """Looks at a sample whose focus is at 0; the same frame whenever it looks at the same z."""

    def __init__(self, instrument: Instrument, sample: str = "gravel") -> None:
        settings = SimulatedConfig(sample=sample, seed=1, width=256, height=256)
        self._world = World(settings, instrument, (256, 256))
        self._scorer = Scorer(load_model(), instrument.sampling)
        self._first: Measurement | None = None
        self.look = cache(self._look)

    def _look(self, z_um: float) -> Measurement:
        noise = torch.Generator().manual_seed(round(abs(z_um) * 1000))
        light = 8000 * self._world.light(z_um, 0.0) + 200
        frame = Camera(bit_depth=16, full_well=30000.0).expose(light, noise).numpy().astype(np.uint16)
        measure = self._scorer.score(frame, like=self._first)
        self._first = self._first or measure
        return replace(measure, z_um=z_um)


@pytest.fixture(scope="module")
def eye() -> Eye:
    return Eye(MAIN)


@dataclass(frozen=True)
class Stack:
    """Planes, and the defocus at which each is exposed in truth.

    Attributes:
        scored_at: the defocus that the scores tell of, where that is another.
    """

    planes_um: Array
    truth: Truth = lambda z: z
    scored_at: Truth | None = None
    instrument: Instrument | None = MAIN
    change: Callable[[Measurement], Measurement] = field(default=lambda seen: seen)

    def calibrated(self, eye: Eye) -> Calibration:
        """What the daemon makes of it."""
        planes_um = np.array(check_planes(self.planes_um.tolist(), self.instrument))
        seen = [self._seen(eye, z, i) for i, z in enumerate(planes_um)]
        return calibrate(seen, {}, THRESHOLD, self.instrument)[0]

    def _seen(self, eye: Eye, z_um: float, number: int) -> Measurement:
        at_um = np.array([z_um])
        seen = self.change(eye.look(round(float(self.truth(at_um)[0]), 4)))
        if self.scored_at:
            seen = replace(seen, b=eye.look(round(float(self.scored_at(at_um)[0]), 4)).b)
        return replace(seen, z_um=float(z_um))


def shuffled(z_um: Array) -> Array:
    """Each plane shows some other one."""
    return np.array([USUAL[int(abs(z) * 7919) % len(USUAL)] for z in z_um])


def without_structure(seen: Measurement) -> Measurement:
    return replace(seen, structure=0 * seen.structure)


def needle(centre_um: float) -> Array:
    return np.linspace(centre_um - 0.03, centre_um + 0.03, 7)


REQUEST, CURVE, EDGE = RequestError, CalibrationError, "edge of the stack"
ABSURD = {
    "a needle 7.5 µm beside the focus": (
        Stack(needle(4.97), lambda z: z + 7.5),
        REQUEST,
        r"±15\.3 µm is the least",
    ),
    "a needle in focus": (Stack(needle(0.0)), REQUEST, "is the least"),
    "too short": (Stack(np.arange(-12.0, 12.1, 2.0)), REQUEST, "±98 µm in steps of 3.9 µm is usual"),
    "too coarse": (Stack(np.arange(-100.0, 101.0, 20.0)), REQUEST, r"steps of 12\.2 µm are the most"),
    "nothing in the middle": (Stack(USUAL[np.abs(USUAL) > 40]), REQUEST, "too far for this objective"),
    "seven equal planes": (Stack(np.full(7, 5.0)), REQUEST, "5 µm is given twice"),
    "each plane twice": (Stack(np.repeat(USUAL, 2)), REQUEST, "given twice"),
    "a plane that is no number": (Stack(np.append(USUAL, np.nan)), REQUEST, "not a number"),
    "a plane at infinity": (Stack(np.append(USUAL, np.inf)), REQUEST, "not a number"),
    "six planes": (Stack(USUAL[:6]), REQUEST, "7 to 1001 planes"),
    "too many planes": (Stack(np.linspace(-96, 96, 1002)), REQUEST, "7 to 1001 planes"),
    "all above the focus": (Stack(USUAL[USUAL > 4]), CURVE, EDGE),
    "all below the focus": (Stack(USUAL[USUAL < -4]), CURVE, EDGE),
    "far above the focus": (Stack(USUAL, lambda z: z + 150), CURVE, EDGE),
    "far below the focus": (Stack(USUAL, lambda z: z - 150), CURVE, EDGE),
    "the focus at one end": (Stack(USUAL, lambda z: z + 92), CURVE, EDGE),
    "the focus at the other end": (Stack(USUAL, lambda z: z - 92), CURVE, EDGE),
    "the stage does not move": (Stack(USUAL, lambda z: 0 * z + 12), CURVE, "hardly change"),
    "the stage does not move, in focus": (Stack(USUAL, lambda z: 0 * z), CURVE, "hardly change"),
    "the stage hardly moves": (Stack(USUAL, lambda z: z / 100), CURVE, "hardly change"),
    "the stage stops half-way": (Stack(USUAL, lambda z: np.minimum(z, 0)), CURVE, EDGE),
    "the stage stops before the focus": (Stack(USUAL, lambda z: np.minimum(z, -30)), CURVE, EDGE),
    "the stage moves by half": (Stack(USUAL, lambda z: z / 2), CURVE, r"moved 0\.5 µm for each µm"),
    "the stage moves by half, off-centre": (Stack(USUAL, lambda z: z / 2 + 12), CURVE, r"moved 0\.5 µm"),
    "the sample drifts with the stage": (Stack(USUAL, lambda z: 0.45 * z), CURVE, r"moved 0\.(45|5) µm"),
    "the stage moves by twice": (Stack(USUAL, lambda z: 2 * z), CURVE, "moved 2 µm for each µm"),
    "two foci": (Stack(USUAL, lambda z: np.abs(z) - 48), CURVE, "sharp again"),
    "two foci close together": (Stack(USUAL, lambda z: np.abs(z) - 20), CURVE, "sharp again"),
    "sharp at both ends only": (Stack(USUAL, lambda z: 96 - np.abs(z)), CURVE, EDGE),
    "a stage that loses steps": (Stack(USUAL, lambda z: np.where(z > 6, z - 24, z)), CURVE, "sharp again"),
    "a stage that moves by half upwards": (Stack(USUAL, lambda z: np.where(z > 0, z / 2, z)), CURVE, "."),
    "a stage that wraps": (Stack(USUAL, lambda z: (z + 96) % 48 - 24), CURVE, "sharp again|hardly anything"),
    "frames in any order": (Stack(USUAL, shuffled), CURVE, "sharp again"),
    "scores of another layer": (
        Stack(USUAL, scored_at=lambda z: z - 60),
        CURVE,
        "something else than the sample",
    ),
    "scores of the next layer": (
        Stack(USUAL, scored_at=lambda z: z + 24),
        CURVE,
        "something else than the sample",
    ),
    "an empty field": (Stack(USUAL, change=without_structure), NoSampleError, "textured"),
    "unknown optics: a needle": (
        Stack(needle(4.97), lambda z: z + 7.5, instrument=None),
        CURVE,
        "hardly change",
    ),
    "unknown optics: a needle in focus": (Stack(needle(0.0), instrument=None), CURVE, "hardly change"),
    "unknown optics: one side": (Stack(USUAL[USUAL > 4], instrument=None), CURVE, EDGE),
    "unknown optics: no motion": (Stack(USUAL, lambda z: 0 * z, instrument=None), CURVE, "hardly change"),
    "unknown optics: far away": (Stack(USUAL, lambda z: z + 150, instrument=None), CURVE, EDGE),
    "unknown optics: two foci": (
        Stack(USUAL, lambda z: np.abs(z) - 48, instrument=None),
        CURVE,
        "sharp again",
    ),
    "unknown optics: any order": (Stack(USUAL, shuffled, instrument=None), CURVE, "sharp again"),
}


@pytest.mark.parametrize(("stack", "error", "message"), ABSURD.values(), ids=ABSURD)
def test_nonsense_is_refused_with_its_cause(
    eye: Eye, stack: Stack, error: type[FocusdError], message: str
) -> None:
    with pytest.raises(error, match=message):
        stack.calibrated(eye)


SOUND = {
    "usual": Stack(USUAL),
    "given from above": Stack(USUAL[::-1]),
    "short": Stack(np.arange(-16.0, 16.1, 4.0)),
    "as coarse as may be": Stack(np.arange(-96.0, 97.0, 12.0)),
    "off-centre": Stack(USUAL, lambda z: z + 40),
    "a stage that is wrong by 5 %": Stack(USUAL, lambda z: 1.05 * z),
    "unknown optics": Stack(USUAL, instrument=None),
}


@pytest.mark.parametrize("stack", SOUND.values(), ids=SOUND)
def test_what_is_only_poor_is_accepted(eye: Eye, stack: Stack) -> None:
    calibration = stack.calibrated(eye)
    assert abs(calibration.profile.centre_um) < UNIT_UM / 2


@pytest.mark.parametrize(("objective", "sample"), list(zip(OBJECTIVES, ["cells", "tissue"] * 3, strict=True)))
def test_every_objective_is_calibrated_on_any_sample(objective: str, sample: str) -> None:
    instrument = OBJECTIVES[objective]
    planes_um = np.arange(-16.0, 16.1, 1.0) * instrument.axial_unit_um
    calibration = Stack(planes_um, instrument=instrument).calibrated(Eye(instrument, sample))
    assert calibration.origin == "pupil"
    assert abs(calibration.profile.centre_um) < instrument.axial_unit_um / 2
