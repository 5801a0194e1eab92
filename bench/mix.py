"""`python -m bench accuracy --runs N`: searches that end by themselves, in whatever a microscope may show them.

Every run draws its scene, texture, optics, light (200 to 8,000 electrons) and start (±100 µm). What counts is whether a
focus was reported that is more than a depth of field away, or where there is nothing to focus on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from rich.progress import track

from bench.rig import Rig
from bench.runs import Calibrations
from bench.searches import FOCUSED, alone, posterior_search, posterior_steps
from bench.setting import Setting, seen_in
from bench.synthetic import Image
from focusd.focus.calibration import Calibration

SCENES = ("plain", "tilted", "sparse", "empty", "saturated", "drifting", "flickering")
REACH_UM = 100.0
DRIFT_UM = 1.0
"""At most, from one exposure to the next."""
BLEACHING = 0.1
"""At most, from one exposure to the next."""
FLICKER = 0.03
_CHUNK = 10


@dataclass(frozen=True)
class Ending:
    """How one search ended.

    Attributes:
        seed: reproduces it, with the bench's own.
        error_um: NaN where there is nothing to focus on.
    """

    setting: Setting
    seed: int
    exposures: int
    error_um: float
    sigma_um: float
    outcome: str

    @property
    def gross(self) -> bool:
        """Whether the belief is off by more than a depth of field, or in something where there is nothing."""
        return not abs(self.error_um) <= self.setting.instrument.depth_of_field_um

    @property
    def silent(self) -> bool:
        """Whether it was reported all the same."""
        return self.gross and self.outcome == FOCUSED


def run_mix(pool: Executor, known: Calibrations, objects: list[Image], runs: int, seed: int) -> list[Ending]:
    """The endings of many runs."""
    tasks = [
        pool.submit(_endings, known, objects[first // _CHUNK % len(objects)], range(first, last), seed)
        for first, last in _chunks(runs)
    ]
    return [ending for task in track(tasks, description=f"{runs} runs") for ending in task.result()]


def _chunks(runs: int) -> Iterator[tuple[int, int]]:
    """Runs that share a texture: it travels to the worker once."""
    for first in range(0, runs, _CHUNK):
        yield first, min(first + _CHUNK, runs)


def _endings(known: Calibrations, texture: Image, numbers: range, seed: int) -> list[Ending]:
    return [ending(known, texture, number, seed) for number in numbers]


def draw_setting(rng: np.random.Generator, number: int) -> Setting:
    """Scenes in turn, all else at random."""
    return Setting(
        optics=str(rng.choice(("aberrated", "ideal"))),
        reach_um=REACH_UM,
        electrons=float(np.exp(rng.uniform(np.log(200), np.log(8000)))),
        scene=SCENES[number % len(SCENES)],
    )


def ending(known: Calibrations, texture: Image, number: int, seed: int) -> Ending:
    """One run; all of it follows from the texture, the number and the seed."""
    rng = np.random.default_rng((seed, number))
    setting = draw_setting(rng, number)
    rig = _draw_rig(setting, texture, number, rng)
    return _end(rig, known[setting.objective, setting.optics], number)


def _draw_rig(setting: Setting, texture: Image, number: int, rng: np.random.Generator) -> Rig:
    light = np.roll(seen_in(setting.scene, texture, rng), tuple(rng.integers(0, 512, 2)), (0, 1))
    return Rig(
        setting,
        light,
        setting.draw_focus(rng),
        seed=number,
        full_well=rng.uniform(0.1, 0.9) if setting.scene == "saturated" else 1.5,
        drift_um=rng.uniform(-DRIFT_UM, DRIFT_UM) if setting.scene == "drifting" else 0.0,
        bleaching=rng.uniform(0, BLEACHING) if setting.scene == "flickering" else 0.0,
        flicker=FLICKER if setting.scene == "flickering" else 0.0,
    )


def _end(rig: Rig, calibration: Calibration, number: int) -> Ending:
    search = posterior_search(rig, calibration)
    count, last = alone(posterior_steps(search, rig.look, lambda: rig.focus_um, rig.dof_um))
    error_um = float("nan") if rig.setting.scene == "empty" else last.error_um
    return Ending(rig.setting, number, count, error_um, last.sigma_um, last.outcome)
