"""`python -m bench NAME`: every figure in the README, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Benchmarks of focusd; each writes a table, a plot and, on request, JSON."""


@app.command()
def score(
    textures: Annotated[Path | None, typer.Option(help="Folder of images never trained on.")] = None,
    stacks: Annotated[Path | None, typer.Option(help="Folder of recorded through-focus stacks.")] = None,
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
    textures: Annotated[Path | None, typer.Option(help="Folder of images never trained on.")] = None,
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
def latency(
    quick: Annotated[bool, typer.Option(help="One exposure time, two samples: a minute or two.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
) -> None:
    """A refocus and a calibration over the time of the hardware alone, the event loop's delay, and the wire's."""
    from bench.latency import run_latency

    run_latency(quick, json)


if __name__ == "__main__":
    app()
