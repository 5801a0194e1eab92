"""One run, and many of them on all cores."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from bench.bound import bounds_um
from bench.plan import BRENT, POSTERIOR, Series
from bench.rig import Rig
from bench.searches import (
    STRUCTURE_THRESHOLD,
    Look,
    Trace,
    brent_trace,
    completed,
    posterior_search,
    posterior_steps,
    published_steps,
)
from bench.setting import Setting, seen_in
from bench.synthetic import Image
from focusd.focus.calibration import Calibration, calibrate
from focusd.focus.observation import telling_tiles
from focusd.focus.published import PublishedSearch
from focusd.optics.instrument import Instrument
from focusd.scoring.pace import REMEMBERED

CALIBRATION_PLANES_UM = np.arange(-100.0, 100.1, 2.0)
"""At 10×/0.3."""
CALIBRATION_FOCUS_UM = 0.7
"""Between two planes, as the focus of a real stack is."""
CALIBRATION_ELECTRONS = 8000.0

Calibrations = dict[tuple[str, str], Calibration]
"""By objective and optics."""


@dataclass(frozen=True)
class Run:
    """What became of one run.

    Attributes:
        traces: each strategy's steps.
        bound_um: after each of the posterior search's exposures; empty where nobody asked.
    """

    traces: dict[str, Trace]
    bound_um: list[float]


@contextmanager
def workers() -> Iterator[Executor]:
    """Processes, one a core, of one torch thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count() or 1, context, torch.set_num_threads, (1,)) as pool:
        yield pool


def calibrations(pool: Executor, settings: list[Setting], texture: Image) -> Calibrations:
    """One for each objective and optics, from a stack of one texture."""
    wanted = {(s.objective, s.optics): s for s in settings}
    tasks = {key: pool.submit(calibration_of, s, texture) for key, s in wanted.items()}
    return {key: task.result() for key, task in track(tasks.items(), description="calibration")}


def calibration_of(setting: Setting, texture: Image) -> Calibration:
    """From a stack over ±100 µm at 10×/0.3, as many axial units in other objectives."""
    plain = replace(setting, scene="plain", electrons=CALIBRATION_ELECTRONS)
    rig = Rig(plain, texture, CALIBRATION_FOCUS_UM * setting.scale, seed=0)
    return calibration_by(rig.look, CALIBRATION_PLANES_UM * setting.scale, setting.instrument)[0]


def calibration_by(
    look: Look, planes_um: NDArray[np.float64], instrument: Instrument
) -> tuple[Calibration, float]:
    """Of planes that are scored as the daemon scores them: all tiles of the first ones, then those that tell; and the z
    of the focus."""
    seen = [look(float(z_um)) for z_um in planes_um]
    telling = telling_tiles(seen[0], STRUCTURE_THRESHOLD)
    stack = seen[:REMEMBERED] + [o.scored_on(telling) for o in seen[REMEMBERED:]]
    return calibrate(stack, {}, STRUCTURE_THRESHOLD, instrument)


def run_series(
    pool: Executor, series: Series, known: Calibrations, objects: list[Image], images: int, seed: int
) -> list[Run]:
    """A run on each texture."""
    setting = series.setting
    calibration = known[setting.objective, setting.optics]
    tasks = [
        pool.submit(
            run_one, series, calibration, objects[k % len(objects)], images, (seed, k), k < series.bounded
        )
        for k in range(series.runs)
    ]
    return [task.result() for task in track(tasks, description=str(setting))]


def run_one(
    series: Series,
    calibration: Calibration,
    texture: Image,
    images: int,
    seed: tuple[int, int],
    bounded: bool,
) -> Run:
    """All strategies from the same start on the same object; everything random follows from the seed."""
    setting = series.setting
    rng = np.random.default_rng(seed)
    light = seen_in(setting.scene, texture, rng)
    focus_um = setting.draw_focus(rng)

    def rig() -> Rig:
        return Rig(setting, light, focus_um, seed=seed[1])

    traces = {name: trace(name, rig(), calibration, images) for name in series.strategies}
    probes_um = [step.defocus_um for step in traces[POSTERIOR]] if bounded else []
    return Run(traces, bounds_um(rig(), probes_um))


def trace(strategy: str, rig: Rig, calibration: Calibration, images: int) -> Trace:
    """One strategy's steps; one that ends sooner keeps its answer."""
    if strategy.startswith(BRENT):
        return brent_trace(rig, strategy.removeprefix(BRENT), images)
    if strategy == POSTERIOR:
        search = posterior_search(rig, calibration)
        return completed(posterior_steps(search, rig.look, lambda: rig.focus_um, rig.dof_um), images)
    published = PublishedSearch(calibration, rig.limits_um, away_is_low=True, threshold=STRUCTURE_THRESHOLD)
    return completed(published_steps(published, calibration, rig), images)
