"""Clients of a running focusd. They need pydantic and pyzmq, and neither NumPy, torch nor Micro-Manager."""

from focusd.client.client import AsyncClient, Client
from focusd.client.streams import AsyncEventStream, EventStream
from focusd.protocol.events import DriftEvent, Event, JobEvent, StateEvent
from focusd.protocol.keys import ClientKeys

__all__ = [
    "AsyncClient",
    "AsyncEventStream",
    "Client",
    "ClientKeys",
    "DriftEvent",
    "Event",
    "EventStream",
    "JobEvent",
    "StateEvent",
]
