"""`focusd`: run the daemon, train the network, show what it does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from json import dumps as json_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from focusd import __version__
from focusd.errors import FocusdError
from focusd.terminal import open_standard_streams, print_utf8

if TYPE_CHECKING:
    from focusd.doctor import Finding

CLIENT = "focusd-client"
"""The distribution of the client alone; see docs/decisions/0022-light-client.md."""

app = typer.Typer(no_args_is_help=True, add_completion=False)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def focusd(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Keep a microscope in focus."""


@app.command()
def run(
    config: Annotated[Path, typer.Option(help="The rig's TOML file; see configs/.", dir_okay=False)],
) -> None:
    """Run the daemon until a signal ends it: SIGTERM, Ctrl-C, a terminal that closes."""
    # numpy's threads gain nothing on arrays this small, and wait for one another while the scorer computes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from focusd.config import load_config

    rig = load_config(config)
    from focusd import standalone  # imports torch: only once the configuration is known to be good

    standalone.run(rig)


@app.command()
def doctor(
    config: Annotated[Path, typer.Option(help="The rig's TOML file; see configs/.", dir_okay=False)],
    hardware: Annotated[
        bool,
        typer.Option(
            help="Open the devices too, which may home a stage, and walk through the stage's direction: nothing is "
            "moved before you agree."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """Look at all that a rig needs, and say what to do about each finding. Exit code 1: something fails."""
    from focusd.config import LogConfig
    from focusd.daemon.logs import configure_logging

    configure_logging(LogConfig(level="error"))
    from focusd.doctor import examine, healthy

    ask = _ask if sys.stdin.isatty() and not as_json else None
    findings = list(examine(config, hardware, ask))
    if as_json:
        typer.echo(json_of([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        Console().print(_as_table(findings))
    raise typer.Exit(0 if healthy(findings) else 1)


def _ask(question: str) -> bool | None:
    """What the person at the terminal answers; None: they cannot tell."""
    with suppress(EOFError):
        answer = Prompt.ask(question, choices=["yes", "no", "unsure"], default="unsure")
        return {"yes": True, "no": False}.get(answer)
    return None


def _as_table(findings: Iterable[Finding]) -> Table:
    table = Table("", "", "what to do", box=None)
    colours = {"ok": "green", "warning": "yellow", "failure": "red", "skipped": "dim"}
    for finding in findings:
        mark = Text(f"{finding.level} ", style=colours[finding.level]).append(finding.check, style="default")
        table.add_row(mark, Text(finding.says), Text(finding.do))
    return table


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


def keep_docstrings() -> None:
    """Begin anew without `PYTHONOPTIMIZE=2` or `-OO`: pymmcore-plus computes with docstrings, which they strip."""
    if sys.flags.optimize < 2:
        return
    command = [sys.executable, "-m", "focusd", *sys.argv[1:]]
    environment = os.environ | {"PYTHONOPTIMIZE": "1"}
    if sys.platform == "win32":  # which has no exec
        raise SystemExit(subprocess.call(command, env=environment))
    os.execve(sys.executable, command, environment)


def refuse_two_installations() -> None:
    """Raise FocusdError where `focusd-client` is installed beside `focusd`: both own the client's files."""
    with suppress(PackageNotFoundError):
        client = version_of(CLIENT)
        raise FocusdError(
            f"{CLIENT} {client} is installed in the same environment as focusd. Both own the same files, so removing "
            f"or upgrading one of them breaks the other. focusd has all that {CLIENT} has: run `pip uninstall "
            f"{CLIENT}`, then install focusd again"
        )


def main() -> None:
    """Entry point: errors that focusd raises on purpose become one line."""
    open_standard_streams()
    keep_docstrings()
    print_utf8()
    try:
        refuse_two_installations()
        app()
    except FocusdError as error:
        # As Text: a message may hold brackets that rich would take for markup.
        text = Text.assemble(("error: ", "red"), error.message)
        Console(stderr=True, highlight=False).print(text, soft_wrap=True)
        raise SystemExit(1) from None
