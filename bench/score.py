"""`python -m bench score`: sections 3.1 and 3.2 of the paper, on textures that the network never saw.

Synthetic: 10×/0.3, 6.5 µm pixels, 132 planes in ±120 µm, 8,000 electrons; slightly aberrated optics (spherical 0.03,
astigmatism 0.03, coma 0.02 waves RMS), and, as in the paper, Gaussian blur. Real: each recorded stack cut into
regions, on its recorded planes.
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

from bench.curves import BINS, SPREAD_WITHIN_UM, Curves
from bench.honesty import honesty, table_of
from bench.plots import draw_curves
from bench.stacks import readable_stacks
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
from focusd.sharpness.classical import MEASURES
from focusd.sharpness.scorer import Scorer
from focusd.sharpness.weights import load_model

PLANES_UM = np.linspace(-120, 120, 132)
REGION_PX = 384
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


def _measure(frames: list[NDArray[Any]], scorer: Scorer) -> Values:
    """All measures of the frames of one stack."""
    seen = [scorer.score(frame) for frame in frames]
    values = {
        CNN: np.array([field_score(m) for m in seen]),
        TILE: np.array([_middle(m.b) for m in seen]),
        TILES_B: np.array([m.b.ravel() for m in seen]),
        TILES_SIGMA: np.array([m.sigma.ravel() for m in seen]),
    }
    return values | {name: np.array([measure(f) for f in frames]) for name, measure in MEASURES.items()}


def _middle(tiles: NDArray[np.float64]) -> float:
    rows, columns = tiles.shape
    return float(tiles[rows // 2, columns // 2])


def recorded(folder: Path) -> dict[str, CurvesByName]:
    """Curves of all measures over the regions of real stacks, by the stack's name."""
    tables = {}
    for path, stack in readable_stacks(folder):
        if len(stack.z_um) >= 7:
            tables[path.name.split(".")[0]] = _stack_curves(stack)
    return tables


def _stack_curves(stack: Stack) -> CurvesByName:
    """One curve a region; z from the plane of the highest Tenengrad; the optics are taken as unknown."""
    z_um = stack.z_um - stack.z_um[int(np.argmax([MEASURES["tenengrad"](p) for p in stack.pixels]))]
    regions = _regions(stack.pixels.shape[1:])
    rows = [_measure([plane[region] for plane in stack.pixels], _scorer(None)) for region in regions]
    return _curves(z_um, rows)


def _regions(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """The frame cut into squares of at most 384 px, at least four."""
    size = min(REGION_PX, shape[0] // 2, shape[1] // 2)
    for y in range(0, shape[0] - size + 1, size):
        for x in range(0, shape[1] - size + 1, size):
            yield slice(y, y + size), slice(x, x + size)


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
