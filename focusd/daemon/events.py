"""The one list of everything that happens: numbered, dated events, kept for those who missed some."""

from __future__ import annotations

import copy
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NotRequired, TypedDict

from focusd.protocol.messages import encode

Payload = dict[str, Any]


class Event(TypedDict):
    """One event as subscribers and clients see it.

    `seq` counts over all topics from 1 in each `session` (one run of the daemon); `time` is the wall
    clock, ISO 8601 in UTC; `monotonic_s` measures intervals; `job_id` is None outside jobs.
    """

    session: str
    seq: int
    time: str
    monotonic_s: float
    job_id: str | None
    topic: str
    data: Payload
    retold: NotRequired[bool]
    """The state, told to new subscribers: it has the number of the event before it, and is not on record."""


Subscriber = Callable[[Event], None]


class EventBus:
    """Numbers events, hands them to the subscribers and remembers the latest. For the event loop's thread."""

    def __init__(self, capacity: int = 10_000) -> None:
        self.session = secrets.token_hex(8)
        self._seq = 0
        self._ring: deque[bytes] = deque(maxlen=capacity)
        """The latest events as JSON: they are encoded once, not whenever somebody asks for them."""
        self._subscribers: list[Subscriber] = []

    def publish(self, topic: str, payload: Payload, job_id: str | None = None) -> Event:
        """Number an event, remember it and tell the subscribers before returning."""
        self._seq += 1
        event = self.unnumbered(topic, payload, job_id)
        self._ring.append(encode(event))
        for subscriber in tuple(self._subscribers):
            subscriber(event)
        return event

    def unnumbered(self, topic: str, payload: Payload, job_id: str | None = None) -> Event:
        """What is so after the last event, as an event with its number that is neither remembered nor told."""
        return Event(
            session=self.session,
            seq=self._seq,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            monotonic_s=time.perf_counter(),
            job_id=job_id,
            topic=topic,
            # What was true at this moment stays so, whatever the publisher does with its payload.
            data=copy.deepcopy(payload),
        )

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        """Call `subscriber` with each event published inside the `with`."""
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    def since(self, seq: int, limit: int) -> list[bytes]:
        """The remembered events after number `seq` as JSON, oldest first, at most `limit`."""
        skip = max(0, seq - self._forgotten)
        return list(islice(self._ring, skip, skip + limit))

    def remembers(self, seq: int) -> bool:
        """Whether all events after number `seq` are still in memory."""
        return seq >= self._forgotten

    @property
    def _forgotten(self) -> int:
        """Number of the last event that is no longer in memory."""
        return self._seq - len(self._ring)
