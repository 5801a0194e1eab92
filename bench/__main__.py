"""`python -m bench NAME`: every figure in the documents, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from focusd.config import LogConfig
from focusd.daemon.logs import configure_logging
from focusd.errors import FocusdError

Textures = Annotated[
    Path | None, typer.Option(exists=True, file_okay=False, help="Folder of images never trained on.")
]
Stacks = Annotated[
    Path | None, typer.Option(exists=True, file_okay=False, help="Folder of recorded through-focus stacks.")
]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Benchmarks of focusd; each writes a table, a plot and, on request, JSON."""


@app.command()
def score(
    textures: Textures = None,
    stacks: Stacks = None,
    count: Annotated[int, typer.Option(min=8, help="Textures.")] = 200,
    quick: Annotated[bool, typer.Option(help="40 textures, every fourth plane: minutes.")] = False,
    seed: Annotated[int, typer.Option(help="Of crops and noise.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("bench-output"),
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """The network's score and the six classical measures: spread, entropy, range, depth uncertainty."""
    from bench.score import run_score

    run_score(textures, stacks, min(count, 40) if quick else count, 4 if quick else 1, seed, out, json)


@app.command()
def invariance(
    textures: Textures = None,
    count: Annotated[int, typer.Option(min=8, help="Textures.")] = 40,
    seed: Annotated[int, typer.Option(help="Of crops.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """The network's score through other objectives, in other light, with other exposures; empty fields."""
    from bench.invariance import run_invariance

    run_invariance(textures, count, seed, json)


@app.command()
def throughput(
    threads: Annotated[int, typer.Option(min=1, help="CPU threads, ours and the U-Net's.")] = 1,
    quick: Annotated[bool, typer.Option(help="A fifth of the rounds: a minute.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Patches a second and latency of each backend, against plain torch, the published U-Net and the roofline."""
    from bench.throughput import run_throughput

    run_throughput(threads, 20 if quick else 100, json)


@app.command()
def soak(
    hours: Annotated[float, typer.Option(min=0.1, help="Simulated.")] = 24.0,
    velocity_um_per_min: Annotated[float, typer.Option(help="Of the thermal ramp.")] = 1.0,
    step_um: Annotated[float, typer.Option(help="One an hour.")] = 5.0,
    sample: Annotated[str, typer.Option(help="Of the simulated microscope.")] = "cells",
    seed: Annotated[int, typer.Option(help="Of drift, sample and noise.")] = 1,
    refocus_sigma_um: Annotated[
        float | None, typer.Option(help="A refocus of this error instead of the real one.")
    ] = None,
    light: Annotated[float, typer.Option(min=0.0001, help="Of the timelapse; 1: the calibration's.")] = 1.0,
    drift: Annotated[
        Literal["ramp", "constant", "sine", "late", "turns", "reversals"],
        typer.Option(help="How the velocity changes."),
    ] = "ramp",
    empty_s: Annotated[
        float, typer.Option(min=0, help="The sample is out of the field for so long, every third hour.")
    ] = 120.0,
    rate: Annotated[
        list[float] | None,
        typer.Option(help="In µm/min, several times: instead, the hold alone at each of these."),
    ] = None,
    quick: Annotated[bool, typer.Option(help="One hour: minutes.")] = False,
    out: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("bench-output"),
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Hold, no correction and a refocus at fixed intervals, over hours of drift in compressed time."""
    from bench.soak import Soak, run_rates, run_soak

    hours = min(hours, 1.0) if quick else hours
    asked = Soak(hours, velocity_um_per_min, step_um, sample, seed, refocus_sigma_um, light, drift, empty_s)
    if rate:
        run_rates(asked, rate, json)
    else:
        run_soak(asked, out, json)


@app.command()
def faults(
    times: Annotated[
        int | None,
        typer.Option(min=0, help="Injections of each fault; 0: leave the matrix out (usually 100)."),
    ] = None,
    kills: Annotated[
        int | None, typer.Option(min=0, help="Daemons killed with SIGKILL (usually 200).")
    ] = None,
    messages: Annotated[int | None, typer.Option(min=0, help="Mutated messages (usually 1000000).")] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Steps of the state machine over the guard (usually 100000).")
    ] = None,
    lying: Annotated[
        int,
        typer.Option(min=0, help="Searches and checks on hardware that lies; alone unless others are named."),
    ] = 0,
    attacks: Annotated[
        bool,
        typer.Option(
            "--attacks", help="Signals, a full disk, floods and memory: ten minutes; alone likewise."
        ),
    ] = False,
    attack: Annotated[
        list[str] | None, typer.Option(help="Of the attacks those alone whose name contains this.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each flood.")] = 10.0,
    walks: Annotated[
        int, typer.Option(min=0, help="Random configurations that calibrate and refocus; alone likewise.")
    ] = 0,
    drift: Annotated[
        bool, typer.Option("--drift", help="The hold at 0 to 20 µm/min, an hour each; alone likewise.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="A few of each: about two minutes.")] = False,
    seed: Annotated[
        int, typer.Option(help="Of moments and mutations; of `--lying`: from 1000 on for figures.")
    ] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Each fault injected many times: was it noticed, answered once, survived, and the stage safe? Exit code 1: no."""
    from bench.faults.run import Parts, run_faults

    others = {
        "lying": lying,
        "walks": walks,
        "attacks": seconds if attacks or attack else 0.0,
        "only": tuple(attack or ()),
        "drift": 1.0 if drift else 0.0,
    }
    parts = Parts.asked(times, kills, messages, steps, quick=quick, **others)
    raise typer.Exit(0 if run_faults(parts, seed, json) else 1)


@app.command()
def accuracy(
    textures: Textures = None,
    calibrate: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Recorded stack to calibrate on.")
    ] = None,
    stacks: Stacks = None,
    quick: Annotated[bool, typer.Option(help="Few runs of the main settings: 2 minutes.")] = False,
    runs: Annotated[
        int | None, typer.Option(min=1, help="Instead: so many searches in all kinds of scenes.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of crops, starts and noise.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the plot goes.")] = Path("bench-output"),
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Error against images: both searches, Brent on the classical measures, and the limit that photons set."""
    from bench.accuracy import run_accuracy

    run_accuracy(textures, calibrate, stacks, quick, runs, seed, out, json)


@app.command()
def far(
    textures: Textures = None,
    runs: Annotated[int, typer.Option(min=1, help="Searches of each kind.")] = 100,
    seed: Annotated[int, typer.Option(help="Of crops, starts and noise.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Searches from beyond the calibrated range, over all of the stage's limits: focused, exposures, silently wrong."""
    from bench.far import run_far

    run_far(textures, runs, seed, json)


@app.command()
def frames(
    runs: Annotated[int, typer.Option(min=1, help="Searches.")] = 480,
    quick: Annotated[bool, typer.Option(help="48 searches at 10×/0.3: a minute or two.")] = False,
    seed: Annotated[int, typer.Option(help="Of samples, starts and calibrations.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Searches on whole camera frames of 2048×2048: error, refusals, and flat fields that are not called flat."""
    from bench.frames import run_frames

    run_frames(min(runs, 48) if quick else runs, quick, seed, json)


@app.command()
def modalities(
    runs: Annotated[int, typer.Option(min=1, help="Searches of each kind.")] = 36,
    seed: Annotated[int, typer.Option(help="Of samples, starts and noise.")] = 1,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Stained and unstained samples in transmitted light: bright field, phase contrast, and one for the other."""
    from bench.modalities import run_modalities

    run_modalities(runs, seed, json)


@app.command()
def realism(
    quick: Annotated[bool, typer.Option(help="A few cases, six searches each: some minutes.")] = False,
    group: Annotated[list[str] | None, typer.Option(help="These groups alone.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="These cases alone.")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Searches of each case.")] = None,
    seed: Annotated[int, typer.Option(help="Of samples, starts and noise.")] = 1,
    tuning: Annotated[
        bool, typer.Option(help="Seeds, textures and sizes to tune with, not to report.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """Instruments written apart from the estimator, with the faults of real optics, cameras, stages and samples."""
    from bench.realism.run import run_realism

    run_realism(
        quick=quick, groups=group or [], names=case or [], runs=runs, seed=seed, tuning=tuning, json_file=json
    )


@app.command()
def latency(
    quick: Annotated[bool, typer.Option(help="One exposure time, two samples: a minute or two.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """A refocus and a calibration over the time of the hardware alone, the event loop's delay, and the wire's."""
    from bench.latency import run_latency

    run_latency(quick, json)


@app.command()
def embedded(
    positions: Annotated[int, typer.Option(min=1, max=5, help="Of the slide.")] = 5,
    times: Annotated[int, typer.Option(min=1, help="Time points.")] = 20,
    quick: Annotated[bool, typer.Option(help="2 positions, 3 time points: a minute or two.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """An acquisition of another program's on a drifting, tilted slide: each plane's error, exposures a refocus."""
    from bench.embedded import run_embedded

    run_embedded(2 if quick else positions, 3 if quick else times, json)


@app.command()
def memory(
    refocuses: Annotated[int, typer.Option(min=10, help="One after the other.")] = 10_000,
    frame_px: Annotated[int, typer.Option(min=128, help="Side of a frame.")] = 256,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """The daemon's resident memory over thousands of refocuses."""
    from bench.memory import run_memory

    run_memory(refocuses, frame_px, json)


if __name__ == "__main__":
    configure_logging(LogConfig(level="warning"))  # a line for each job is nothing to a reader of tables
    try:
        app()
    except FocusdError as told:
        Console(stderr=True).print(told.message, highlight=False, markup=False)
        raise SystemExit(1) from None
