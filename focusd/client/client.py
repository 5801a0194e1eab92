"""Clients of a running focusd: `Client` blocks, `AsyncClient` awaits; they have the same methods.

Every request takes a socket of its own, so that nothing of one that timed out is left to be sent later, and
a client may be shared between threads or tasks.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self, TypeVar, overload

import zmq

from focusd.addresses import CONTROL, EVENTS
from focusd.client.calls import Calls
from focusd.client.driving import AsyncDrivenRun, DrivenRun
from focusd.client.exchange import Exchange
from focusd.client.streams import AsyncEventStream, EventStream, connect
from focusd.protocol.events import E, Event, topic_of
from focusd.protocol.keys import ClientKeys
from focusd.protocol.runs import Kind

R = TypeVar("R")


class _Connected(Calls):
    """What both clients are made with.

    Args:
        endpoint, events_endpoint: addresses of the daemon.
        name: who asks; shown to others while a job runs.
        keys: `ClientKeys.load(…)`, where the daemon answers known clients only.
    """

    def __init__(
        self,
        endpoint: str = CONTROL,
        events_endpoint: str = EVENTS,
        name: str = "python",
        keys: ClientKeys | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.events_endpoint = events_endpoint
        self.name = name
        self.keys = keys
        self._context = self._new_context()

    @abstractmethod
    def _new_context(self) -> zmq.Context[Any]: ...

    def close(self) -> None:
        """Close all sockets."""
        self._context.destroy(linger=0)


class Client(_Connected):
    """A blocking client: `with Client() as focus: focus.refocus()`."""

    def _new_context(self) -> zmq.Context[Any]:
        return zmq.Context()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @overload
    def events(self, *kinds: str, silence_s: float | None = None) -> EventStream[Event]: ...
    @overload
    def events(self, *kinds: type[E], silence_s: float | None = None) -> EventStream[E]: ...
    def events(self, *kinds: Any, silence_s: float | None = None) -> EventStream[Any]:
        """Subscribe to topics, given by name or by the model of their events, or to all of them.

        Entering the stream waits until the subscription is in place.

        Args:
            silence_s: iterating raises UnreachableError when nothing has come for so long; None: never.
        """
        return EventStream(self._context, self.events_endpoint, _topics(kinds), silence_s, self.keys)

    def ask(self, kind: Kind = "refocus", *, z_um: float, **options: Any) -> DrivenRun:
        """Begin a run with your own camera and stage: `for z_um in run: run.tell(snap(z_um))`.

        Args:
            kind: `refocus` or `calibrate`.
            z_um: where your stage stands, µm.
            options: as in `focusd.protocol.runs.AskParams`: `limits_um`, `rig`, and those of the kind.

        Raises:
            FocusdError: the run cannot begin.
        """
        return DrivenRun(self, self._ask(kind, z_um=z_um, **options))

    def _call(self, exchange: Exchange[R]) -> R:
        with self._context.socket(zmq.DEALER) as socket:
            connect(socket, self.endpoint, self.keys)
            while not exchange.results:
                for message in exchange.to_send():
                    socket.send_multipart(message)
                if socket.poll(exchange.listen_ms):
                    exchange.receive(socket.recv_multipart())
                else:
                    exchange.silence()
        return exchange.results[0]


class AsyncClient(_Connected):
    """A client for asyncio: `async with AsyncClient() as focus: await focus.refocus()`."""

    def _new_context(self) -> zmq.Context[Any]:
        import zmq.asyncio  # brings asyncio: only for those who await

        return zmq.asyncio.Context()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @overload
    def events(self, *kinds: str, silence_s: float | None = None) -> AsyncEventStream[Event]: ...
    @overload
    def events(self, *kinds: type[E], silence_s: float | None = None) -> AsyncEventStream[E]: ...
    def events(self, *kinds: Any, silence_s: float | None = None) -> AsyncEventStream[Any]:
        """As `Client.events`."""
        return AsyncEventStream(self._context, self.events_endpoint, _topics(kinds), silence_s, self.keys)

    async def ask(self, kind: Kind = "refocus", *, z_um: float, **options: Any) -> AsyncDrivenRun:
        """As `Client.ask`."""
        return AsyncDrivenRun(self, await self._ask(kind, z_um=z_um, **options))

    async def _call(self, exchange: Exchange[R]) -> R:
        with self._context.socket(zmq.DEALER) as socket:
            connect(socket, self.endpoint, self.keys)
            while not exchange.results:
                for message in exchange.to_send():
                    await socket.send_multipart(message)
                if await socket.poll(exchange.listen_ms):
                    exchange.receive(await socket.recv_multipart())
                else:
                    exchange.silence()
        return exchange.results[0]


def _topics(kinds: Sequence[Any]) -> list[str]:
    return [topic_of(kind) if isinstance(kind, type) else str(kind) for kind in kinds]
