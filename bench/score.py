"""`python -m bench score`: sections 3.1 and 3.2 of the paper, on textures that the network never saw.

Synthetic: 10×/0.3, 6.5 µm pixels, 132 planes in ±120 µm, 8,000 electrons; slightly aberrated optics (spherical 0.03,
astigmatism 0.03, coma 0.02 waves RMS), and, as in the paper, Gaussian blur. Real: each recorded stack cut into
regions, on its recorded planes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from bench.curves import Curves
from focusd.errors import FocusdError
from focusd.microscope.recorded import Stack, read_stack
from focusd.microscope.samples import SAMPLES
from focusd.optics.imaging import Camera, kernel_transfer
from focusd.optics.instrument import Instrument
from focusd.optics.psf import camera_psf
from focusd.optics.zernike import ASTIGMATISM_VERTICAL, COMA_X, SPHERICAL
from focusd.sharpness.classical import MEASURES
from focusd.sharpness.scorer import Scorer
from focusd.sharpness.weights import load_model
from focusd.training.pool import FIRST_SEED
from focusd.training.procedural import procedural
from focusd.training.textures import periodic, read_textures

matplotlib.use("Agg")

INSTRUMENT = Instrument(magnification=10.0, na=0.3)
ABERRATIONS = {SPHERICAL: 0.03, ASTIGMATISM_VERTICAL: 0.03, COMA_X: 0.02}
FIELD_PX = 512
PLANES = np.linspace(-120, 120, 132)
ELECTRONS = 8000.0
BACKGROUND = 0.05
REGION_PX = 384
DEFAULT_TEXTURES = Path("../shared/data/textures")
DEFAULT_STACKS = Path("../shared/data/stacks")
NAMES = ("cnn", *MEASURES)

Image = NDArray[np.float32]
Table_ = dict[str, Curves]


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
    torch.set_num_threads(2)
    out.mkdir(parents=True, exist_ok=True)
    scorer = Scorer(load_model(), INSTRUMENT.sampling)
    objects = held_out_objects(textures, count, seed)
    planes = PLANES[::stride]
    blurred = synthetic(scorer, objects, planes, _optical_transfers(planes), "our optics")
    gaussian = synthetic(scorer, objects, planes, _gaussian_transfers(planes), "Gaussian blur")
    real = recorded(Scorer(scorer.model, None), stacks or DEFAULT_STACKS)
    measures = {
        name: _figures(blurred[name], gaussian[name], [r[name] for r in real.values()]) for name in NAMES
    }
    _print(measures, len(objects), len(planes), list(real))
    _plot(blurred, gaussian, out / "score.png")
    if json_file:
        json_file.write_text(json.dumps({"measures": measures}, indent=1) + "\n", encoding="utf-8")
    Console().print(f"plot: {(out / 'score.png').resolve()}", soft_wrap=True)


def held_out_objects(folder: Path | None, count: int, seed: int) -> list[Image]:
    """Objects that were never trained on: photographs of scikit-image, held-out real textures, procedural ones.

    Args:
        folder: None: the project's own textures where present, of which only the held-out ones are taken.
    """
    rng = np.random.default_rng(seed)
    photographs = [name for name in SAMPLES if name not in ("empty", "cells", "filaments", "beads", "cloud")]
    objects = [SAMPLES[name]((FIELD_PX, FIELD_PX), seed) for name in photographs] if folder is None else []
    source = folder or DEFAULT_TEXTURES
    real = [t for t in read_textures(source) if folder or t.role == "report"] if source.is_dir() else []
    order = rng.permutation(len(real))[: max(0, 2 * count // 3 - len(objects))]
    objects += [periodic(real[i].image, FIELD_PX, rng) for i in order]
    objects += [procedural(FIRST_SEED["report"] + k, FIELD_PX) for k in range(count - len(objects))]
    return objects[:count]


def synthetic(
    scorer: Scorer, objects: list[Image], planes: NDArray[np.float64], transfers: Tensor, title: str
) -> Table_:
    """Curves of all measures over simulated stacks."""
    generator = torch.Generator().manual_seed(1)
    camera = Camera(bit_depth=16, full_well=1.5 * ELECTRONS)
    values = {name: np.zeros((len(objects), len(planes))) for name in NAMES}
    sigma = np.zeros((len(objects), len(planes)))
    for row, image in enumerate(track(objects, description=title)):
        spectrum = torch.fft.rfft2(torch.from_numpy(image) + BACKGROUND)
        for column, transfer in enumerate(transfers):
            light = torch.fft.irfft2(spectrum * transfer, s=image.shape).clamp(min=0)
            frame = camera.expose(light * ELECTRONS, generator).numpy().astype(np.uint16)
            values["cnn"][row, column], sigma[row, column] = _cnn(scorer, frame)
            for name, measure in MEASURES.items():
                values[name][row, column] = measure(frame)
    return {name: Curves(planes, values[name], sigma.mean(1) if name == "cnn" else None) for name in NAMES}


def recorded(scorer: Scorer, folder: Path) -> dict[str, Table_]:
    """Curves of all measures over the regions of real stacks, by the stack's name."""
    tables = {}
    for path in sorted([*folder.glob("*.tif"), *folder.glob("*.tiff")]):
        try:
            stack = read_stack(path)
        except FocusdError as error:
            Console().print(f"[yellow]{path.name}:[/] {error.message}", highlight=False)
            continue
        if len(stack.z_um) >= 7:
            tables[path.name.split(".")[0]] = _stack_curves(scorer, stack)
    return tables


def _stack_curves(scorer: Scorer, stack: Stack) -> Table_:
    regions = list(_regions(stack.pixels.shape[1:]))
    z_um = stack.z_um - stack.z_um[int(np.argmax([MEASURES["tenengrad"](p) for p in stack.pixels]))]
    cnn = np.array([[_cnn(scorer, plane[region]) for plane in stack.pixels] for region in regions])
    curves = {"cnn": Curves(z_um, cnn[..., 0], cnn[..., 1].mean(1))}
    for name, measure in MEASURES.items():
        curves[name] = Curves(
            z_um, np.array([[measure(p[region]) for p in stack.pixels] for region in regions])
        )
    return curves


def _regions(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """The frame cut into squares of at most 384 px, at least four."""
    size = min(REGION_PX, shape[0] // 2, shape[1] // 2)
    for y in range(0, shape[0] - size + 1, size):
        for x in range(0, shape[1] - size + 1, size):
            yield slice(y, y + size), slice(x, x + size)


def _cnn(scorer: Scorer, frame: NDArray[np.unsignedinteger]) -> tuple[float, float]:
    """b of a field, its tiles weighted by their precision, and the tiles' median σ."""
    measure = scorer.score(frame)
    weight = measure.sigma**-2
    return float((weight * measure.b).sum() / weight.sum()), float(np.median(measure.sigma))


def _optical_transfers(planes: NDArray[np.float64]) -> Tensor:
    kernels = [camera_psf(INSTRUMENT, float(z), 256, ABERRATIONS).float() for z in planes]
    return torch.stack([kernel_transfer(torch.fft.ifftshift(k), (FIELD_PX, FIELD_PX)) for k in kernels])


def _gaussian_transfers(planes: NDArray[np.float64]) -> Tensor:
    """Gaussian blur with the geometric disc's RMS radius along one axis, half its radius."""
    fy = torch.fft.fftfreq(FIELD_PX)[:, None]
    fx = torch.fft.rfftfreq(FIELD_PX)[None, :]
    widths = [INSTRUMENT.blur_radius_um(float(z)) / 2 / INSTRUMENT.pixel_um for z in planes]
    return torch.stack([torch.exp(-2 * (np.pi * w) ** 2 * (fy**2 + fx**2)) for w in widths])


def _figures(optical: Curves, gaussian: Curves, real: list[Curves]) -> dict[str, float | None]:
    """One measure's row of the table."""
    best = optical.best(0.8)
    reach_um = optical.range_um(INSTRUMENT.depth_of_field_um)
    return {
        "sigma_synth": optical.spread(),
        "sigma_synth_best80": best.spread() if best else None,
        "sigma_synth_robust": optical.robust_spread(),
        "sigma_synth_gaussian": gaussian.spread(),
        "entropy_synth": optical.entropy(),
        "entropy_synth_gaussian": gaussian.entropy(),
        "sigma_real": _mean(real, Curves.spread),
        "entropy_real": _mean(real, Curves.entropy),
        "range_um": reach_um,
        "range_dof": reach_um / INSTRUMENT.depth_of_field_um,
    }


def _mean(curves: list[Curves], figure: Callable[[Curves], float]) -> float | None:
    return float(np.mean([figure(c) for c in curves])) if curves else None


def _print(measures: dict[str, dict[str, Any]], textures: int, planes: int, stacks: list[str]) -> None:
    table = Table(title=f"{textures} held-out textures, {planes} planes; real: {', '.join(stacks) or 'none'}")
    columns = list(next(iter(measures.values())))
    table.add_column("measure")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in measures.items():
        table.add_row(name, *("–" if row[c] is None else f"{row[c]:.3f}" for c in columns))
    Console(width=160).print(table)


def _plot(optical: Table_, gaussian: Table_, path: Path) -> None:
    """Mean curve ± SD of each measure, as in the paper's Fig. 3, and dz(z)."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(16, 7), layout="constrained")
    for axis, name in zip(axes.flat, NAMES, strict=False):
        for curves, colour, label in (
            (optical, "tab:blue", "our optics"),
            (gaussian, "tab:orange", "Gaussian"),
        ):
            z, values = curves[name].z_um, curves[name].normalised()
            mean, spread = values.mean(0), values.std(0)
            axis.plot(z, mean, color=colour, label=label)
            axis.fill_between(z, mean - spread, mean + spread, color=colour, alpha=0.25)
        axis.set(title=name, xlabel="z (µm)", ylim=(-0.2, 1.5 if name != "cnn" else None))
    axes.flat[0].legend()
    for name in NAMES:
        axes.flat[7].semilogy(optical[name].z_um, optical[name].depth_uncertainty_um(), label=name)
    axes.flat[7].set(title="dz = σ / slope (µm)", xlabel="z (µm)", ylim=(0.3, 300))
    axes.flat[7].legend(fontsize=7)
    figure.savefig(path, dpi=90)
    plt.close(figure)
