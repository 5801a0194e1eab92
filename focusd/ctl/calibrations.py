"""`focusctl calibrations`: what is kept of the objective's calibrations, from a terminal."""

from __future__ import annotations

import click

from focusd.ctl.connecting import connected, endpoint_option, json_option
from focusd.ctl.options import params_of
from focusd.ctl.showing import print_json, print_table, print_values, say, shown
from focusd.protocol import methods
from focusd.protocol.calibrations import KeptCalibration, KeptCalibrations


@click.group("calibrations", invoke_without_command=True)
@endpoint_option
@json_option
@click.pass_context
def app(context: click.Context, endpoint: str, as_json: bool) -> None:
    """The calibrations that are kept of the objective, and which one is in force."""
    if context.invoked_subcommand is None:
        _list_all(endpoint, as_json)


@app.command("list")
@endpoint_option
@json_option
def list_all(endpoint: str, as_json: bool) -> None:
    """List them, the latest first."""
    _list_all(endpoint, as_json)


@app.command()
@params_of(methods.SHOW_CALIBRATION)
@endpoint_option
@json_option
def show(id: str, endpoint: str, as_json: bool) -> None:
    """Show the calibration that has this id in `focusctl calibrations`."""
    with connected(endpoint) as client:
        answer = client.show_calibration(id)
    if as_json:
        print_json(answer)
    else:
        print_values(answer.model_dump())


@app.command()
@params_of(methods.USE_CALIBRATION)
@endpoint_option
def use(id: str, endpoint: str) -> None:
    """Put one of them in force; the one that was in force is kept."""
    with connected(endpoint) as client:
        client.use_calibration(id)
    say(f"{id} is in force")


@app.command()
@params_of(methods.REMOVE_CALIBRATION)
@endpoint_option
def remove(id: str, endpoint: str) -> None:
    """Remove one of them that is not in force, for good."""
    with connected(endpoint) as client:
        client.remove_calibration(id)
    say(f"{id} is removed")


def _list_all(endpoint: str, as_json: bool) -> None:
    with connected(endpoint) as client:
        answer = client.calibrations()
    if as_json:
        print_json(answer)
    else:
        _print_list(answer)


def _print_list(answer: KeptCalibrations) -> None:
    kept = answer.calibrations
    if not kept:
        say(f"no calibration of {answer.objective!r} is kept: run `focusctl calibrate`")
        return
    heads = ("id", "taken, UTC", "range, µm", "planes", "FWHM, µm", "R²", "")
    print_table(map(_row, kept), heads, answer.objective)
    for one in kept:
        if one.remark:
            say(f"{one.id}: {one.remark}")


def _row(kept: KeptCalibration) -> list[str]:
    """The cells of one calibration."""
    range_um = " … ".join(f"{end_um:.3g}" for end_um in kept.range_um)
    taken = kept.written[:16].replace("T", " ")
    figures = map(shown, (kept.planes, kept.fwhm_um, kept.r2))
    return [kept.id, taken, range_um, *figures, "in force" if kept.in_force else ""]
