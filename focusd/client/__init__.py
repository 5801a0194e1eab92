"""Clients of a running focusd. They need pydantic and pyzmq, and neither NumPy, torch nor Micro-Manager."""

from focusd.client.client import AsyncClient, AsyncEventStream, Client, EventStream

__all__ = ["AsyncClient", "AsyncEventStream", "Client", "EventStream"]
