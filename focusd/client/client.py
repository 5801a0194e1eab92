"""Clients of a running focusd: `Client` blocks, `AsyncClient` awaits; they have the same methods.

Every request takes a socket of its own, so that nothing of one that timed out is left to be sent later, and
a client may be shared between threads or tasks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Self

import zmq

from focusd.client.exchange import Exchange
from focusd.client.requests import Requests
from focusd.client.streams import AsyncEventStream, EventStream, connect
from focusd.protocol.messages import JsonObject

__all__ = ["AsyncClient", "AsyncEventStream", "Client", "EventStream"]


class Client(Requests[JsonObject]):
    """A blocking client: `with Client() as focus: focus.refocus()`."""

    def _open_context(self) -> None:
        self._context = zmq.Context()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets."""
        self._context.destroy(linger=0)

    def events(self, *topics: str, silence_s: float | None = None) -> EventStream:
        """Subscribe to topics, or to all; entering the stream waits until the subscription is in place."""
        return EventStream(self._context, self.events_endpoint, topics, silence_s, self.keys)

    def _call(
        self, method: str, params: JsonObject, timeout_s: float, pixels: Sequence[bytes] = ()
    ) -> JsonObject:
        exchange = Exchange(self.endpoint, method, params, timeout_s, pixels=pixels)
        with self._context.socket(zmq.DEALER) as socket:
            connect(socket, self.endpoint, self.keys)
            while exchange.result is None:
                for message in exchange.to_send():
                    socket.send_multipart(message)
                if socket.poll(exchange.listen_ms):
                    exchange.receive(socket.recv_multipart())
                else:
                    exchange.silence()
        return exchange.result


class AsyncClient(Requests[Awaitable[JsonObject]]):
    """A client for asyncio: `async with AsyncClient() as focus: await focus.refocus()`."""

    def _open_context(self) -> None:
        import zmq.asyncio  # brings asyncio: only for those who await

        self._context = zmq.asyncio.Context()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all sockets."""
        self._context.destroy(linger=0)

    def events(self, *topics: str, silence_s: float | None = None) -> AsyncEventStream:
        """Subscribe to topics, or to all; entering the stream waits until the subscription is in place."""
        return AsyncEventStream(self._context, self.events_endpoint, topics, silence_s, self.keys)

    async def _call(
        self, method: str, params: JsonObject, timeout_s: float, pixels: Sequence[bytes] = ()
    ) -> JsonObject:
        exchange = Exchange(self.endpoint, method, params, timeout_s, pixels=pixels)
        with self._context.socket(zmq.DEALER) as socket:
            connect(socket, self.endpoint, self.keys)
            while exchange.result is None:
                for message in exchange.to_send():
                    await socket.send_multipart(message)
                if await socket.poll(exchange.listen_ms):
                    exchange.receive(await socket.recv_multipart())
                else:
                    exchange.silence()
        return exchange.result
