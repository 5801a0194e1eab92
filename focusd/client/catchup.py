"""A subscription made whole: what it has missed is fetched with `events.since`, over restarts of the daemon too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from focusd.client.client import Client
from focusd.errors import FocusdError
from focusd.protocol.events import Event

PAGE = 2000
"""Events asked for at once."""


def complete(client: Client, events: Iterable[Event], last: Event | None = None) -> Iterator[Event]:
    """The events with those filled in that were missed, as far as the daemon remembers or has them on record.

    Args:
        last: the event after which to begin; None: the first to come.
    """
    for event in events:
        if last and (event.session != last.session or event.seq > last.seq + 1):
            yield from _between(client, last, event)
        if not last or event.session != last.session or event.seq > last.seq:
            last = event
            yield event


def _between(client: Client, last: Event, event: Event) -> Iterator[Event]:
    """The events between two, page by page; none where the daemon cannot tell, and the gap in `seq` stays."""
    page: Sequence[Event] = [last]
    while page:
        last = page[-1]
        try:
            page = client.since(last.seq, limit=PAGE, session=last.session).events
        except FocusdError:
            return
        for earlier in page:
            if earlier.session == event.session and earlier.seq >= event.seq:
                return
            yield earlier
