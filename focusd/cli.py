"""`focusd`: run the daemon, train the network, show what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from focusd import __version__
from focusd.errors import FocusdError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Keeps a microscope in focus.")


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="The rig's TOML file; see configs/.", dir_okay=False)],
) -> None:
    """Run the daemon until SIGINT or SIGTERM."""
    from focusd.config import load_config

    rig = load_config(config)
    from focusd import daemon  # imports torch: only once the configuration is known to be good

    daemon.run(rig)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("demo-output"),
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file too.")] = None,
    stacks: Annotated[Path | None, typer.Option(help="Folder of recorded through-focus stacks.")] = None,
    seed: Annotated[int, typer.Option(help="Of samples and starting points.")] = 1,
) -> None:
    """Calibrate and refocus a simulated microscope, and recorded stacks, over ZeroMQ."""
    from focusd.demo import run_demo

    raise typer.Exit(run_demo(out, json, stacks, seed))


@app.command()
def train(
    recipe: Annotated[Path, typer.Option(help="What to train; see models/recipes.", dir_okay=False)],
    out: Annotated[Path, typer.Option(help="Checkpoints and log; a run found here is resumed.")],
    textures: Annotated[
        Path | None, typer.Option(help="Folder of images; none: procedural ones alone.")
    ] = None,
    models: Annotated[Path | None, typer.Option(help="Where the weights go; none: into --out.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that synthesise.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads that train.")] = 1,
) -> None:
    """Train the network. Interrupted, it goes on from its last checkpoint when run again."""
    from focusd.training.command import train_and_export

    path = train_and_export(recipe, out, textures, models or out, workers, threads)
    Console().print(f"weights: {path}")


@app.command()
def version() -> None:
    """Print focusd's version."""
    typer.echo(__version__)


def main() -> None:
    """Entry point: errors that focusd raises on purpose become one line."""
    try:
        app()
    except FocusdError as error:
        # As Text: a message may hold brackets that rich would take for markup.
        text = Text.assemble(("error: ", "red"), error.message)
        Console(stderr=True, highlight=False).print(text, soft_wrap=True)
        raise SystemExit(1) from None
