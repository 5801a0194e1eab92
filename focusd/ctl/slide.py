"""`focusctl map`: the focus map of the slide from a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from focusd.client.client import CONTROL
from focusd.ctl.connecting import AsJson, Endpoint, connected
from focusd.ctl.showing import out, print_json
from focusd.protocol.messages import JsonObject

# Coordinates may be negative: what is no option is an argument.
NEGATIVE = {"ignore_unknown_options": True}

app = typer.Typer(
    help="The focus map of the slide: z at positions that were not refocused.", no_args_is_help=True
)
Channel = Annotated[str | None, typer.Option(help="The channel; default: the reference.")]


@app.command(context_settings=NEGATIVE)
def add(
    x_um: Annotated[float, typer.Argument(help="Where the xy stage stands, µm.")],
    y_um: Annotated[float, typer.Argument(help="Where the xy stage stands, µm.")],
    z_um: Annotated[float | None, typer.Option(help="The focus, µm; default: the last refocus.")] = None,
    sigma_um: Annotated[float | None, typer.Option(help="Its standard uncertainty, µm.")] = None,
    channel: Channel = None,
    endpoint: Endpoint = CONTROL,
) -> None:
    """Put the last refocus on the map, in place of one made there before."""
    with connected(endpoint) as client:
        added = client.map_add(x_um, y_um, z_um=z_um, sigma_um=sigma_um, channel=channel)
    out.print(f"added z = {added['z_um']:.2f} ± {added['sigma_um']:.2f} µm; {added['positions']} positions")


@app.command(context_settings=NEGATIVE)
def predict(
    positions: Annotated[list[float], typer.Argument(help="x y of each position, µm.")],
    channel: Channel = None,
    tolerance: Annotated[float, typer.Option(help="Of the focus, in depths of field.")] = 0.5,
    endpoint: Endpoint = CONTROL,
    as_json: AsJson = False,
) -> None:
    """Say where the focus is, and whether a refocus there is worth its dose."""
    if len(positions) % 2:
        raise typer.BadParameter("give x and y of each position", param_hint="positions")
    with connected(endpoint) as client:
        places = list(zip(positions[::2], positions[1::2], strict=True))
        answer = client.map_predict(places, channel=channel, tolerance=tolerance)
    if as_json:
        print_json(answer)
    else:
        _print_predictions(answer)


@app.command()
def show(
    plot: Annotated[Path | None, typer.Option(help="Draw the surface: .png, .svg or .pdf.")] = None,
    endpoint: Endpoint = CONTROL,
    as_json: AsJson = False,
) -> None:
    """Show the measured positions, the channels' offsets, and the surface."""
    with connected(endpoint) as client:
        described = client.map_get()
        if as_json:
            print_json(described)
        else:
            _print_map(described)
        if plot:
            from focusd import pictures  # brings NumPy and matplotlib, for this alone

            pictures.draw_map(described, pictures.checked(plot))


@app.command(context_settings=NEGATIVE)
def offset(
    channel: Annotated[str, typer.Argument(help="The channel.")],
    offset_um: Annotated[float | None, typer.Argument(help="Its focus above the reference's, µm.")] = None,
    endpoint: Endpoint = CONTROL,
) -> None:
    """Set a channel's offset from the reference; without a number, forget it."""
    with connected(endpoint) as client:
        offsets = client.map_offset(channel, offset_um)["offsets_um"]
    out.print(_offsets(offsets))


@app.command()
def clear(endpoint: Endpoint = CONTROL) -> None:
    """Forget the positions, for a new slide; offsets stay."""
    with connected(endpoint) as client:
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
