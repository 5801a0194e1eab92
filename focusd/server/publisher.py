"""The socket of events: what a subscriber is given is on record before."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import anyio
import zmq
import zmq.asyncio

from focusd.daemon.events import Event, EventBus, Payload
from focusd.daemon.metrics import QUEUE
from focusd.daemon.record import Record, is_kept
from focusd.protocol import messages
from focusd.server.door import Door, Line
from focusd.server.ratelimit import RateLimit
from focusd.server.sockets import Sockets

SUBSCRIPTIONS_PER_S = 50.0
"""Of one subscriber, and as many at once; one to what there is not counts tenfold. More cost the connection."""
TURN_MS = 100
WAKE = b""
"""What wakes the thread at the end; where too much waits for it to take it, it wakes by itself."""
END_S = 1.0


class Publisher:
    """Sends events in their order, each when it is on disk, as far as the disk takes it.

    It never waits for a subscriber: a slow one loses its own events.

    Args:
        outbox: to the thread of `serving_subscribers`.
    """

    def __init__(self, outbox: zmq.asyncio.Socket, record: Record) -> None:
        self._outbox = outbox
        self._record = record
        self._due: list[Event] = []
        QUEUE.labels("events").set_function(lambda: len(self._due))
        self._added = anyio.Event()
        self._turn = anyio.Lock()

    def hear(self, event: Event) -> None:
        """A subscriber of the event bus, after the record."""
        self._due.append(event)
        self._added.set()

    def greet(self, state: Payload, bus: EventBus) -> None:
        """Tell new subscribers the state as it is after the last event, which nobody has missed and nobody records."""
        self.hear(Event(**bus.unnumbered(messages.STATE_TOPIC, state), retold=True))

    async def run(self) -> None:
        """Send what is heard."""
        while True:
            await self._added.wait()
            self._added = anyio.Event()
            await self.flush()

    async def flush(self) -> None:
        """Send what has been heard so far."""
        async with self._turn:
            due = tuple(self._due)
            if any(map(is_kept, due)):
                await self._record.flushed()
            for event in due:
                frames = [messages.event_topic(event["topic"]), messages.encode(event)]
                _told(self._outbox.send_multipart(frames, zmq.NOBLOCK))
            del self._due[: len(due)]


@contextmanager
def serving_subscribers(sockets: Sockets, door: Door, greet: Callable[[], object]) -> Iterator[None]:
    """Let a thread own the socket of events inside the `with`.

    ZeroMQ reads all subscriptions that wait at once, for as long as more come: whoever subscribes in a flood keeps this
    thread busy, and neither the event loop nor Python.

    Args:
        door: cuts those that subscribe too much.
        greet: called when somebody has subscribed to the state.
    """
    ending = threading.Event()
    thread = threading.Thread(
        target=_serve, args=(sockets, door, greet, ending), name="focusd-subscribers", daemon=True
    )
    thread.start()
    sockets.unserved.pop_all()
    try:
        yield
    finally:
        ending.set()
        _told(sockets.outbox.send(WAKE, zmq.NOBLOCK))
        thread.join(END_S)


def _serve(sockets: Sockets, door: Door, greet: Callable[[], object], ending: threading.Event) -> None:
    """Send what comes in, hear who subscribes, until the end, and then what has come in before.

    The sockets are this thread's alone, which closes them. Whoever ends the context without waiting ends this thread.
    """
    events, inbox = sockets.events, sockets.inbox
    poller, limit = zmq.Poller(), RateLimit(SUBSCRIPTIONS_PER_S)
    for socket in (inbox, events):
        poller.register(socket, zmq.POLLIN)
    with events, inbox, suppress(zmq.ContextTerminated):
        while True:
            door.turned_s = time.perf_counter()
            is_last = ending.is_set()
            ready = dict(poller.poll(0 if is_last else TURN_MS))
            if inbox in ready:
                event = inbox.recv_multipart()
                if event != [WAKE]:
                    events.send_multipart(event)
            elif is_last:
                return
            if events in ready and _subscribes(events, door, limit):
                greet()


def _subscribes(events: zmq.Socket[bytes], door: Door, limit: RateLimit) -> bool:
    """Take what a subscriber has sent; whether it asks for the state from now on."""
    try:
        first, *others = events.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return False
    kind, prefix = first.bytes[:1], first.bytes[1:]
    sense = not others and kind in (b"\0", b"\1") and messages.is_subscription(prefix)
    subscriber = Line.of(first)
    if not limit.allows(subscriber, 1 if sense else 10):
        door.cut_subscriber(subscriber)
        return False
    return sense and kind == b"\1" and messages.event_topic(messages.STATE_TOPIC).startswith(prefix)


def _told(sent: Awaitable[object]) -> None:
    """What could not be sent at once is lost to subscribers, who see a gap in the numbers."""
    if isinstance(sent, asyncio.Future) and sent.done():
        sent.exception()
