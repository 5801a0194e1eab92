"""`focusctl map`: the focus map of the slide from a terminal. The context's `obj` connects to the daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from focusd.wire.client import CONTROL
from focusd.wire.messages import JsonObject

# Coordinates may be negative: what is no option is an argument.
NEGATIVE = {"ignore_unknown_options": True}

app = typer.Typer(
    help="The focus map of the slide: z at positions that were not refocused.", no_args_is_help=True
)
out = Console(highlight=False, markup=False)

Endpoint = Annotated[str, typer.Option(help="The daemon's server.control address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Channel = Annotated[str | None, typer.Option(help="The channel; default: the reference.")]


@app.command(context_settings=NEGATIVE)
def add(
    context: typer.Context,
    x_um: Annotated[float, typer.Argument(help="Where the xy stage stands, µm.")],
    y_um: Annotated[float, typer.Argument(help="Where the xy stage stands, µm.")],
    z_um: Annotated[float | None, typer.Option(help="The focus, µm; default: the last refocus.")] = None,
    sigma_um: Annotated[float | None, typer.Option(help="Its standard uncertainty, µm.")] = None,
    channel: Channel = None,
    endpoint: Endpoint = CONTROL,
) -> None:
    """Put the last refocus on the map, in place of one made there before."""
    with context.obj(endpoint) as client:
        added = client.map_add(x_um, y_um, z_um=z_um, sigma_um=sigma_um, channel=channel)
    out.print(f"added z = {added['z_um']:.2f} ± {added['sigma_um']:.2f} µm; {added['positions']} positions")


@app.command(context_settings=NEGATIVE)
def predict(
    context: typer.Context,
    positions: Annotated[list[float], typer.Argument(help="x y of each position, µm.")],
    channel: Channel = None,
    tolerance: Annotated[float, typer.Option(help="Of the focus, in depths of field.")] = 0.5,
    endpoint: Endpoint = CONTROL,
    as_json: AsJson = False,
) -> None:
    """Say where the focus is, and whether a refocus there is worth its dose."""
    if len(positions) % 2:
        raise typer.BadParameter("give x and y of each position", param_hint="positions")
    with context.obj(endpoint) as client:
        places = list(zip(positions[::2], positions[1::2], strict=True))
        answer = client.map_predict(places, channel=channel, tolerance=tolerance)
    if as_json:
        typer.echo(json.dumps(answer, ensure_ascii=False))
    else:
        _print_predictions(answer)


@app.command()
def show(
    context: typer.Context,
    plot: Annotated[Path | None, typer.Option(help="Draw the surface: .png, .svg or .pdf.")] = None,
    endpoint: Endpoint = CONTROL,
    as_json: AsJson = False,
) -> None:
    """Show the measured positions, the channels' offsets, and the surface."""
    with context.obj(endpoint) as client:
        described = client.map_get()
        if as_json:
            typer.echo(json.dumps(described, ensure_ascii=False))
        else:
            _print_map(described)
        if plot:
            from focusd import pictures  # brings NumPy and matplotlib, for this alone

            pictures.draw_map(described, pictures.checked(plot))


@app.command(context_settings=NEGATIVE)
def offset(
    context: typer.Context,
    channel: Annotated[str, typer.Argument(help="The channel.")],
    offset_um: Annotated[float | None, typer.Argument(help="Its focus above the reference's, µm.")] = None,
    endpoint: Endpoint = CONTROL,
) -> None:
    """Set a channel's offset from the reference; without a number, forget it."""
    with context.obj(endpoint) as client:
        offsets = client.map_offset(channel, offset_um)["offsets_um"]
    out.print(_offsets(offsets))


@app.command()
def clear(context: typer.Context, endpoint: Endpoint = CONTROL) -> None:
    """Forget the positions, for a new slide; offsets stay."""
    with context.obj(endpoint) as client:
        out.print(f"cleared {client.map_clear()['cleared']} positions")


def _print_predictions(answer: JsonObject) -> None:
    table = Table("x, µm", "y, µm", "z, µm", "σ, µm", "advice", "because")
    for index, told in enumerate(answer["predictions"]):
        advice = f"{told['advice']} first" if index == answer["next"] else told["advice"]
        numbers = (_shown(told[name]) for name in ("x_um", "y_um", "z_um", "sigma_um"))
        table.add_row(*numbers, advice, told["reason"])
    out.print(table)


def _print_map(described: JsonObject) -> None:
    table = Table("x, µm", "y, µm", "z, µm", "σ, µm", "off, µm", "", title="measured")
    for position in described["positions"]:
        numbers = (_shown(position[name]) for name in ("x_um", "y_um", "z_um", "sigma_um", "off_um"))
        table.add_row(*numbers, "" if position["counts"] else "left out")
    out.print(table if described["positions"] else "the map is empty")
    out.print(_offsets(described["offsets_um"]))
    if slopes := described["slopes_mrad"]:
        told = (f"{axis} {slopes[axis]:+.2f} ± {slopes[f'sigma_{axis}']:.2f} mrad" for axis in ("x", "y"))
        out.print(f"slope: {', '.join(told)}")


def _offsets(offsets_um: dict[str, Any]) -> str:
    return "offsets: " + (", ".join(f"{name} {um:+g} µm" for name, um in offsets_um.items()) or "none")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
