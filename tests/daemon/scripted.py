"""A rig of scripted optics: the fake microscope prints its z into each frame, the fake scorer reads it there."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusd.config import RigConfig
from focusd.daemon.jobs import Report
from focusd.daemon.operations import RigOperations
from focusd.daemon.rig import Rig
from focusd.focus.frame import Frame
from focusd.focus.measurement import Measurement
from focusd.optics.bands import BlockSpectra
from focusd.protocol.requests import CalibrateParams, RefocusParams
from focusd.protocol.results import CalibrationResult, RefocusResult
from focusd.scoring.network import FocusNet
from focusd.scoring.scorer import Scorer
from focusd.scoring.spectra import Region
from focusd.scoring.weights import Model
from focusd.storage.store import CalibrationStore
from tests.focus.exposures import curve, exposure

FULL_SCALE = 65535
SHAPE = (20, 32)
TILES = (2, 3)
HOME_UM = 3.0
"""Where the scripted stage stands at first."""

Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class ScriptedMicroscope:
    """Hardware at the lowest seam: it obeys at once, notes each move, and does harm where told.

    Attributes:
        saturated: share of a frame's pixels at full scale.
        at_snap: called with the number of each exposure before it is made; may raise.
        at_move: called with the z of each move before it is made.
        moves: all z it was sent to.
    """

    camera_name = "scripted"

    def __init__(self, z_um: float = HOME_UM) -> None:
        self.z_um = z_um
        self.saturated = 0.0
        self.at_snap: Callable[[int], object] = lambda _number: None
        self.at_move: Callable[[float], object] = lambda _z_um: None
        self.slips_to_um: float | None = None
        self.moves: list[float] = []
        self.snaps: list[float] = []

    def snap(self) -> Frame:
        self.at_snap(len(self.snaps) + 1)
        self.snaps.append(self.z_um)
        pixels = np.full(SHAPE, 10_000, np.uint16)
        pixels.flat[4 : 4 + round(self.saturated * pixels.size)] = FULL_SCALE
        pixels.view(np.float64).flat[0] = self.z_um
        return Frame(pixels, self.z_um, 1.0, time.perf_counter(), len(self.snaps), FULL_SCALE)

    def position_um(self) -> float:
        return self.z_um

    def move_to(self, z_um: float) -> None:
        self.at_move(z_um)
        self.moves.append(z_um)
        self.z_um = z_um if self.slips_to_um is None else self.slips_to_um
        self.slips_to_um = None

    def end_sequence(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


class LooseMicroscope(ScriptedMicroscope):
    """Its stage has backlash that the encoder does not see.

    Attributes:
        play_um: how far the encoder turns before the optics follow.
        optical_um: where the optics are.
    """

    play_um = 0.0

    def __init__(self, z_um: float = HOME_UM) -> None:
        super().__init__(z_um)
        self.optical_um = z_um

    def move_to(self, z_um: float) -> None:
        super().move_to(z_um)
        half_um = self.play_um / 2
        self.optical_um = min(max(self.optical_um, z_um - half_um), z_um + half_um)

    def snap(self) -> Frame:
        frame = super().snap()
        frame.pixels.view("f8").flat[0] = self.optical_um
        return frame


class ScriptedScorer(Scorer):
    """Scores a frame by the z printed into it.

    Attributes:
        blur: blurriness of a defocus in µm.
        regions: that it was asked for.
        asked: the tiles that it was to score; None: all.
        crashes: on a fault of its own, each time.
    """

    def __init__(self, sha256: str = "5c" * 32) -> None:
        super().__init__(Model(FocusNet(), "scripted", sha256, {}), None)
        self.focus_um = 0.0
        self.blur: Curve = curve
        self.sigma = 0.01
        self.structure = 1.0
        self.crashes = False
        self.regions: list[Region | None] = []
        self.asked: list[NDArray[np.bool_] | None] = []

    def score(
        self,
        pixels: NDArray[np.generic],
        region: Region | None = None,
        like: Measurement | None = None,
        spectra: BlockSpectra | None = None,
        only: NDArray[np.bool_] | None = None,
    ) -> Measurement:
        self.regions.append(region)
        self.asked.append(only)
        if self.crashes:
            raise ZeroDivisionError("a fault of focusd")
        defocus_um = np.full(TILES, self._defocus_um(pixels))
        same = np.ones(TILES)
        asked = same if only is None else np.where(only, 1.0, np.nan)
        spectra = spectra or self.spectra(pixels)
        return Measurement(
            math.nan,
            self.blur(defocus_um) * asked,
            self.sigma * asked,
            self.structure * asked,
            0.0 * same,
            0.0 * same,
            spectra,
        )

    def spectra(
        self,
        pixels: NDArray[np.generic],
        region: Region | None = None,
        *,
        thinned: bool = False,
        known: BlockSpectra | None = None,
    ) -> BlockSpectra:
        blocks = exposure(self._defocus_um(pixels)).blocks
        return blocks.thinned() if thinned else blocks

    def _defocus_um(self, pixels: NDArray[np.generic]) -> float:
        return float(pixels.view(np.float64).flat[0]) - self.focus_um


def at(number: int, action: Callable[[], object]) -> Callable[[int], object]:
    """Does something at the exposure of that number."""
    return lambda exposure: action() if exposure == number else None


@dataclass
class Reports:
    """What an operation reports, and an action at a chosen moment of it."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    at_progress: Callable[[int], object] = lambda _number: None

    def __call__(self, topic: str, payload: dict[str, Any]) -> None:
        self.events.append((topic, payload))
        if topic == "focus.progress":
            self.at_progress(payload["exposure"])

    def of(self, topic: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.events if name == topic]


def config_of(state: Path, **sections: dict[str, Any]) -> RigConfig:
    """A rig of ±150 µm; sections overrule single values."""
    values: dict[str, Any] = {
        "name": "scripted",
        "state_dir": state,
        "objective": {"name": "10x/0.3", "magnification": 10, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 1},
        "stage": {"min_um": -150, "max_um": 150, "towards_sample": "increasing"},
        "microscope": {"kind": "simulated"},
        "calibration": {"range_um": 100, "step_um": 2.5},
    }
    merged = {name: {**values.get(name, {}), **section} for name, section in sections.items()}
    return RigConfig.model_validate(values | merged)


@asynccontextmanager
async def operations_of(
    config: RigConfig, microscope: ScriptedMicroscope, scorer: ScriptedScorer
) -> AsyncIterator[RigOperations]:
    """Real operations on a real rig over the scripted ends."""
    rig = Rig(microscope, config.stage, config.camera)
    store = CalibrationStore(config.state_dir / config.name / "calibrations")
    try:
        yield RigOperations(config, rig, scorer, store)
    finally:
        await rig.aclose()


async def calibrate_at_focus(operations: RigOperations) -> CalibrationResult:
    """A calibration as configured."""
    return await operations.calibrate(CalibrateParams(), Reports())


async def refocus(operations: RigOperations, report: Report | None = None, **given: Any) -> RefocusResult:
    """A refocus by the published search, which looks at scores alone, but for what is given."""
    besides = {name: given.pop(name) for name in ("usable_um", "within_um") if name in given}
    asked = RefocusParams(**{"strategy": "published"} | given)
    return await operations.refocus(asked, report or Reports(), **besides)
