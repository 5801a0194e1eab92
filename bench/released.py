"""The paper's released protocol as it is: Gaussian blur, start at exactly ±20 µm, one texture for both calibration and
test, mean after dropping errors beyond half an interquartile range. Its figure is 0.30 ± 0.16 µm after 3 images.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.errors import trimmed
from bench.plan import OURS
from bench.rig import Rig
from bench.runs import calibration_of, trace
from bench.setting import Setting
from bench.synthetic import FIELD_PX, Image
from focusd.focus.calibration import Calibration
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


def run_released(pool: Executor, crops: int, seed: int) -> list[Row]:
    """Figures of both strategies, after each number of images."""
    calibration = pool.submit(calibration_of, SETTING, one_crop(TEXTURE, seed)).result()
    chosen = [_Crop(one_crop(TEXTURE, seed + 1 + k), START_UM * (-1) ** k, k) for k in range(crops)]
    rows: list[Row] = []
    for strategy in OURS:
        tasks = [pool.submit(_errors_um, strategy, crop, calibration) for crop in chosen]
        error_um = np.array([task.result() for task in tasks])
        rows += [_row(strategy, images, error_um[:, images - 1]) for images in IMAGES]
    return rows


def one_crop(name: str, seed: int) -> Image:
    """A periodic object from a random crop of a photograph."""
    return periodic(SAMPLES[name]((FIELD_PX, FIELD_PX), seed), FIELD_PX, np.random.default_rng(seed))


def _errors_um(strategy: str, crop: _Crop, calibration: Calibration) -> list[float]:
    rig = Rig(SETTING, crop.light, crop.focus_um, crop.seed)
    return [step.error_um for step in trace(strategy, rig, calibration, max(IMAGES))]


def _row(strategy: str, images: int, error_um: NDArray[np.float64]) -> Row:
    kept = trimmed(error_um)
    return {
        "strategy": strategy,
        "images": images,
        "n": len(error_um),
        "kept": len(kept),
        "trimmed_mean_um": float(kept.mean()),
        "trimmed_sd_um": float(kept.std()),
        "untrimmed_median_um": float(np.median(np.abs(error_um))),
        "untrimmed_mean_um": float(np.abs(error_um).mean()),
    }
