"""The paper's released protocol as it is: Gaussian blur, start at exactly ±20 µm, one texture for both calibration and
test, mean after dropping errors beyond half an interquartile range. Its figure is 0.30 ± 0.16 µm after 3 images.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import trimmed
from bench.plan import OURS
from bench.rig import Rig
from bench.runs import calibrate_on, ending_of
from bench.setting import Setting
from bench.synthetic import FIELD_PX, Image
from focusd.microscope.samples import SAMPLES
from focusd.training.textures import periodic

TEXTURE = "gravel"
START_UM = 20.0
IMAGES = (3, 4)
SETTING = Setting(optics="gaussian")

Row = dict[str, str | float | int]


@dataclass(frozen=True)
class _Crop:
    light: Image
    focus_um: float
    seed: int


def run_released(pool: Executor, folder: Path, crops: int, seed: int) -> list[Row]:
    """Figures of both strategies, after each number of images."""
    pool.submit(calibrate_on, SETTING, one_crop(TEXTURE, seed), folder).result()
    chosen = [_Crop(one_crop(TEXTURE, seed + 1 + k), START_UM * (-1) ** k, k) for k in range(crops)]
    rows: list[Row] = []
    for strategy in OURS:
        tasks = [pool.submit(_errors_um, strategy, crop, folder) for crop in chosen]
        error_um = np.array([task.result() for task in tasks])
        rows += [_row(strategy, images, error_um[:, k]) for k, images in enumerate(IMAGES)]
    return rows


def one_crop(name: str, seed: int) -> Image:
    """A periodic object from a random crop of a photograph."""
    return periodic(SAMPLES[name]((FIELD_PX, FIELD_PX), seed), FIELD_PX, np.random.default_rng(seed))


def _errors_um(strategy: str, crop: _Crop, folder: Path) -> list[float]:
    """After each of `IMAGES`."""
    ending = ending_of(strategy, Rig(SETTING, crop.light, crop.focus_um, crop.seed), folder)
    return [ending.after(images).error_um for images in IMAGES]


def _row(strategy: str, images: int, all_um: NDArray[np.float64]) -> Row:
    """Of the runs that have an answer by then; `n` counts the others as well."""
    error_um = all_um[np.isfinite(all_um)]
    kept = trimmed(error_um)
    return {
        "strategy": strategy,
        "images": images,
        "n": len(all_um),
        "kept": len(kept),
        "trimmed_mean_um": float(kept.mean()),
        "trimmed_sd_um": float(kept.std()),
        "untrimmed_median_um": float(np.median(np.abs(error_um))),
        "untrimmed_mean_um": float(np.abs(error_um).mean()),
    }
