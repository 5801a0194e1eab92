"""One run, and many of them on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.progress import track

from bench.bound import bounds_um
from bench.brent import brent
from bench.classical import MEASURES
from bench.plan import BRENT, POSTERIOR, Series
from bench.rig import Rig
from bench.searching import FOCUSED, NAN, Ending, Step, calibrated, engine, searched
from bench.setting import Setting, seen_in
from bench.synthetic import Image
from focusd.autofocus import Autofocus

CALIBRATION_PLANES_UM = np.arange(-100.0, 100.1, 2.0)
"""At 10×/0.3."""
CALIBRATION_FOCUS_UM = 0.7
"""Between two planes, as the focus of a real stack is."""
CALIBRATION_ELECTRONS = 8000.0


@dataclass(frozen=True)
class Run:
    """What became of one run.

    Attributes:
        endings: each strategy's.
        bound_um: after each of the posterior search's exposures; empty where nobody asked.
    """

    endings: dict[str, Ending]
    bound_um: list[float]


@contextmanager
def workers() -> Iterator[tuple[Executor, Path]]:
    """Processes, one a core, of one torch thread each, and a folder for what they calibrate."""
    context = multiprocessing.get_context("spawn")
    with (
        TemporaryDirectory() as folder,
        ProcessPoolExecutor(os.cpu_count() or 1, context, torch.set_num_threads, (1,)) as pool,
    ):
        yield pool, Path(folder)


def engine_of(setting: Setting, folder: Path) -> Autofocus:
    """Return the product's engine for an objective and its optics."""
    name = f"{setting.objective}, {setting.optics}"
    return engine(folder, name, setting.instrument, setting.limits_um)


def calibrate_all(pool: Executor, folder: Path, settings: list[Setting], texture: Image) -> None:
    """Calibrate each objective and optics on a stack of one texture."""
    wanted = {(s.objective, s.optics): s for s in settings}
    tasks = [pool.submit(calibrate_on, s, texture, folder) for s in wanted.values()]
    for task in track(tasks, description="calibration"):
        task.result()


def calibrate_on(setting: Setting, texture: Image, folder: Path) -> None:
    """Calibrate on a stack over ±100 µm at 10×/0.3, as many axial units in other objectives."""
    plain = replace(setting, scene="plain", electrons=CALIBRATION_ELECTRONS)
    rig = Rig(plain, texture, CALIBRATION_FOCUS_UM * setting.scale, seed=0)
    planes_um = (CALIBRATION_PLANES_UM * setting.scale).tolist()
    calibrated(engine_of(setting, folder).calibrate(0.0, planes_um=planes_um), rig.frame)


def run_series(
    pool: Executor, folder: Path, series: Series, objects: list[Image], images: int, seed: int
) -> list[Run]:
    """A run on each texture."""
    tasks = [
        pool.submit(run_one, series, folder, objects[k % len(objects)], images, (seed, k), k < series.bounded)
        for k in range(series.runs)
    ]
    return [task.result() for task in track(tasks, description=str(series.setting))]


def run_one(
    series: Series, folder: Path, texture: Image, images: int, seed: tuple[int, int], bounded: bool
) -> Run:
    """All strategies from the same start on the same object; everything random follows from the seed."""
    setting = series.setting
    rng = np.random.default_rng(seed)
    light = seen_in(setting.scene, texture, rng)
    focus_um = setting.draw_focus(rng)

    def rig() -> Rig:
        return Rig(setting, light, focus_um, seed=seed[1])

    endings = {name: ending_of(name, rig(), folder, images) for name in series.strategies}
    probes_um = [step.defocus_um for step in endings[POSTERIOR].steps] if bounded else []
    return Run(endings, bounds_um(rig(), probes_um))


def ending_of(strategy: str, rig: Rig, folder: Path, images: int = 0) -> Ending:
    """How one strategy ended; Brent's is given so many images, the product's searches have their own budget."""
    if strategy.startswith(BRENT):
        return _brent(rig, strategy.removeprefix(BRENT), images)
    setting = rig.setting
    prior = (0.0, setting.start_um) if setting.warm else None
    run = engine_of(setting, folder).refocus(0.0, strategy=strategy, prior=prior)
    return searched(run, rig.frame, lambda: NAN if setting.scene == "empty" else rig.focus_um)


def _brent(rig: Rig, measure: str, images: int) -> Ending:
    """Bounded Brent within the start's range; it always reports success."""
    reach_um = rig.setting.start_um
    answers = brent(lambda z_um: MEASURES[measure](rig.expose(z_um)), (-reach_um, reach_um), images)
    steps = tuple(Step(NAN, z_um - rig.focus_um, NAN, is_reported=True) for z_um in answers)
    return Ending(steps, FOCUSED, rig.setting.instrument.depth_of_field_um)
