"""`focusctl map`: the focus map of the slide from a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from focusd.ctl.connecting import connected, endpoint_option, json_option, pictures
from focusd.ctl.showing import print_json, print_table, say
from focusd.protocol.messages import JsonObject

# Coordinates may be negative: what is no option is an argument.
NEGATIVE = {"ignore_unknown_options": True}

channel_option = click.option("--channel", help="The channel; default: the reference.")


@click.group("map")
def app() -> None:
    """The focus map of the slide: z at positions that were not refocused."""


@app.command(context_settings=NEGATIVE)
@click.argument("x_um", type=float)
@click.argument("y_um", type=float)
@click.option("--z-um", type=float, help="The focus, µm; default: the last refocus.")
@click.option("--sigma-um", type=float, help="Its standard uncertainty, µm.")
@channel_option
@endpoint_option
def add(
    x_um: float, y_um: float, z_um: float | None, sigma_um: float | None, channel: str | None, endpoint: str
) -> None:
    """Put the last refocus on the map where the xy stage stands, in place of one made there before."""
    with connected(endpoint) as client:
        added = client.map_add(x_um, y_um, z_um=z_um, sigma_um=sigma_um, channel=channel)
    say(f"added z = {added['z_um']:.2f} ± {added['sigma_um']:.2f} µm; {added['positions']} positions")


@app.command(context_settings=NEGATIVE)
@click.argument("positions", type=float, nargs=-1, required=True)
@channel_option
@click.option(
    "--tolerance", type=float, default=0.5, show_default=True, help="Of the focus, in depths of field."
)
@endpoint_option
@json_option
def predict(
    positions: tuple[float, ...], channel: str | None, tolerance: float, endpoint: str, as_json: bool
) -> None:
    """Say where the focus is, and whether a refocus there is worth its dose.

    POSITIONS are x and y of each position, µm.
    """
    if len(positions) % 2:
        raise click.BadParameter("give x and y of each position", param_hint="positions")
    with connected(endpoint) as client:
        places = list(zip(positions[::2], positions[1::2], strict=True))
        answer = client.map_predict(places, channel=channel, tolerance=tolerance)
    if as_json:
        print_json(answer)
    else:
        _print_predictions(answer)


@app.command()
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the surface: .png, .svg or .pdf.")
@endpoint_option
@json_option
def show(plot: Path | None, endpoint: str, as_json: bool) -> None:
    """Show the measured positions, the channels' offsets, and the surface."""
    with connected(endpoint) as client:
        described = client.map_get()
        if as_json:
            print_json(described)
        else:
            _print_map(described)
        if plot:
            drawing = pictures()
            drawing.draw_map(described, drawing.checked(plot))


@app.command(context_settings=NEGATIVE)
@click.argument("channel")
@click.argument("offset_um", type=float, required=False)
@endpoint_option
def offset(channel: str, offset_um: float | None, endpoint: str) -> None:
    """Set what a channel's focus lies above the reference's, µm; without a number, forget it."""
    with connected(endpoint) as client:
        offsets = client.map_offset(channel, offset_um)["offsets_um"]
    say(_offsets(offsets))


@app.command()
@endpoint_option
def clear(endpoint: str) -> None:
    """Forget the positions, for a new slide; offsets stay."""
    with connected(endpoint) as client:
        say(f"cleared {client.map_clear()['cleared']} positions")


def _print_predictions(answer: JsonObject) -> None:
    rows = []
    for index, told in enumerate(answer["predictions"]):
        advice = f"{told['advice']} first" if index == answer["next"] else told["advice"]
        numbers = (_shown(told[name]) for name in ("x_um", "y_um", "z_um", "sigma_um"))
        rows.append([*numbers, advice, told["reason"]])
    print_table(rows, ("x, µm", "y, µm", "z, µm", "σ, µm", "advice", "because"))


def _print_map(described: JsonObject) -> None:
    rows = []
    for position in described["positions"]:
        numbers = (_shown(position[name]) for name in ("x_um", "y_um", "z_um", "sigma_um", "off_um"))
        rows.append([*numbers, "" if position["counts"] else "left out"])
    if rows:
        print_table(rows, ("x, µm", "y, µm", "z, µm", "σ, µm", "off, µm", ""), "measured")
    else:
        say("the map is empty")
    say(_offsets(described["offsets_um"]))
    if slopes := described["slopes_mrad"]:
        told = (f"{axis} {slopes[axis]:+.2f} ± {slopes[f'sigma_{axis}']:.2f} mrad" for axis in ("x", "y"))
        say(f"slope: {', '.join(told)}")


def _offsets(offsets_um: dict[str, Any]) -> str:
    return "offsets: " + (", ".join(f"{name} {um:+g} µm" for name, um in offsets_um.items()) or "none")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
