"""Connections to a running focusd, and subscriptions to its events: one that blocks, one that awaits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Generic, Self, cast

import zmq

from focusd.addresses import CONTROL
from focusd.client.exchange import Inbox
from focusd.errors import RequestError
from focusd.protocol.events import E
from focusd.protocol.keys import ClientKeys

SUBSCRIBED_S = 5.0
"""A subscription is in place within this time, or there is no daemon."""


class _Stream(Generic[E]):
    """What both kinds of stream hold.

    Args:
        context: of asyncio for an `AsyncEventStream`.
        silence_s: after which iterating raises; None: never.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        endpoint: str,
        topics: Sequence[str],
        silence_s: float | None,
        keys: ClientKeys | None,
    ) -> None:
        self._endpoint = endpoint
        self._inbox = Inbox(endpoint, topics)
        self._keys = keys
        self._silence_s = silence_s
        self._socket = context.socket(zmq.SUB)

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()


class EventStream(_Stream[E]):
    """A subscription, complete from the moment `with` is entered: `with client.events() as events: for …`.

    Raises, while iterating:
        UnreachableError: nothing came for `silence_s`; iterating may go on.
    """

    def __enter__(self) -> Self:
        try:
            _subscribe(self._socket, self._endpoint, self._inbox.subscriptions, self._keys)
            while not self._inbox.subscribed:
                self._receive(SUBSCRIBED_S)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[E]:
        return self

    def __next__(self) -> E:
        while not self._inbox.waiting:
            self._receive(self._silence_s)
        return cast(E, self._inbox.waiting.popleft())

    def _receive(self, silence_s: float | None) -> None:
        if not self._socket.poll(_poll_ms(silence_s)):
            raise self._inbox.silence(silence_s or 0.0)
        self._inbox.receive(self._socket.recv_multipart())


class AsyncEventStream(_Stream[E]):
    """`EventStream` for `async with` and `async for`."""

    async def __aenter__(self) -> Self:
        try:
            _subscribe(self._socket, self._endpoint, self._inbox.subscriptions, self._keys)
            while not self._inbox.subscribed:
                await self._receive(SUBSCRIBED_S)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[E]:
        return self

    async def __anext__(self) -> E:
        while not self._inbox.waiting:
            await self._receive(self._silence_s)
        return cast(E, self._inbox.waiting.popleft())

    async def _receive(self, silence_s: float | None) -> None:
        if not await self._socket.poll(_poll_ms(silence_s)):
            raise self._inbox.silence(silence_s or 0.0)
        self._inbox.receive(await self._socket.recv_multipart())


def connect(socket: zmq.Socket[Any], endpoint: str, keys: ClientKeys | None) -> None:
    """Connect a client's socket.

    Raises:
        RequestError: there is no such address.
    """
    socket.linger = 0
    if keys is not None:
        socket.curve_publickey, socket.curve_secretkey = keys.own.public, keys.own.secret
        socket.curve_serverkey = keys.daemon
    socket.ipv6 = "[" in endpoint
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise RequestError(f"{endpoint!r} is no address: it looks like {CONTROL}") from error


def _subscribe(
    socket: zmq.Socket[Any], endpoint: str, subscriptions: Sequence[bytes], keys: ClientKeys | None
) -> None:
    connect(socket, endpoint, keys)
    for subscription in subscriptions:
        socket.subscribe(subscription)


def _poll_ms(seconds: float | None) -> int:
    return -1 if seconds is None else round(1000 * seconds)
