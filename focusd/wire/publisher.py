"""The socket of events: what a subscriber is given is on record before."""

from __future__ import annotations

import anyio
import zmq
import zmq.asyncio

from focusd.service.events import Event, EventBus, Payload
from focusd.service.metrics import QUEUE
from focusd.service.record import Record, is_kept
from focusd.wire import messages


class Publisher:
    """Sends events in their order, each when it is on disk, as far as the disk takes it.

    It never waits for a subscriber: a slow one loses its own events.
    """

    def __init__(self, socket: zmq.asyncio.Socket, record: Record) -> None:
        self._socket = socket
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
        self.hear(bus.unnumbered(messages.STATE_TOPIC, state))

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
                self._socket.send_multipart(frames, zmq.NOBLOCK)
            del self._due[: len(due)]
