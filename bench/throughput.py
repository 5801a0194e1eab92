"""`python -m bench throughput`: how fast each backend scores, and how far that is from what the machine could do.

All cases are timed in turns, so that what else the machine does is shared by all. The published network is a ResNet-34
U-Net on 224×224×3, as DeepFocus used, with random weights: MONAI's, whose decoder is lighter than theirs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.roofline import Machine, Work, work_of
from focusd.scoring import gpu, tensorrt
from focusd.scoring.backends import Backend, Backends, CpuBackend, check
from focusd.scoring.network import Score
from focusd.scoring.scorer import Scorer
from focusd.scoring.views import Views
from focusd.scoring.weights import Model, load_model

FRAME_PX = 2048
FRAME_TILES = 256
CPU_BATCHES = (16, 64)
PUBLISHED = "published U-Net"
EAGER = "eager"
PUBLISHED_BATCH = 4


@dataclass
class Case:
    """One row.

    Attributes:
        name: of the backend; with ` frame`: a uint16 frame of 2048×2048 in, b and σ out.
        batch: patches of a run.
        reference: name of the row that is plain torch on the same task.
        seconds: of each timed run.
    """

    name: str
    batch: int
    run: Callable[[], object]
    work: Work
    machine: Machine
    reference: str = EAGER
    seconds: list[float] = field(default_factory=list)

    @property
    def patches_per_s(self) -> float:
        """At the median."""
        return self.batch / float(np.median(self.seconds))


class EagerBackend(CpuBackend):
    """The network as it was trained, one torch operation after the other."""

    name = EAGER

    def __init__(self, model: Model, batch: int) -> None:
        super().__init__(model.network, batch)
        self._network = model.network

    def __call__(self, views: Views) -> Score:
        """Score a batch."""
        score: Score = self._network(views.pixels, views.spectra, views.contrast)
        return score


def run_throughput(threads: int, rounds: int, json_file: Path | None) -> None:
    """Measure, print the table, write the JSON."""
    torch.set_num_threads(threads)
    model, console = load_model(), Console(width=110)
    cpu = Machine(torch.device("cpu"), torch.float32)
    cases = [*_cpu_cases(model, threads, cpu), *_gpu_cases(model, console), *_published_cases(cpu, console)]
    for case in cases:
        _time(case)  # the first run allocates and chooses kernels
        case.seconds.clear()
    for _ in track(range(rounds), description="timing"):
        for machine in {id(case.machine): case.machine for case in cases}.values():
            machine.time()
        for case in cases:
            _time(case)
    rows = [_row(case, cases) for case in cases]
    _print(console, rows, cases[0], threads)
    if json_file:
        json_file.write_text(json.dumps({"backends": rows}, indent=1) + "\n", encoding="utf-8")


def _time(case: Case) -> None:
    start_s = time.perf_counter()
    with torch.inference_mode():
        case.run()
    case.seconds.append(time.perf_counter() - start_s)


def _cpu_cases(model: Model, threads: int, machine: Machine) -> list[Case]:
    cases = []
    for batch in CPU_BATCHES:
        backends = (EagerBackend(model, batch), CpuBackend(model.network, batch))
        cases += [_network_case(each, model, batch, machine) for each in backends]
    frames = (EagerBackend(model, CPU_BATCHES[0]), CpuBackend(model.network, CPU_BATCHES[0], threads))
    return [*cases, *(_frame_case(each, model, machine) for each in frames)]


def _gpu_cases(model: Model, console: Console) -> list[Case]:
    """Those of the backends that work here; the reason is printed where one does not."""
    if reason := gpu.missing():
        console.print(f"no GPU figures: {reason}", highlight=False)
        return []
    machine, cases = Machine(torch.device("cuda"), torch.half), []
    openers: dict[str, Callable[[], Any]] = {
        "cuda": lambda: gpu.open_cuda(model.network),
        "tensorrt": lambda: tensorrt.open_tensorrt(model),
    }
    for name, opened in openers.items():
        try:
            backend = opened()
            check(backend, CpuBackend(model.network))
        except Exception as error:
            console.print(f"no figures of {name}: {error}", highlight=False, markup=False)
            continue
        cases += [_network_case(backend, model, batch, machine) for batch in gpu.BATCHES]
        cases.append(_frame_case(backend, model, machine))
    return cases


def _network_case(backend: Backend, model: Model, batch: int, machine: Machine) -> Case:
    """The network alone, its views made before."""
    device = backend.load(np.zeros((1, 1), np.uint16)).device
    views = Views(*(torch.randn(shape, device=device) for shape in gpu.input_shapes(batch)))
    work = work_of(model.network, tuple(torch.zeros(shape) for shape in gpu.input_shapes(batch)))
    return Case(backend.name, batch, lambda: backend(views).b.cpu(), work, machine)


def _frame_case(backend: Backend, model: Model, machine: Machine) -> Case:
    """All of it; the work is still the network's, so that preprocessing counts as loss."""
    pixels = np.random.default_rng(0).poisson(1000, (FRAME_PX, FRAME_PX)).astype(np.uint16)
    scorer = Scorer(model, None, Backends(backend))
    work = work_of(model.network, tuple(torch.zeros(shape) for shape in gpu.input_shapes(backend.batch)))
    run, reference = (lambda: scorer.score(pixels)), f"{EAGER} frame"
    return Case(f"{backend.name} frame", FRAME_TILES, run, work, machine, reference)


def _published_cases(machine: Machine, console: Console) -> list[Case]:
    try:
        from monai.networks.nets.flexible_unet import FlexibleUNet
    except ImportError:
        console.print("no figures of the published network: `pip install monai` brings it", highlight=False)
        return []
    network = FlexibleUNet(in_channels=3, out_channels=1, backbone="resnet34", pretrained=False).eval()
    image = torch.randn(PUBLISHED_BATCH, 3, 224, 224)
    work = work_of(network, (image,))
    return [Case(PUBLISHED, PUBLISHED_BATCH, lambda: network(image), work, machine)]


def _row(case: Case, cases: list[Case]) -> dict[str, Any]:
    """The case's figures; None: there is nothing to compare with."""
    ms = np.array(case.seconds) * 1e3
    by_name = {(each.name, each.batch): each.patches_per_s for each in cases}
    eager = by_name.get((case.reference, case.batch))
    published = by_name.get((PUBLISHED, PUBLISHED_BATCH))
    return {
        "name": case.name,
        "batch": case.batch,
        "patches_per_s": case.patches_per_s,
        "p50_ms": float(np.percentile(ms, 50)),
        "p99_ms": float(np.percentile(ms, 99)),
        "vs_eager": case.patches_per_s / eager if eager else None,
        "vs_published_net": case.patches_per_s / published if published else None,
        "roofline_fraction": case.patches_per_s / case.machine.at_most(case.work),
    }


def _print(console: Console, rows: list[dict[str, Any]], first: Case, threads: int) -> None:
    machine, work = first.machine, first.work
    table = Table(title=f"{threads} CPU thread(s); medians")
    table.add_column("backend")
    for column in list(rows[0])[1:]:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(row["name"], *("–" if v is None else _short(v) for v in list(row.values())[1:]))
    console.print(table)
    console.print(
        f"CPU: {machine.flops_per_s / 1e9:.0f} GFLOP/s, {machine.bytes_per_s / 1e9:.0f} GB/s measured; "
        f"a patch: {work.flops / 1e6:.1f} MFLOP, {work.bytes / 1e3:.0f} kB",
        highlight=False,
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
