"""Who asks, and what: messages as they come in, with the connection over which they came."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import anyio
import zmq
import zmq.asyncio

from focusd.protocol.messages import MAX_JSON_BYTES, Part
from focusd.server.door import Line
from focusd.server.drain import drain

MOST_PARTS = 128
"""Of a message that are kept to be looked at and answered; a message of more costs the connection."""


@dataclass(frozen=True)
class Caller:
    """A client that has sent a message.

    Attributes:
        name: by which it counts as one: a key, where keys are asked for, else a connection.
        line: over which the message came.
    """

    name: bytes | str
    line: Line

    @classmethod
    def of(cls, parts: list[zmq.Frame]) -> Caller:
        """Who has sent these parts, the first of which is ROUTER's."""
        try:
            name: bytes | str = str(parts[-1]["User-Id"])
        except zmq.ZMQError:
            name = parts[0].bytes
        return cls(name, Line.of(parts[-1]))


class Inbox:
    """The messages of a ROUTER.

    Args:
        control: nobody else reads it.
    """

    def __init__(self, control: zmq.asyncio.Socket) -> None:
        self._control = control
        self._rest: zmq.Socket[bytes] = zmq.Socket.shadow(control)

    async def message(self) -> list[zmq.Frame]:
        """The parts of the next message, all that there are unless the last has `more`."""
        parts = [await self._control.recv(copy=False)]
        while parts[-1].more and len(parts) < MOST_PARTS:
            parts.append(self._rest.recv(zmq.NOBLOCK, copy=False))
        if parts[-1].more:
            drain(self._rest)
        return parts


def content_of(part: zmq.Frame) -> Part:
    """A frame's content, copied out of ZeroMQ's memory unless it is long."""
    return part.bytes if len(part) <= MAX_JSON_BYTES else part.buffer


class Turns:
    """A turn for each client, so that what it asks for waits for one another, and those of others come in between."""

    def __init__(self) -> None:
        self._of_each: WeakValueDictionary[Hashable, anyio.Lock] = WeakValueDictionary()

    def of(self, client: Hashable) -> anyio.Lock:
        """The turn of a client; forgotten when nobody has it or waits for it."""
        return self._of_each.setdefault(client, anyio.Lock())
