"""A job followed to its end, and events as they come."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

from focusd.client import Client, EventStream
from focusd.client.catchup import complete
from focusd.ctl.showing import pairs, say
from focusd.errors import UnreachableError
from focusd.protocol.events import Event, JobChange, JobEvent, ProgressEvent, StateEvent
from focusd.protocol.results import Started

R = TypeVar("R", bound=Started)


def follow(client: Client, stream: EventStream[Event], started: R, quiet: bool = False) -> R:
    """Show a job's progress until its end; return its result or raise its error.

    Args:
        started: the answer to the request that has started it.
    """
    job_id = started.job_id
    try:
        end = _show_progress(complete(client, stream), job_id, quiet)
    except KeyboardInterrupt:
        _cancel_and_wait(client, stream, job_id)
        raise
    if end.error:  # known without asking again: the daemon may be gone by now
        raise end.error.error()
    return cast(R, client.job(job_id).result)


def _show_progress(events: Iterable[Event], job_id: str, quiet: bool) -> JobChange:
    """Show what happens to a job; return what the event of its end says."""
    session = None
    if not quiet and sys.stderr.isatty():
        say("running; Ctrl-C cancels", err=True)
    for event in events:
        session = session or event.session
        if event.session != session:
            raise UnreachableError("focusd was restarted and has lost the job; ask again")
        if event.job_id != job_id:
            continue
        if isinstance(event, ProgressEvent) and not quiet:
            say("  " + pairs(event.data.model_dump()), err=True)
        if isinstance(event, JobEvent) and event.data.state not in ("queued", "running"):
            return event.data
    raise UnreachableError("the events have ended before the job")


def _cancel_and_wait(client: Client, stream: EventStream[Event], job_id: str) -> None:
    say("cancelling: the stage returns to a safe z", err=True)
    client.cancel(job_id)
    job = _show_progress(complete(client, stream), job_id, quiet=True)
    message = job.error.message if job.error else "it had ended before"
    say(f"job {job_id} {job.state}: {message}", err=True)


def news(events: Iterable[Event], write: Callable[[Event], object]) -> Iterator[Event]:
    """Write all events; pass those on that tell a person something, of the state only what has changed."""
    state: dict[str, object] = {}
    for event in events:
        write(event)
        if isinstance(event, StateEvent):
            now = event.data.model_dump()
            changes = {
                name: value for name, value in now.items() if name not in state or state[name] != value
            }
            state, event = now, Event(**dict(event) | {"data": changes})
        if event.data and event.topic != "heartbeat":
            yield event


def patient(stream: EventStream[Event]) -> Iterator[Event]:
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
