"""The commands of focusctl."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from focusd.client.catchup import complete
from focusd.client.client import CONTROL, EVENTS
from focusd.ctl import calibrations, keys, slide
from focusd.ctl.connecting import AsJson, Endpoint, Events, connected, my_keys, subscribed, tell, told
from focusd.ctl.following import follow, news, patient
from focusd.ctl.showing import flat, line, out, print_json, print_result, shown, two_columns
from focusd.driftlog import EventLog, draw, estimates_of, last_event, read_events, summarise
from focusd.errors import FocusdError
from focusd.protocol.keys import ClientKeys
from focusd.protocol.messages import JsonObject
from focusd.terminal import Version, print_utf8

app = typer.Typer(help="Talk to a running focusd.", no_args_is_help=True, add_completion=False)
app.add_typer(calibrations.app, name="calibrations")
app.add_typer(keys.app, name="keys")
app.add_typer(slide.app, name="map")


def main() -> None:
    """Entry point of `focusctl`."""
    print_utf8()
    try:
        app()
    except FocusdError as error:
        tell(error)
        raise SystemExit(1) from None


@app.callback()
def whom(
    context: typer.Context,
    endpoint: Annotated[
        str, typer.Option(help="The daemon's server.control address.", envvar="FOCUSD_ENDPOINT")
    ] = CONTROL,
    events: Annotated[
        str, typer.Option(help="The daemon's server.events address.", envvar="FOCUSD_EVENTS")
    ] = EVENTS,
    key: Annotated[
        Path | None,
        typer.Option(help="Your NAME.key_secret, for a focusd that asks for keys.", envvar="FOCUSCTL_KEY"),
    ] = None,
    server_key: Annotated[
        Path | None, typer.Option(help="That focusd's focusd.key.", envvar="FOCUSCTL_SERVER_KEY")
    ] = None,
    version: Version = False,
) -> None:
    """Talk to a running focusd."""
    context.default_map = _for_all(context.command, {"endpoint": endpoint, "events": events})
    if (key is None) != (server_key is None):
        raise typer.BadParameter("--key and --server-key belong together: give both")
    if key and server_key:
        my_keys.set(ClientKeys.load(key, server_key))


@app.command()
def status(endpoint: Endpoint = CONTROL, as_json: AsJson = False) -> None:
    """Show where the rig stands."""
    with connected(endpoint) as client:
        hello, state = client.hello(), client.state()
    if as_json:
        print_json(state | {"session": hello["session"], "version": hello["version"]})
        return
    out.print(f"focusd {hello['version']} on {endpoint}", soft_wrap=True)
    table = two_columns()
    for name, value in flat(state):
        table.add_row(name, shown(value))
    out.print(table)


@app.command()
def calibrate(
    range_um: Annotated[
        float | None,
        typer.Option(help="Half the stack's extent, µm; default: what the objective asks for."),
    ] = None,
    step_um: Annotated[
        float | None, typer.Option(help="Distance of the planes, µm; default: likewise.")
    ] = None,
    endpoint: Endpoint = CONTROL,
    events: Events = EVENTS,
) -> None:
    """Take a calibration stack around the present z: focus by eye first."""
    with connected(endpoint, events) as client, subscribed(client) as stream:
        job = client.calibrate(range_um=range_um, step_um=step_um, wait=False)
        result = follow(client, stream, job["job_id"], quiet=False)
    print_result("calibrated" if result["in_force"] else "calibrated, and not in force", result)


@app.command()
def refocus(
    roi: Annotated[str | None, typer.Option(help="Region of interest: y,x,height,width in pixels.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Search strategy; default: as configured.")] = None,
    max_exposures: Annotated[int | None, typer.Option(help="Exposures allowed.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Time allowed.")] = None,
    max_dose_ms: Annotated[float | None, typer.Option(help="Exposure time allowed in all.")] = None,
    target_um: Annotated[float | None, typer.Option(help="σ at which the posterior search ends.")] = None,
    picture: Annotated[
        Path | None, typer.Option("--map", help="Draw the focus over the field: .png, .svg or .pdf.")
    ] = None,
    endpoint: Endpoint = CONTROL,
    events: Events = EVENTS,
    as_json: AsJson = False,
) -> None:
    """Bring the sample into focus."""
    region = _region(roi)
    with connected(endpoint, events) as client, subscribed(client) as stream:
        draw = _drawing(picture)
        job = client.refocus(
            roi=region,
            strategy=strategy,
            max_exposures=max_exposures,
            max_seconds=max_seconds,
            max_dose_ms=max_dose_ms,
            target_um=target_um,
            wait=False,
        )
        result = follow(client, stream, job["job_id"], quiet=as_json)
        if as_json:
            print_json(result)
        else:
            print_result("refocused", result)
        draw(result)


@app.command(context_settings=slide.NEGATIVE)
def move(
    z_um: Annotated[float, typer.Argument(help="Absolute z, µm.")],
    endpoint: Endpoint = CONTROL,
) -> None:
    """Move the stage, within its limits."""
    with connected(endpoint) as client:
        print_result("moved", client.move(z_um))


@app.command()
def cancel(
    job_id: Annotated[str | None, typer.Argument(help="The job; default: the one that runs.")] = None,
    endpoint: Endpoint = CONTROL,
) -> None:
    """End a job; the stage ends at a safe z."""
    with connected(endpoint) as client:
        running = client.state()["job"]
        job_id = job_id or (running and running["job_id"])
        if job_id is None:
            out.print("no job is running")
            return
        client.cancel(job_id)
        out.print(f"cancelling job {job_id}")


@app.command()
def hold(
    roi: Annotated[str | None, typer.Option(help="Region of interest: y,x,height,width in pixels.")] = None,
    position: Annotated[str | None, typer.Option(help="Name of the place, for the log.")] = None,
    endpoint: Endpoint = CONTROL,
) -> None:
    """Keep the sample in focus until `focusctl release`; `focusctl monitor` shows how it goes."""
    with connected(endpoint) as client:
        print_result("holding", client.hold(roi=_region(roi), position=position))


@app.command()
def release(endpoint: Endpoint = CONTROL) -> None:
    """End the hold; the stage rests where it is."""
    with connected(endpoint) as client:
        print_result("released", client.release())


@app.command()
def reconnect(endpoint: Endpoint = CONTROL) -> None:
    """After a hardware fault that you have looked into: let focusd open the hardware again."""
    with connected(endpoint) as client:
        client.reconnect()
        out.print("focusd starts anew and opens the hardware; `focusctl status` says how it went")


@app.command()
def monitor(
    log: Annotated[Path | None, typer.Option(help="Append each event to this file as a JSON line.")] = None,
    rotate_mb: Annotated[float, typer.Option(min=0.001, help="Size from which the log is begun anew.")] = 100,
    endpoint: Endpoint = CONTROL,
    events: Events = EVENTS,
) -> None:
    """Show events as they happen, until Ctrl-C. Heartbeats are logged, not shown.

    A log that exists is gone on with: what the daemon has on record since its last event comes first.
    """
    with ExitStack() as resources:
        client = resources.enter_context(connected(endpoint, events))
        last = last_event(log) if log else None
        write = _line_writer(log, rotate_mb, resources)
        stream = resources.enter_context(subscribed(client))
        for event in news(complete(client, patient(stream), last), write):
            out.print(line(event), soft_wrap=True)


@app.command()
def drift(
    file: Annotated[Path, typer.Argument(help="A log of `focusctl monitor --log`.", dir_okay=False)],
    picture: Annotated[Path, typer.Option("--out", help="PNG or SVG.")] = Path("drift.png"),
    as_json: AsJson = False,
) -> None:
    """Sum up and draw how the focus drifted while it was held."""
    with told():
        estimates = estimates_of(read_events(file))
        summary = summarise(estimates).as_dict()
        draw(estimates, picture)
    if as_json:
        print_json(summary)
        return
    table = two_columns()
    for name, value in summary.items():
        table.add_row(name, shown(value))
    out.print(table)
    out.print(f"the picture is {picture}", soft_wrap=True)


def _for_all(command: object, values: dict[str, str]) -> dict[str, Any]:
    """The same defaults for each command of a group, and of the groups in it."""
    commands: dict[str, object] = getattr(command, "commands", {})
    inner = {name: _for_all(inner, values) for name, inner in commands.items()}
    return values | inner


def _drawing(path: Path | None) -> Callable[[JsonObject], None]:
    """What draws a result's field into a file; a wrong name is told before exposures are spent."""
    if path is None:
        return lambda result: None
    from focusd import pictures  # brings NumPy and matplotlib, for this alone

    target = pictures.checked(path)

    def draw(result: JsonObject) -> None:
        if not result.get("geometry"):
            raise FocusdError("this refocus came without a map of the field: there is nothing to draw")
        pictures.draw_field(result["geometry"], target)

    return draw


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        y, x, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter("give four whole numbers: y,x,height,width", param_hint="--roi") from None
    return y, x, height, width


def _line_writer(path: Path | None, rotate_mb: float, resources: ExitStack) -> Callable[[JsonObject], object]:
    if path is None:
        return lambda event: None
    log = EventLog(path, round(rotate_mb * 1e6))
    resources.callback(log.close)
    return log.append
