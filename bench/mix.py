"""`python -m bench accuracy --runs N`: searches that end by themselves, in whatever a microscope may show them.

Every run draws its scene, texture, optics, light (200 to 8,000 electrons) and start (±100 µm). What counts is whether a
focus was reported that is more than a depth of field away, or where there is nothing to focus on.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from bench.plan import POSTERIOR
from bench.rig import Rig
from bench.runs import ending_of
from bench.searching import Ending
from bench.setting import Setting, seen_in
from bench.synthetic import Image

SCENES = ("plain", "tilted", "sparse", "empty", "saturated", "drifting", "flickering")
REACH_UM = 100.0
DRIFT_UM = 1.0
"""At most, from one exposure to the next."""
BLEACHING = 0.1
"""At most, from one exposure to the next."""
FLICKER = 0.03
_CHUNK = 10


@dataclass(frozen=True)
class Drawn:
    """One run.

    Attributes:
        seed: reproduces it, with the bench's own.
    """

    setting: Setting
    seed: int
    ending: Ending


def run_mix(pool: Executor, folder: Path, objects: list[Image], runs: int, seed: int) -> list[Drawn]:
    """Many runs."""
    tasks = [
        pool.submit(_drawn, folder, objects[first // _CHUNK % len(objects)], range(first, last), seed)
        for first, last in _chunks(runs)
    ]
    return [drawn for task in track(tasks, description=f"{runs} runs") for drawn in task.result()]


def _chunks(runs: int) -> Iterator[tuple[int, int]]:
    """Runs that share a texture: it travels to the worker once."""
    for first in range(0, runs, _CHUNK):
        yield first, min(first + _CHUNK, runs)


def _drawn(folder: Path, texture: Image, numbers: range, seed: int) -> list[Drawn]:
    return [drawn(folder, texture, number, seed) for number in numbers]


def draw_setting(rng: np.random.Generator, number: int) -> Setting:
    """Scenes in turn, all else at random."""
    return Setting(
        optics=str(rng.choice(("aberrated", "ideal"))),
        reach_um=REACH_UM,
        electrons=float(np.exp(rng.uniform(np.log(200), np.log(8000)))),
        scene=SCENES[number % len(SCENES)],
    )


def drawn(folder: Path, texture: Image, number: int, seed: int) -> Drawn:
    """One run; all of it follows from the texture, the number and the seed."""
    rng = np.random.default_rng((seed, number))
    setting = draw_setting(rng, number)
    rig = _draw_rig(setting, texture, number, rng)
    return Drawn(setting, number, ending_of(POSTERIOR, rig, folder))


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
