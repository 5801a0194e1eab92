"""The commands of focusctl."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from focusd import __version__
from focusd.addresses import CONTROL, EVENTS
from focusd.client.catchup import complete
from focusd.ctl import calibrations, keys, slide
from focusd.ctl.connecting import (
    connected,
    endpoint_option,
    events_option,
    json_option,
    my_keys,
    pictures,
    subscribed,
    tell,
    told,
)
from focusd.ctl.following import follow, news, patient
from focusd.ctl.options import params_of
from focusd.ctl.showing import line, print_json, print_result, print_values, say
from focusd.driftlog import EventLog, estimates_of, last_event, read_events, summarise
from focusd.errors import FocusdError
from focusd.protocol import methods
from focusd.protocol.events import Event, read_event
from focusd.protocol.keys import ClientKeys
from focusd.protocol.model import docs_of
from focusd.protocol.results import RefocusResult
from focusd.protocol.states import HoldReport
from focusd.terminal import keep_interrupts, print_utf8

FILE = click.Path(path_type=Path)
STILL = click.Path(resolve_path=True)
"""The daemon stands in another folder."""


@click.group(context_settings={"max_content_width": 110})
@click.option(
    "--endpoint",
    default=CONTROL,
    show_default=True,
    envvar="FOCUSD_ENDPOINT",
    show_envvar=True,
    help="The daemon's server.control address.",
)
@click.option(
    "--events",
    default=EVENTS,
    show_default=True,
    envvar="FOCUSD_EVENTS",
    show_envvar=True,
    help="The daemon's server.events address.",
)
@click.option(
    "--key",
    type=FILE,
    envvar="FOCUSCTL_KEY",
    show_envvar=True,
    help="Your NAME.key_secret, for a focusd that asks for keys.",
)
@click.option(
    "--server-key",
    type=FILE,
    envvar="FOCUSCTL_SERVER_KEY",
    show_envvar=True,
    help="That focusd's focusd.key.",
)
@click.version_option(__version__, message="%(version)s", help="Print the version.")
@click.pass_context
def app(
    context: click.Context, endpoint: str, events: str, key: Path | None, server_key: Path | None
) -> None:
    """Talk to a running focusd."""
    context.default_map = _for_all(context.command, {"endpoint": endpoint, "events": events})
    if (key is None) != (server_key is None):
        raise click.BadParameter("--key and --server-key belong together: give both")
    if key and server_key:
        my_keys.set(ClientKeys.load(key, server_key))


app.add_command(calibrations.app)
app.add_command(keys.app)
app.add_command(slide.app)


def main() -> None:
    """Entry point of `focusctl`."""
    print_utf8()
    keep_interrupts()
    try:
        app(prog_name="focusctl")
    except FocusdError as error:
        tell(error)
        raise SystemExit(1) from None


@app.command()
@endpoint_option
@json_option
def status(endpoint: str, as_json: bool) -> None:
    """Show where the rig stands."""
    with connected(endpoint) as client:
        hello, state = client.hello(), client.state()
    if as_json:
        print_json(state.model_dump() | {"session": hello.session, "version": hello.version})
    else:
        say(f"focusd {hello.version} on {endpoint}")
        print_values(state.model_dump())


@app.command()
@params_of(methods.CALIBRATE, "flat", "dark")
@click.option("--flat", type=STILL, help=docs_of(methods.CALIBRATE.params)["flat"])
@click.option("--dark", type=STILL, help=docs_of(methods.CALIBRATE.params)["dark"])
@endpoint_option
@events_option
def calibrate(endpoint: str, events: str, **asked: Any) -> None:
    """Take a calibration stack around the present z: focus by eye first."""
    with connected(endpoint, events) as client, subscribed(client) as stream:
        job = client.calibrate(**asked, wait=False)
        result = follow(client, stream, job)
    print_result("calibrated" if result.in_force else "calibrated, and not in force", result)


@app.command()
@params_of(methods.REFOCUS)
@click.option("--map", "picture", type=FILE, help="Draw the focus over the field: .png, .svg or .pdf.")
@endpoint_option
@events_option
@json_option
def refocus(picture: Path | None, endpoint: str, events: str, as_json: bool, **asked: Any) -> None:
    """Bring the sample into focus."""
    with connected(endpoint, events) as client, subscribed(client) as stream:
        draw = _drawing(picture)
        job = client.refocus(**asked, wait=False)
        result = follow(client, stream, job, quiet=as_json)
        if as_json:
            print_json(result)
        else:
            print_result("refocused", result)
        draw(result)


@app.command(context_settings=slide.NEGATIVE)
@params_of(methods.MOVE)
@endpoint_option
def move(endpoint: str, **asked: Any) -> None:
    """Move the stage to an absolute z in µm, within its limits."""
    with connected(endpoint) as client:
        print_result("moved", client.move(**asked))


@app.command()
@params_of(methods.BACKLASH)
@endpoint_option
@events_option
@json_option
def backlash(endpoint: str, events: str, as_json: bool, **asked: Any) -> None:
    """Measure the backlash of the stage: calibrate, and bring a sample nearly into focus first."""
    with connected(endpoint, events) as client, subscribed(client) as stream:
        job = client.measure_backlash(**asked, wait=False)
        result = follow(client, stream, job, quiet=as_json)
    if as_json:
        print_json(result)
    else:
        print_result("measured", result)


@app.command()
@click.argument("job_id", required=False)
@endpoint_option
def cancel(job_id: str | None, endpoint: str) -> None:
    """End a job, or the one that runs; the stage ends at a safe z."""
    with connected(endpoint) as client:
        running = client.state().job
        job_id = job_id or (running.job_id if running else None)
        if job_id is None:
            say("no job is running")
            return
        client.cancel(job_id)
        say(f"cancelling job {job_id}")


@app.command()
@params_of(methods.HOLD)
@endpoint_option
def hold(endpoint: str, **asked: Any) -> None:
    """Keep the sample in focus until `focusctl release`; `focusctl monitor` shows how it goes."""
    with connected(endpoint) as client:
        print_result("holding", client.hold(**asked))


@app.command()
@endpoint_option
def release(endpoint: str) -> None:
    """End the hold; the stage rests where it is."""
    with connected(endpoint) as client:
        released = client.release()
        print_result("released" if isinstance(released, HoldReport) else "nothing was held", released)


@app.command()
@endpoint_option
def reconnect(endpoint: str) -> None:
    """After a hardware fault that you have looked into: let focusd open the hardware again."""
    with connected(endpoint) as client:
        client.reconnect()
        say("focusd starts anew and opens the hardware; `focusctl status` says how it went")


@app.command()
@click.option("--log", type=FILE, help="Append each event to this file as a JSON line.")
@click.option(
    "--rotate-mb",
    type=click.FloatRange(min=0.001),
    default=100,
    show_default=True,
    help="Size from which the log is begun anew.",
)
@endpoint_option
@events_option
def monitor(log: Path | None, rotate_mb: float, endpoint: str, events: str) -> None:
    """Show events as they happen, until Ctrl-C. Heartbeats are logged, not shown.

    A log that exists is gone on with: what the daemon has on record since its last event comes first.
    """
    with ExitStack() as resources:
        client = resources.enter_context(connected(endpoint, events))
        logged = last_event(log) if log else None
        last = read_event(logged) if logged else None
        write = _line_writer(log, rotate_mb, resources)
        stream = resources.enter_context(subscribed(client))
        for event in news(complete(client, patient(stream), last), write):
            click.echo(line(event))


@app.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--out", "picture", type=FILE, default=Path("drift.png"), show_default=True, help="PNG or SVG.")
@json_option
def drift(file: Path, picture: Path, as_json: bool) -> None:
    """Sum up and draw how the focus drifted while it was held; FILE is a log of `focusctl monitor --log`."""
    with told():
        estimates = estimates_of(read_events(file))
        summary = summarise(estimates).as_dict()
        if as_json:
            print_json(summary)
        else:
            print_values(summary)
        pictures().draw_drift(estimates, picture)
    if not as_json:
        say(f"the picture is {picture}")


def _for_all(command: object, values: dict[str, str]) -> dict[str, Any]:
    """The same defaults for each command of a group, and of the groups in it."""
    commands: dict[str, object] = getattr(command, "commands", {})
    inner = {name: _for_all(inner, values) for name, inner in commands.items()}
    return values | inner


def _drawing(path: Path | None) -> Callable[[RefocusResult], None]:
    """What draws a result's field into a file; a wrong name is told before exposures are spent."""
    if path is None:
        return lambda result: None
    drawing = pictures()
    target: Path = drawing.checked(path)
    return lambda result: drawing.draw_field(result.geometry.model_dump(), target)


def _line_writer(path: Path | None, rotate_mb: float, resources: ExitStack) -> Callable[[Event], object]:
    if path is None:
        return lambda event: None
    log = EventLog(path, round(rotate_mb * 1e6))
    resources.callback(log.close)
    return lambda event: log.append(event.model_dump(mode="json"))
