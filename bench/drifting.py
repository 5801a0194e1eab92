"""A simulated microscope whose sample drifts, in compressed time: the clock goes on only when something takes time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from focusd.config import RigConfig, SimulatedConfig
from focusd.focus.frame import Frame
from focusd.microscope.simulation import World
from focusd.optics.imaging import Camera
from focusd.optics.instrument import Instrument

Array = NDArray[np.float64]

MOVE_S = 0.05
"""A move with its settling."""
_TURN_S = 1800.0
"""The thermal ramp turns round over so long."""
_HALF_PERIOD_S = 4 * 3600.0
_HOUR_S = 3600.0
_WALK_UM = 0.01
"""Of a random walk, a second."""
_JITTER_UM = 0.1
EMPTY_S = 120.0
"""How long the sample is out of the field, every third hour."""
_BLEACHED_BY = 20_000
"""Exposures after which 1/e of the signal is left."""


Kind = Literal["ramp", "constant", "sine", "late", "turns", "reversals"]
"""How a drift changes: as a thermal ramp that turns round every four hours; not at all; over and again within an hour;
from rest after the first hour; every hour to another velocity, up to the stated one; every hour to the other way."""


@dataclass
class Clock:
    """Seconds since the beginning."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True)
class Drift:
    """The truth, one value a second.

    Attributes:
        focus_um: drift, steps, random walk.
        empty: whether the sample is out of the field.
    """

    focus_um: Array
    empty: NDArray[np.bool_]

    @classmethod
    def seeded(
        cls,
        hours: float,
        velocity_um_per_min: float,
        step_um: float,
        seed: int,
        kind: Kind = "ramp",
        empty_s: float = EMPTY_S,
    ) -> Drift:
        """One step an hour up or down; every third hour an empty moment, of so many seconds."""
        rng = np.random.default_rng(seed)
        time_s = np.arange(int(hours * 3600) + 2, dtype=np.float64)
        velocity = _shape(time_s, kind, seed) * velocity_um_per_min / 60
        jumps = np.zeros_like(time_s)
        for moment in rng.uniform(0, len(time_s), rng.poisson(hours)):
            jumps[int(moment)] += step_um * rng.choice([-1.0, 1.0])
        walk = rng.normal(0, _WALK_UM, len(time_s))
        empty = np.zeros(len(time_s), bool)
        for start in rng.uniform(0, len(time_s), max(1, int(hours / 3))):
            empty[int(start) : int(start + empty_s)] = True
        return cls(np.cumsum(velocity + jumps + walk), empty)


def _shape(time_s: Array, kind: Kind, seed: int) -> Array:
    """The velocity every second, in parts of the largest."""
    hour = (time_s // _HOUR_S).astype(int)
    if kind == "constant":
        return np.ones_like(time_s)
    if kind == "sine":
        return np.asarray(np.cos(2 * np.pi * time_s / _HOUR_S))
    if kind == "late":
        return np.asarray(hour >= 1, dtype=np.float64)
    if kind == "turns":
        return np.asarray(np.random.default_rng([seed, 1]).uniform(-1, 1, hour[-1] + 1)[hour])
    if kind == "reversals":
        return np.asarray((-1.0) ** hour)
    swing = np.sin(np.pi * time_s / _HALF_PERIOD_S)
    return np.asarray(np.clip(swing * _HALF_PERIOD_S / _TURN_S, -1, 1))


@dataclass
class DriftingMicroscope:
    """Camera and stage over the simulated world; `error_um` compares with the truth, which focusd never sees."""

    config: RigConfig
    drift: Drift
    clock: Clock
    seed: int
    camera_name: str = "soak"
    exposures: int = 0
    path: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])

    def __post_init__(self) -> None:
        settings = self.config.microscope
        assert isinstance(settings, SimulatedConfig)
        instrument = Instrument.from_config(self.config.objective, self.config.camera)
        assert instrument is not None
        self._settings = settings
        self._world = World(settings, instrument, (settings.height, settings.width))
        self._random = torch.Generator().manual_seed(self.seed)
        self._jitter = np.random.default_rng(self.seed)

    def snap(self) -> Frame:
        """Expose one image; the sample bleaches."""
        exposure_ms = self.config.camera.exposure_ms
        self.clock.now_s += exposure_ms / 1000
        self.exposures += 1
        second = min(int(self.clock.now_s), len(self.drift.focus_um) - 1)
        signal = 0.0 if self.drift.empty[second] else self._settings.electrons
        signal *= np.exp(-self.exposures / _BLEACHED_BY)
        defocus_um = self.position_um() - self.drift.focus_um[second] + self._jitter.normal(0, _JITTER_UM)
        light = self._world.light(float(defocus_um), 0.0)
        electrons = signal * light + self._settings.background_electrons
        pixels = Camera().expose(electrons, self._random).numpy().astype(np.uint16)
        return Frame(pixels, self.position_um(), exposure_ms, self.clock.now_s, self.exposures, 65535)

    def position_um(self) -> float:
        """Where the stage stands."""
        return self.path[-1][1]

    def move_to(self, z_um: float) -> None:
        """Move and settle."""
        self.clock.now_s += MOVE_S
        self.path.append((self.clock.now_s, z_um))

    def end_sequence(self) -> None:
        """Nothing streams."""

    def stop(self) -> None:
        """Nothing moves in between."""

    def close(self) -> None:
        """Nothing to release."""

    def error_um(self, until_s: float) -> Array:
        """Stage minus focus, every second; NaN while it is on the way from exposure to exposure of a check."""
        seconds = np.arange(int(until_s))
        times, places = (np.array(column) for column in zip(*self.path, strict=True))
        where = np.searchsorted(times, seconds, side="right") - 1
        stays_s = np.diff(np.append(times, np.inf))
        error = places[where] - self.drift.focus_um[seconds]
        return np.asarray(np.where(stays_s[where] < 1.0, np.nan, error))
