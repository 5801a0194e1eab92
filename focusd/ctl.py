"""`focusctl`: look at a running focusd, calibrate, refocus, hold, cancel and monitor from a terminal.

Exit codes: 0 done, 1 an error (one line that says what to do), 2 wrong usage, 130 Ctrl-C (which cancels the
job that the command has started).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from focusd import ctl_keys, ctl_map
from focusd.driftlog import EventLog, draw, estimates_of, last_event, read_events, summarise
from focusd.errors import BusyError, CalibrationError, FocusdError, UnreachableError
from focusd.wire.catchup import complete
from focusd.wire.client import CONTROL, EVENTS, Client, EventStream
from focusd.wire.keys import ClientKeys
from focusd.wire.messages import JsonObject, rebuild_error

SILENCE_S = 5.0
"""The daemon's heart beats once a second."""
HINTS: dict[type[FocusdError], str] = {
    BusyError: "`focusctl monitor` follows the running job, `focusctl cancel` ends it",
    CalibrationError: "focus by eye on any flat textured sample, then run `focusctl calibrate`",
    UnreachableError: "--endpoint and --events say where to look",
}
RESULT_ROWS = {
    "z_um": "µm",
    "outcome": "",
    "message": "",
    "z_start_um": "µm",
    "z_found_um": "µm",
    "focus_um": "µm",
    "shift_um": "µm",
    "sigma_um": "µm",
    "dof_um": "µm",
    "strategy": "",
    "exposures": "",
    "dose_ms": "ms",
    "seconds": "s",
    "objective": "",
    "planes": "",
    "z_focus_um": "µm",
    "fwhm_um": "µm",
    "range_um": "µm",
    "r2": "",
    "path": "",
    "state": "",
    "checks": "",
    "moves": "",
}

app = typer.Typer(help="Talk to a running focusd.", no_args_is_help=True, add_completion=False)
app.add_typer(ctl_keys.app, name="keys")
my_keys: ContextVar[ClientKeys | None] = ContextVar("my_keys", default=None)
"""Of this command, for a focusd that asks for them."""
out = Console(highlight=False, markup=False)
err = Console(stderr=True, highlight=False, markup=False)

Endpoint = Annotated[str, typer.Option(help="The daemon's server.control address.")]
Events = Annotated[str, typer.Option(help="The daemon's server.events address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


def main() -> None:
    """Entry point of `focusctl`."""
    try:
        app()
    except FocusdError as error:
        _tell(error)
        raise SystemExit(1) from None


@app.callback()
def known_by(
    key: Annotated[
        Path | None,
        typer.Option(help="Your NAME.key_secret, for a focusd that asks for keys.", envvar="FOCUSCTL_KEY"),
    ] = None,
    server_key: Annotated[
        Path | None, typer.Option(help="That focusd's focusd.key.", envvar="FOCUSCTL_SERVER_KEY")
    ] = None,
) -> None:
    """Talk to a running focusd."""
    if (key is None) != (server_key is None):
        raise typer.BadParameter("--key and --server-key belong together: give both")
    if key and server_key:
        my_keys.set(ClientKeys.load(key, server_key))


@app.command()
def status(endpoint: Endpoint = CONTROL, as_json: AsJson = False) -> None:
    """Show where the rig stands."""
    with _connected(endpoint) as client:
        hello, state = client.hello(), client.state()
    if as_json:
        _print_json(state | {"session": hello["session"], "version": hello["version"]})
        return
    out.print(f"focusd {hello['version']} on {endpoint}", soft_wrap=True)
    table = _table()
    for name, value in _flat(state):
        table.add_row(name, _shown(value))
    out.print(table)


@app.command()
def calibrate(
    range_um: Annotated[float | None, typer.Option(help="Half the stack's extent, µm.")] = None,
    step_um: Annotated[float | None, typer.Option(help="Distance of the planes, µm.")] = None,
    endpoint: Endpoint = CONTROL,
    events: Events = EVENTS,
) -> None:
    """Take a calibration stack around the present z: focus by eye first."""
    with _connected(endpoint, events) as client, _subscribed(client) as stream:
        job = client.calibrate(range_um=range_um, step_um=step_um, wait=False)
        result = _follow(client, stream, job["job_id"], quiet=False)
    _print_result("calibrated", result)


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
    with _connected(endpoint, events) as client, _subscribed(client) as stream:
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
        result = _follow(client, stream, job["job_id"], quiet=as_json)
        if as_json:
            _print_json(result)
        else:
            _print_result("refocused", result)
        draw(result)


@app.command()
def move(
    z_um: Annotated[float, typer.Argument(help="Absolute z, µm; a negative one after `--`.")],
    endpoint: Endpoint = CONTROL,
) -> None:
    """Move the stage, within its limits."""
    with _connected(endpoint) as client:
        _print_result("moved", client.move(z_um))


@app.command()
def cancel(
    job_id: Annotated[str | None, typer.Argument(help="The job; default: the one that runs.")] = None,
    endpoint: Endpoint = CONTROL,
) -> None:
    """End a job; the stage ends at a safe z."""
    with _connected(endpoint) as client:
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
    with _connected(endpoint) as client:
        _print_result("holding", client.hold(roi=_region(roi), position=position))


@app.command()
def release(endpoint: Endpoint = CONTROL) -> None:
    """End the hold; the stage rests where it is."""
    with _connected(endpoint) as client:
        _print_result("released", client.release())


@app.command()
def reconnect(endpoint: Endpoint = CONTROL) -> None:
    """After a hardware fault that you have looked into: let focusd open the hardware again."""
    with _connected(endpoint) as client:
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
        client = resources.enter_context(_connected(endpoint, events))
        last = last_event(log) if log else None
        write = _line_writer(log, rotate_mb, resources)
        stream = resources.enter_context(_subscribed(client))
        for event in _news(complete(client, _patient(stream), last), write):
            out.print(_line(event), soft_wrap=True)


@app.command()
def drift(
    file: Annotated[Path, typer.Argument(help="A log of `focusctl monitor --log`.", dir_okay=False)],
    picture: Annotated[Path, typer.Option("--out", help="PNG or SVG.")] = Path("drift.png"),
    as_json: AsJson = False,
) -> None:
    """Sum up and draw how the focus drifted while it was held."""
    with _told():
        estimates = estimates_of(read_events(file))
        summary = summarise(estimates).as_dict()
        draw(estimates, picture)
    if as_json:
        _print_json(summary)
        return
    table = _table()
    for name, value in summary.items():
        table.add_row(name, _shown(value))
    out.print(table)
    out.print(f"the picture is {picture}", soft_wrap=True)


def _news(events: Iterable[JsonObject], write: Callable[[JsonObject], object]) -> Iterator[JsonObject]:
    """Write all events; pass those on that tell a person something, of the state only what has changed."""
    state: JsonObject = {}
    for event in events:
        write(event)
        if event["topic"] == "state":
            state, changes = event["data"], _changes(state, event["data"])
            event = event | {"data": changes}
        if event["data"] and event["topic"] != "heartbeat":
            yield event


@contextmanager
def _connected(endpoint: str, events: str = EVENTS) -> Iterator[Client]:
    """A client; errors end the program with one line and a hint."""
    with _told(), Client(endpoint, events, name="focusctl", keys=my_keys.get()) as client:
        yield client


@contextmanager
def _told() -> Iterator[None]:
    """Errors inside end the program with one line and a hint."""
    try:
        yield
    except FocusdError as error:
        _tell(error)
        if hint := HINTS.get(type(error)):
            err.print(f"hint: {hint}", soft_wrap=True)
        raise typer.Exit(1) from None
    except OSError as error:
        err.print(Text("error: ", style="red") + Text(str(error)), soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _tell(error: FocusdError) -> None:
    err.print(Text("error: ", style="red") + Text(error.message), soft_wrap=True)


def _subscribed(client: Client) -> EventStream:
    return client.events(silence_s=SILENCE_S)


def _follow(client: Client, stream: EventStream, job_id: str, quiet: bool) -> JsonObject:
    """Show a job's progress until its end; return its result or raise its error."""
    try:
        _show_progress(complete(client, stream), job_id, quiet)
    except KeyboardInterrupt:
        _cancel_and_wait(client, stream, job_id)
        raise
    job = client.job(job_id)
    if job["error"]:
        raise rebuild_error(job["error"])
    result: JsonObject = job["result"]
    return result


def _show_progress(events: Iterable[JsonObject], job_id: str, quiet: bool) -> None:
    session = None
    with err.status("running…") as spinner:
        for event in events:
            session = session or event["session"]
            if event["session"] != session:
                raise UnreachableError("focusd was restarted and has lost the job; ask again")
            if event["job_id"] != job_id:
                continue
            if event["topic"] == "focus.progress" and not quiet:
                err.print(Text("  " + _pairs(event["data"])), soft_wrap=True)
            if _is_end(event):
                return
            spinner.update("running… Ctrl-C cancels")


def _is_end(event: JsonObject) -> bool:
    return event["topic"] == "job" and event["data"]["state"] in ("succeeded", "failed", "cancelled")


def _cancel_and_wait(client: Client, stream: EventStream, job_id: str) -> None:
    err.print("cancelling: the stage returns to a safe z")
    client.cancel(job_id)
    _show_progress(complete(client, stream), job_id, quiet=True)
    job = client.job(job_id)
    message = job["error"]["message"] if job["error"] else "it had ended before"
    err.print(Text(f"job {job_id} {job['state']}: {message}"), soft_wrap=True)


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


def _patient(stream: EventStream) -> Iterator[JsonObject]:
    """The stream, going on over the daemon's absences and saying so once each time."""
    silent = False
    while True:
        try:
            event = next(stream)
        except UnreachableError as error:
            if not silent:
                err.print(Text(f"waiting: {error.message}", style="yellow"), soft_wrap=True)
            silent = True
            continue
        silent = False
        yield event


def _line_writer(path: Path | None, rotate_mb: float, resources: ExitStack) -> Callable[[JsonObject], object]:
    if path is None:
        return lambda event: None
    log = EventLog(path, round(rotate_mb * 1e6))
    resources.callback(log.close)
    return log.append


def _changes(before: JsonObject, now: JsonObject) -> JsonObject:
    return {name: value for name, value in now.items() if name not in before or before[name] != value}


def _line(event: JsonObject) -> Text:
    """An event for people: time of day in UTC, number, topic, what it says."""
    line = Text(f"{event['time'][11:23]} {event['seq']:>6} ", style="dim")
    failed = event["topic"] == "focus.failed" or event["data"].get("state") == "failed"
    line.append(f"{event['topic']:<15}", style="red" if failed else "cyan")
    if event["job_id"]:
        line.append(f" {event['job_id']}", style="dim")
    return line.append(" " + _pairs(event["data"]))


def _pairs(data: JsonObject) -> str:
    """`name=value` of everything; long lists only say how long they are."""
    return "  ".join(f"{name}={_shown(value)}" for name, value in _flat(data))


def _flat(data: JsonObject, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        short = len(value) <= 4 and not any(isinstance(item, dict | list) for item in value)
        return "[" + ", ".join(map(_shown, value)) + "]" if short else f"[{len(value)} items]"
    return "–" if value is None else str(value)


def _table() -> Table:
    table = Table("", "", show_header=False)
    table.columns[0].style = "dim"
    return table


def _print_result(title: str, result: JsonObject) -> None:
    out.print(title)
    table = _table()
    for name, unit in RESULT_ROWS.items():
        if result.get(name) not in (None, ""):
            table.add_row(name.removesuffix("_um"), f"{_shown(result[name])} {unit}".rstrip())
    if field := result.get("geometry"):
        table.add_row("field", f"{field['shape']}: {field['reason']}")
    out.print(table)
    if probes := result.get("probes"):
        out.print(_probes_table(probes))


def _probes_table(probes: list[JsonObject]) -> Table:
    table = Table("z, µm", "b", "σ(b)", "structure", title="probes")
    for probe in probes:
        table.add_row(*(_shown(probe.get(name)) for name in ("z_um", "b", "sigma", "structure")))
    return table


def _print_json(value: JsonObject) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


# Here, where it is known how to connect.
app.add_typer(ctl_map.app, name="map", context_settings={"obj": _connected})

if __name__ == "__main__":
    main()
