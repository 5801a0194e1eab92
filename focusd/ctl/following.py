"""A job followed to its end, and events as they come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from focusd.client import Client, EventStream
from focusd.client.catchup import complete
from focusd.ctl.showing import pairs, say
from focusd.errors import UnreachableError, rebuild_error
from focusd.protocol.messages import JsonObject


def follow(client: Client, stream: EventStream, job_id: str, quiet: bool) -> JsonObject:
    """Show a job's progress until its end; return its result or raise its error."""
    try:
        end = _show_progress(complete(client, stream), job_id, quiet)
    except KeyboardInterrupt:
        _cancel_and_wait(client, stream, job_id)
        raise
    if error := end.get("error"):  # known without asking again: the daemon may be gone by now
        raise rebuild_error(error)
    result: JsonObject = client.job(job_id)["result"]
    return result


def _show_progress(events: Iterable[JsonObject], job_id: str, quiet: bool) -> JsonObject:
    """Show what happens to a job; return what the event of its end says."""
    session = None
    if not quiet and sys.stderr.isatty():
        say("running; Ctrl-C cancels", err=True)
    for event in events:
        session = session or event["session"]
        if event["session"] != session:
            raise UnreachableError("focusd was restarted and has lost the job; ask again")
        if event["job_id"] != job_id:
            continue
        if event["topic"] == "focus.progress" and not quiet:
            say("  " + pairs(event["data"]), err=True)
        if _is_end(event):
            ended: JsonObject = event["data"]
            return ended
    raise UnreachableError("the events have ended before the job")


def _is_end(event: JsonObject) -> bool:
    return event["topic"] == "job" and event["data"]["state"] in ("succeeded", "failed", "cancelled")


def _cancel_and_wait(client: Client, stream: EventStream, job_id: str) -> None:
    say("cancelling: the stage returns to a safe z", err=True)
    client.cancel(job_id)
    job = _show_progress(complete(client, stream), job_id, quiet=True)
    message = job["error"]["message"] if job.get("error") else "it had ended before"
    say(f"job {job_id} {job['state']}: {message}", err=True)


def news(events: Iterable[JsonObject], write: Callable[[JsonObject], object]) -> Iterator[JsonObject]:
    """Write all events; pass those on that tell a person something, of the state only what has changed."""
    state: JsonObject = {}
    for event in events:
        write(event)
        if event["topic"] == "state":
            state, changes = event["data"], _changes(state, event["data"])
            event = event | {"data": changes}
        if event["data"] and event["topic"] != "heartbeat":
            yield event


def patient(stream: EventStream) -> Iterator[JsonObject]:
    """The stream, going on over the daemon's absences and saying so once each time."""
    silent = False
    while True:
        try:
            event = next(stream)
        except UnreachableError as error:
            if not silent:
                say(f"waiting: {error.message}", "yellow", err=True)
            silent = True
            continue
        silent = False
        yield event


def _changes(before: JsonObject, now: JsonObject) -> JsonObject:
    return {name: value for name, value in now.items() if name not in before or before[name] != value}
