"""`focusctl map`: the focus map of the slide from a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from focusd.ctl.connecting import connected, endpoint_option, json_option, pictures
from focusd.ctl.options import params_of
from focusd.ctl.showing import print_json, print_table, say
from focusd.protocol import methods
from focusd.protocol.slide import FocusMapResult, MapPredictions

# Coordinates may be negative: what is no option is an argument.
NEGATIVE = {"ignore_unknown_options": True}


@click.group("map")
def app() -> None:
    """The focus map of the slide: z at positions that were not refocused."""


@app.command(context_settings=NEGATIVE)
@params_of(methods.MAP_ADD)
@endpoint_option
def add(endpoint: str, **asked: Any) -> None:
    """Put the last refocus on the map where the xy stage stands, in place of one made there before."""
    with connected(endpoint) as client:
        added = client.map_add(**asked)
    say(f"added z = {added.z_um:.2f} ± {added.sigma_um:.2f} µm; {added.positions} positions")


@app.command(context_settings=NEGATIVE)
@click.argument("positions", type=float, nargs=-1, required=True)
@params_of(methods.MAP_PREDICT, "positions")
@endpoint_option
@json_option
def predict(positions: tuple[float, ...], endpoint: str, as_json: bool, **asked: Any) -> None:
    """Say where the focus is, and whether a refocus there is worth its dose.

    POSITIONS are x and y of each position, µm.
    """
    if len(positions) % 2:
        raise click.BadParameter("give x and y of each position", param_hint="positions")
    with connected(endpoint) as client:
        places = list(zip(positions[::2], positions[1::2], strict=True))
        answer = client.map_predict(places, **asked)
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
            drawing.draw_map(described.model_dump(), drawing.checked(plot))


@app.command(context_settings=NEGATIVE)
@params_of(methods.MAP_OFFSET)
@endpoint_option
def offset(endpoint: str, **asked: Any) -> None:
    """Set what a channel's focus lies above the reference's, µm; without a number, forget it."""
    with connected(endpoint) as client:
        offsets = client.map_offset(**asked).offsets_um
    say(_offsets(offsets))


@app.command()
@endpoint_option
def clear(endpoint: str) -> None:
    """Forget the positions, for a new slide; offsets stay."""
    with connected(endpoint) as client:
        say(f"cleared {client.map_clear().cleared} positions")


def _print_predictions(answer: MapPredictions) -> None:
    rows = []
    for index, told in enumerate(answer.predictions):
        advice = f"{told.advice} first" if index == answer.next else told.advice
        numbers = map(_shown, (told.x_um, told.y_um, told.z_um, told.sigma_um))
        rows.append([*numbers, advice, told.reason])
    print_table(rows, ("x, µm", "y, µm", "z, µm", "σ, µm", "advice", "because"))


def _print_map(described: FocusMapResult) -> None:
    rows = []
    for place in described.positions:
        numbers = map(_shown, (place.x_um, place.y_um, place.z_um, place.sigma_um, place.off_um))
        rows.append([*numbers, "" if place.counts else "left out"])
    if rows:
        print_table(rows, ("x, µm", "y, µm", "z, µm", "σ, µm", "off, µm", ""), "measured")
    else:
        say("the map is empty")
    say(_offsets(described.offsets_um))
    if slopes := described.slopes_mrad:
        x, y = f"{slopes.x:+.2f} ± {slopes.sigma_x:.2f}", f"{slopes.y:+.2f} ± {slopes.sigma_y:.2f}"
        say(f"slope: x {x} mrad, y {y} mrad")


def _offsets(offsets_um: dict[str, Any]) -> str:
    return "offsets: " + (", ".join(f"{name} {um:+g} µm" for name, um in offsets_um.items()) or "none")


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
