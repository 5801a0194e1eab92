"""`focusctl calibrations`: what is kept of the objective's calibrations, from a terminal."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from focusd.client.client import CONTROL
from focusd.ctl.connecting import AsJson, Endpoint, connected
from focusd.ctl.showing import flat, out, print_json, shown, two_columns
from focusd.protocol.messages import JsonObject

app = typer.Typer(
    help="The calibrations that are kept of the objective, and which one is in force.",
    invoke_without_command=True,
)
Id = Annotated[str, typer.Argument(help="Its id, as `focusctl calibrations` shows it.")]


@app.callback()
def by_default(context: typer.Context, endpoint: Endpoint = CONTROL, as_json: AsJson = False) -> None:
    """The calibrations that are kept of the objective, and which one is in force."""
    if context.invoked_subcommand is None:
        list_all(endpoint, as_json)


@app.command("list")
def list_all(endpoint: Endpoint = CONTROL, as_json: AsJson = False) -> None:
    """List them, the latest first."""
    with connected(endpoint) as client:
        answer = client.calibrations()
    if as_json:
        print_json(answer)
    else:
        _print_list(answer)


@app.command()
def show(calibration_id: Id, endpoint: Endpoint = CONTROL, as_json: AsJson = False) -> None:
    """Show one of them."""
    with connected(endpoint) as client:
        answer = client.show_calibration(calibration_id)
    if as_json:
        print_json(answer)
        return
    table = two_columns()
    for name, value in flat(answer):
        table.add_row(name, shown(value))
    out.print(table)


@app.command()
def use(calibration_id: Id, endpoint: Endpoint = CONTROL) -> None:
    """Put one of them in force; the one that was in force is kept."""
    with connected(endpoint) as client:
        client.use_calibration(calibration_id)
    out.print(f"{calibration_id} is in force")


@app.command()
def remove(calibration_id: Id, endpoint: Endpoint = CONTROL) -> None:
    """Remove one of them that is not in force, for good."""
    with connected(endpoint) as client:
        client.remove_calibration(calibration_id)
    out.print(f"{calibration_id} is removed")


def _print_list(answer: JsonObject) -> None:
    kept = answer["calibrations"]
    if not kept:
        out.print(f"no calibration of {answer['objective']!r} is kept: run `focusctl calibrate`")
        return
    table = Table("id", "taken, UTC", "range, µm", "planes", "FWHM, µm", "R²", "", title=answer["objective"])
    for one in kept:
        range_um = " … ".join(f"{end_um:.3g}" for end_um in one["range_um"])
        taken = one["written"][:16].replace("T", " ")
        figures = map(shown, (one["planes"], one["fwhm_um"], one["r2"]))
        table.add_row(one["id"], taken, range_um, *figures, "in force" if one["in_force"] else "")
    out.print(table)
    for one in kept:
        if one["remark"]:
            out.print(f"{one['id']}: {one['remark']}", soft_wrap=True)
