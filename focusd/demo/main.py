"""What the demo does, in order, and the table that it prints."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from focusd.demo.pictures import draw_calibration, draw_run, photograph
from focusd.demo.rigs import DemoDaemon, daemons, recorded_rig, simulated_rig, starting_planes
from focusd.demo.timelapse import run_timelapse
from focusd.errors import FocusdError
from focusd.microscope.recorded import Stack, read_stack, stack_files
from focusd.protocol.results import CalibrationResult, Probe
from focusd.scoring.single import sharpness

CALIBRATED_ON = "gravel"
SAMPLES = ("cells", "filaments", "brick", "tissue", "coins", "beads")
REACH_UM = 60.0
PLANES = 5
DEFAULT_STACKS = Path("../shared/data/stacks")
MAIN_STACK = "wafer-pattern"
STRATEGIES = ("posterior", "published")
"""The default first."""


@dataclass
class _Demo:
    """Where results go."""

    out: Path
    work: Path
    progress: Progress
    runs: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def tell(self, text: str) -> None:
        self.progress.console.print(text, highlight=False)


def run_demo(out: Path, json_file: Path | None, stacks: Path | None, seed: int) -> int:
    """Run the demo; returns the exit status: 0 if every simulated run of the default search ended within one depth
    of field.

    Raises:
        FocusdError: the daemon does not start, or a folder was given that holds no stacks.
    """
    files = _stack_files(stacks)
    out.mkdir(parents=True, exist_ok=True)
    began_s = time.perf_counter()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="focusd-demo-") as work, Progress(console=console) as progress:
        demo = _Demo(out, Path(work), progress)
        _simulated(demo, seed)
        _timelapse(demo, seed)
        for path in files:
            _recorded(demo, path)
    console.print(_table(demo.runs))
    for reason in demo.reasons:
        console.print(reason, style="dim", markup=False, highlight=False)
    if json_file:
        json_file.write_text(json.dumps({"runs": demo.runs}, indent=1) + "\n", encoding="utf-8")
    console.print(
        f"{time.perf_counter() - began_s:.0f} s. The pictures are in {out.resolve()}", soft_wrap=True
    )
    judged = [r for r in demo.runs if (r["source"], r["strategy"]) == ("simulated", STRATEGIES[0])]
    return 0 if all(_is_good(run) for run in judged) else 1


def _simulated(demo: _Demo, seed: int) -> None:
    """Calibrate on one sample, then focus on others; each is a new slide under a new daemon."""
    rng = np.random.default_rng(seed)
    state = demo.work / "simulated"
    focus = [float(rng.uniform(-3, 3)), *rng.uniform(-REACH_UM, REACH_UM, len(SAMPLES)).tolist()]
    names = (CALIBRATED_ON, *SAMPLES)
    rigs = [simulated_rig(state, name, seed, z) for name, z in zip(names, focus, strict=True)]
    task = demo.progress.add_task("simulated microscope", total=len(names))
    with daemons(rigs, demo.work) as running:
        for name, true_um, daemon in zip(names, focus, running, strict=True):
            if name == CALIBRATED_ON:
                calibration = _calibrate(demo, daemon, f"simulated, {name}")
            else:
                _refocus(demo, daemon, calibration, name, "simulated", true_um)
            demo.progress.advance(task)


def _timelapse(demo: _Demo, seed: int) -> None:
    """A drifting sample, held; a picture alone, not a run that is judged."""
    task = demo.progress.add_task("held timelapse", total=1)
    try:
        run_timelapse(demo.work / "simulated", demo.work, demo.out, seed)
    except FocusdError as error:
        demo.tell(f"[yellow]timelapse:[/] {escape(error.message)}")
    demo.progress.advance(task)


def _recorded(demo: _Demo, path: Path) -> None:
    """Calibrate on a recorded stack and focus on it from several of its planes."""
    name = path.name.split(".")[0]
    try:
        stack = read_stack(path)
        true_um = _focus_of(path, stack)
        rig = recorded_rig(demo.work / "recorded", path, stack, true_um)
        starts = starting_planes(stack, true_um, PLANES)
        task = demo.progress.add_task(name, total=1 + len(starts))
        with daemons([rig], demo.work) as running:
            daemon = next(running)
            calibration = _calibrate(demo, daemon, name, planes_um=_planes(stack))
            for start_um in starts:
                demo.progress.advance(task)
                daemon.client.move(start_um)
                _refocus(demo, daemon, calibration, name, "recorded", true_um)
            demo.progress.advance(task)
    except FocusdError as error:
        demo.tell(f"[yellow]{name}:[/] {escape(error.message)}")


def _calibrate(
    demo: _Demo, daemon: DemoDaemon, title: str, planes_um: list[float] | None = None
) -> CalibrationResult:
    calibration = daemon.client.calibrate(planes_um=planes_um)
    path = demo.out / f"calibration-{title.replace(', ', '-')}.png"
    draw_calibration(calibration, f"Calibration: {title}", path)
    demo.tell(f"calibrated on {title}: FWHM {calibration.fwhm_um:.0f} µm, R² {calibration.r2:.3f}")
    return calibration


def _refocus(
    demo: _Demo, daemon: DemoDaemon, calibration: CalibrationResult, sample: str, source: str, true_um: float
) -> None:
    """A refocus by each strategy from the same start, and a picture of the default one."""
    start_um = daemon.client.state().z_um
    assert start_um is not None, "it was calibrated there"
    for strategy in STRATEGIES:
        daemon.client.move(start_um)
        run: dict[str, Any] = {
            "sample": sample,
            "source": source,
            "strategy": strategy,
            "z_start_um": start_um,
            "z_true_um": true_um,
            "z_found_um": None,
            "error_um": None,
            "sigma_um": None,
            "dof_um": calibration.dof_um,
            "exposures": None,
            "seconds": None,
        }
        demo.runs.append(run)
        probes = _run(demo, daemon, run)
        if strategy == STRATEGIES[0]:
            planes_um = [start_um, *([] if run["z_found_um"] is None else [run["z_found_um"]])]
            number = (len(demo.runs) + 1) // len(STRATEGIES)
            picture = demo.out / f"run-{number:02d}-{sample}.png"
            draw_run(run, probes, calibration.curve, photograph(daemon.config, planes_um), picture)


def _run(demo: _Demo, daemon: DemoDaemon, run: dict[str, Any]) -> list[Probe]:
    """Fill in the figures of one refocus, or how it ended; returns its probes."""
    try:
        found = daemon.client.refocus(strategy=run["strategy"])
    except FocusdError as error:
        run["outcome"] = error.outcome
        where = f"{run['sample']} from {run['z_start_um']:.1f} µm, {run['strategy']}"
        demo.reasons.append(f"{where}: {error.message}")
        return [Probe.model_validate(probe) for probe in error.data.get("probes", [])]
    run |= {key: getattr(found, key) for key in ("z_found_um", "sigma_um", "exposures", "seconds", "outcome")}
    run["error_um"] = found.z_found_um - run["z_true_um"]
    return found.probes


def _stack_files(folder: Path | None) -> list[Path]:
    """Stacks to try, the main one first."""
    chosen = folder or DEFAULT_STACKS
    files = stack_files(chosen)
    if folder and not files:
        raise FocusdError(f"{folder}: there are no TIFF stacks in this folder")
    return sorted(files, key=lambda path: not path.name.startswith(MAIN_STACK))


def _focus_of(path: Path, stack: Stack) -> float:
    """The focus that the folder's stacks.json states, or the plane of the highest Tenengrad."""
    notes = path.parent / "stacks.json"
    if notes.exists():
        for note in json.loads(notes.read_text(encoding="utf-8")):
            if note.get("file") == path.name and note.get("focus_z_um") is not None:
                return float(note["focus_z_um"])
    return float(stack.z_um[np.argmax([sharpness(plane, None) for plane in stack.pixels])])


def _planes(stack: Stack) -> list[float]:
    """The recorded planes themselves, or, of a coarse stack, planes between them too."""
    if len(stack.z_um) >= 7:
        return [float(z) for z in stack.z_um]
    return [float(z) for z in np.linspace(stack.z_um[0], stack.z_um[-1], 13)]


def _is_good(run: dict[str, Any]) -> bool:
    return run["error_um"] is not None and abs(run["error_um"]) <= run["dof_um"]


def _table(runs: list[dict[str, Any]]) -> Table:
    """All runs, none left out."""
    title = "Refocus by both strategies, no run left out; z in µm"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("sample", no_wrap=True, max_width=11)  # so that it all fits into 80 columns
    table.add_column("search", no_wrap=True, min_width=9)
    for column in ("start", "true", "error", "σ", "DOF", "exp"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True, min_width=14)
    for run in runs:
        table.add_row(*_row(run), end_section=run["strategy"] == STRATEGIES[-1])
    return table


def _row(run: dict[str, Any]) -> list[str]:
    texts = [run["sample"], run["strategy"]]
    texts += [f"{run['z_start_um']:.1f}", f"{run['z_true_um']:.1f}"]
    if run["error_um"] is None:
        return [*texts, "–", "–", "–", "–", f"[red]{run['outcome']}[/]"]
    colour = "green" if _is_good(run) else "red"
    return [
        *texts,
        f"[{colour}]{run['error_um']:+.2f}[/]",
        f"{run['sigma_um']:.2f}",
        f"[{colour}]{run['error_um'] / run['dof_um']:+.2f}[/]",
        str(run["exposures"]),
        run["outcome"],
    ]
