"""`python -m bench score`: sections 3.1 and 3.2 of the paper, on textures that the network never saw.

Synthetic: 10×/0.3, 6.5 µm pixels, 132 planes in ±120 µm, 8,000 electrons; slightly aberrated optics (spherical 0.03,
astigmatism 0.03, coma 0.02 waves RMS), and, as in the paper, Gaussian blur. Real: the regions of each recorded stack,
on its recorded planes, looked at in their surroundings as focusd looks at a region of interest.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from bench.classical import MEASURES
from bench.curves import BINS, SPREAD_WITHIN_UM, Curves
from bench.honesty import honesty, table_of
from bench.plots import draw_curves
from bench.stacks import readable_stacks, tell
from bench.synthetic import (
    BACKGROUND,
    ELECTRONS,
    FIELD_PX,
    INSTRUMENT,
    Image,
    exposures,
    field_score,
    gaussian_transfers,
    held_out_objects,
    optical_transfers,
)
from focusd.demo.main import DEFAULT_STACKS
from focusd.microscope.recorded import Stack
from focusd.scoring.scorer import Scorer
from focusd.scoring.spectra import Region
from focusd.scoring.views import TILE_PX
from focusd.scoring.weights import load_model

PLANES_UM = np.linspace(-120, 120, 132)
REGION_PX = 384
"""A larger stack is looked at in regions of so many pixels, a smaller one in quarters."""
LEAST_PLANES = 7
CNN, TILE = "cnn", "cnn_tile"
"""The network's score of the field, and of one 128 px tile in its middle."""
TILES_B, TILES_SIGMA = "tiles_b", "tiles_sigma"
"""What it says of every tile."""
NAMES = (CNN, TILE, *MEASURES)

CurvesByName = dict[str, Curves]
Values = dict[str, NDArray[np.float64]]


def run_score(
    textures: Path | None,
    stacks: Path | None,
    count: int,
    stride: int,
    seed: int,
    out: Path,
    json_file: Path | None,
) -> None:
    """Measure, print the table, draw the plot, write the JSON."""
    out.mkdir(parents=True, exist_ok=True)
    objects = held_out_objects(textures, count, seed)
    seen = synthetic(objects, stride, "our optics")
    optical = _curves(PLANES_UM[::stride], seen)
    gaussian = _curves(PLANES_UM[::stride], synthetic(objects, stride, "Gaussian blur"))
    b, sigma = (np.array([row[name] for row in seen]) for name in (TILES_B, TILES_SIGMA))
    thirds = honesty(PLANES_UM[::stride], b, sigma)
    real = recorded(stacks or DEFAULT_STACKS)
    measures = {
        name: _figures(optical[name], gaussian[name], [tables[name] for tables in real.values()])
        for name in NAMES
    }
    _print(measures, f"{len(objects)} held-out textures; real: {', '.join(real) or 'none'}")
    Console(width=170).print(table_of(thirds))
    draw_curves(optical, gaussian, out / "score.png")
    if json_file:
        each = {
            stack: {name: _real_figures([curves]) for name, curves in tables.items()}
            for stack, tables in real.items()
        }
        figures = {"measures": measures, "stacks": each, "sigma": [asdict(third) for third in thirds]}
        text = json.dumps(figures, indent=1)
        json_file.write_text(text + "\n", encoding="utf-8")
    Console().print(f"plot: {(out / 'score.png').resolve()}", soft_wrap=True)


def synthetic(objects: list[Image], stride: int, title: str) -> list[Values]:
    """All measures over simulated stacks, on all cores."""
    workers = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
        tasks = [pool.submit(_measure_object, o, stride, title, seed) for seed, o in enumerate(objects)]
        return [task.result() for task in track(tasks, description=title)]


def _curves(z_um: NDArray[np.float64], rows: list[Values]) -> CurvesByName:
    """The measures of several stacks, by name; the network's with the mean uncertainty that it states.

    That is of the planes whose spread it is to foretell: far out all textures are uncertain.
    """
    judged = np.abs(z_um) <= SPREAD_WITHIN_UM
    sigma = np.array([np.median(row[TILES_SIGMA][judged], axis=1).mean() for row in rows])
    return {
        name: Curves(z_um, np.array([row[name] for row in rows]), sigma if name in (CNN, TILE) else None)
        for name in NAMES
    }


def _measure_object(image: Image, stride: int, blur: str, seed: int) -> Values:
    generator = torch.Generator().manual_seed(seed)
    frames = exposures(image + BACKGROUND, _transfers(blur, stride), ELECTRONS, generator)
    return _measure(list(frames), _scorer(INSTRUMENT.sampling))


@cache
def _transfers(blur: str, stride: int) -> Tensor:
    planes = PLANES_UM[::stride]
    return gaussian_transfers(planes) if blur == "Gaussian blur" else optical_transfers(planes)


@cache
def _scorer(sampling: float | None) -> Scorer:
    return Scorer(load_model(), sampling)


def _measure(frames: list[NDArray[Any]], scorer: Scorer, region: Region | None = None) -> Values:
    """All measures of the frames of one stack, or of a region of them."""
    seen = [scorer.score(frame, region) for frame in frames]
    values = {
        CNN: np.array([field_score(m) for m in seen]),
        TILE: np.array([_middle(m.b) for m in seen]),
        TILES_B: np.array([m.b.ravel() for m in seen]),
        TILES_SIGMA: np.array([m.sigma.ravel() for m in seen]),
    }
    y, x, height, width = region or (0, 0, *frames[0].shape)
    crops = [frame[y : y + height, x : x + width] for frame in frames]
    return values | {name: np.array([measure(c) for c in crops]) for name, measure in MEASURES.items()}


def _middle(tiles: NDArray[np.float64]) -> float:
    rows, columns = tiles.shape
    return float(tiles[rows // 2, columns // 2])


def recorded(folder: Path) -> dict[str, CurvesByName]:
    """Curves of all measures over the regions of real stacks, by the stack's name."""
    tables = {}
    for path, stack in readable_stacks(folder):
        regions = list(regions_of(stack.pixels.shape[1:]))
        if len(stack.z_um) < LEAST_PLANES or not regions:
            tell(
                f"{path.name} is left out: it takes {LEAST_PLANES} planes, and {2 * TILE_PX} px on each side for four "
                "regions that are no smaller than what the network scores"
            )
            continue
        tables[path.name.split(".")[0]] = _stack_curves(stack, regions, path.name)
    return tables


def _stack_curves(stack: Stack, regions: list[Region], name: str) -> CurvesByName:
    """One curve a region; z from the plane of the highest Tenengrad; the optics are taken as unknown."""
    z_um = stack.z_um - stack.z_um[int(np.argmax([MEASURES["tenengrad"](p) for p in stack.pixels]))]
    planes = list(stack.pixels)
    rows = [_measure(planes, _scorer(None), region) for region in track(regions, description=name)]
    return _curves(z_um, rows)


def regions_of(shape: tuple[int, ...]) -> Iterator[Region]:
    """Squares that cut up a frame, at least four; none of one too small for four tiles."""
    size = min(REGION_PX, shape[0] // 2, shape[1] // 2)
    if size >= TILE_PX:
        for y in range(0, shape[0] - size + 1, size):
            for x in range(0, shape[1] - size + 1, size):
                yield y, x, size, size


def _figures(optical: Curves, gaussian: Curves, real: list[Curves]) -> dict[str, float | None]:
    """One measure's row of the table."""
    best = optical.best(0.8)
    reach_um = optical.range_um(INSTRUMENT.depth_of_field_um)
    return {
        "sigma_synth": optical.spread(),
        "sigma_synth_best80": best.spread() if best else None,
        "sigma_synth_robust": optical.robust_spread(),
        "entropy_synth": optical.entropy(),
        "sigma_gaussian": gaussian.spread(),
        "entropy_gaussian": gaussian.entropy(),
        **_real_figures(real),
        "range_um": reach_um,
        "range_dof": reach_um / INSTRUMENT.depth_of_field_um,
        "dz_um": float(np.median(optical.depth_uncertainty_um()[np.abs(optical.z_um) <= 60])),
    }


def _real_figures(curves: list[Curves]) -> dict[str, float | None]:
    return {"sigma_real": _mean(curves, Curves.spread), "entropy_real": _mean(curves, Curves.entropy)}


def _mean(curves: list[Curves], figure: Callable[[Curves], float]) -> float | None:
    return float(np.mean([figure(c) for c in curves])) if curves else None


def _print(measures: dict[str, dict[str, Any]], title: str) -> None:
    table = Table(title=f"{title}; {FIELD_PX} px fields, entropies per plane in nats ({BINS} bins)")
    columns = list(next(iter(measures.values())))
    table.add_column("measure")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in measures.items():
        table.add_row(name, *("–" if row[c] is None else f"{row[c]:.3f}" for c in columns))
    Console(width=170).print(table)
