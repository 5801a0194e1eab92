"""The door: connections that take more than is there for them are cut, and those that behave stay.

ZeroMQ bounds how long a part of a message is and how many messages wait, but neither how many parts a message has nor
how many connections there are. On Linux a thread looks at the process's memory and descriptors, and at what the kernel
counts of each connection; elsewhere nobody does. When a connection is cut, ZeroMQ frees all that it has left, and
an honest client connects anew by itself.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import structlog
import zmq

log = structlog.get_logger(__name__)

LOOK_S, SOON_S = 0.05, 0.005
"""Between two looks, and where memory has grown since the last; ZeroMQ takes in some 50 MB in the former."""
GROWN_BYTES = 16 << 20
ROOM_BYTES = 320 << 20
"""By which the process may grow before connections have to answer for it; what is admitted has room in it."""
TALKATIVE_BYTES = 4 << 10
"""More than an honest subscriber sends in days."""
STUCK_S = 0.5
"""After which subscribers who say too much have to answer for it that the others are not served."""
NEGLIGIBLE_BYTES = 64 << 10
"""What a connection may always leave unread, in either direction."""
SPARE_BYTES = 48 << 20
"""Of memory that was freed, what need not be given back to the system."""
TRIM_S, TRIM_MOST_S = 1.0, 5.0
"""How often memory is given back: at first, and where there is little to give."""
FOR_CLIENTS = 0.5
"""Of the descriptors; the others are for files and devices: a calibration can always be kept."""

TCP_INFO = getattr(socket, "TCP_INFO", 11)  # other systems have none, and never come to ask
_TCP_INFO = struct.Struct("=44xI4xI4x60xQQ8xI")
"""Of Linux' `struct tcp_info`: ms since data were sent and received, bytes acknowledged, received, not sent yet."""


@dataclass(frozen=True)
class Connection:
    """A client's connection, as the kernel counts it.

    Attributes:
        descriptor: of the socket.
        silent_ms: since anything was sent or received.
        acknowledged, received, unsent: bytes in all to the client, from it, and waiting for it.
    """

    descriptor: int
    silent_ms: int
    acknowledged: int
    received: int
    unsent: int


@dataclass(frozen=True)
class Line:
    """A client's connection, as one of its messages came over it.

    Attributes:
        descriptor: of its socket; None: it had gone already, or the system does not tell.
        inode: by which another connection with the same descriptor is told apart; None: not known.
    """

    descriptor: int | None
    inode: int | None

    @classmethod
    def of(cls, part: zmq.Frame) -> Line:
        """That of a message, of which this is a part."""
        try:
            descriptor = int(part.get(zmq.SRCFD))
        except zmq.ZMQError:
            return cls(None, None)
        return cls(descriptor, _inode(descriptor))

    @property
    def has_ended(self) -> bool:
        """Whether nobody is there to be answered, as far as that is known."""
        return self.inode is not None and _inode(self.descriptor) != self.inode


def _inode(descriptor: int | None) -> int | None:
    if descriptor is None or sys.platform == "win32":  # which numbers sockets apart from files
        return None
    try:
        return os.fstat(descriptor).st_ino
    except OSError:
        return None


class Door:
    """Watches the connections to some endpoints inside the `with`.

    Args:
        control, events: as ZeroMQ says that it is bound.
    """

    def __init__(self, control: str, events: str) -> None:
        self._control, self._events = _name(control), _name(events)
        self._names = {self._control, self._events}
        self._heard: set[int] = set()
        self._read: dict[int, int] = {}
        """Bytes received over a connection when a whole message of it had been read last."""
        self._before: dict[int, Connection] = {}
        self._usual_bytes = self._last_bytes = 0
        self._pause_s, self._trimmed_s = TRIM_S, 0.0
        self._trimming = threading.Lock()
        self._closing = threading.Event()
        self.turned_s = math.inf
        """When the thread that serves subscribers last had nothing to do, by `time.perf_counter()`."""

    def __enter__(self) -> Door:
        if sys.platform == "linux":
            self._usual_bytes = self._last_bytes = resident_bytes()
            threading.Thread(target=self._watch, name="focusd-door", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()

    def heard(self, line: Line) -> None:
        """A whole message of this connection has been read."""
        if line.descriptor is not None:
            self._heard.add(line.descriptor)

    def cut_subscriber(self, line: Line) -> None:
        """End the connection of a subscriber that has said too much."""
        self._cut_talkative(line, self._events, "it subscribes too often, or to what there is not")

    def cut_client(self, line: Line) -> None:
        """End the connection of a client that has sent a message of far too many parts."""
        self._cut_talkative(line, self._control, "it sends messages of too many parts")

    def _cut_talkative(self, line: Line, name: int | str, why: str) -> None:
        """End a connection, unless it has said little.

        What was said may be read after its connection has ended, and its descriptor may be somebody else's by then.
        """
        if line.descriptor is None:
            return
        counted = self._counted(line.descriptor)
        if sys.platform != "linux" or (counted and counted.received > TALKATIVE_BYTES):
            self._cut(line.descriptor, {name}, why)

    def _cut(self, descriptor: int, names: set[int | str], why: str) -> None:
        """End a connection, if it is one to an endpoint of these names."""
        with suppress(OSError):
            connection = socket.socket(fileno=descriptor)
            try:
                if _endpoint_of(connection) in names:
                    connection.shutdown(socket.SHUT_RDWR)
                    log.debug("a connection was cut", why=why)
            finally:
                connection.detach()

    def _watch(self) -> None:
        libc, pause_s = ctypes.CDLL(None), LOOK_S
        while not self._closing.wait(pause_s):
            try:
                pause_s = self._look(libc)
            except Exception:
                log.exception("a look at the connections failed")

    def _look(self, libc: Any) -> float:
        """Returns how long to wait for the next one, in seconds."""
        heard, self._heard = self._heard, set()
        for connection in filter(None, map(self._counted, heard)):
            self._read[connection.descriptor] = connection.received
        self._keep_descriptors()
        resident = resident_bytes()
        self._usual_bytes = min(self._usual_bytes, resident)
        stuck = time.perf_counter() > self.turned_s + STUCK_S
        if stuck or resident > self._usual_bytes + ROOM_BYTES:
            self._keep_memory()
        else:
            self._before = {}
        if resident > self._usual_bytes + SPARE_BYTES:
            self._give_back(libc)
        grown, self._last_bytes = resident - self._last_bytes, resident
        return SOON_S if grown > GROWN_BYTES else LOOK_S

    def _keep_descriptors(self) -> None:
        """Cut those that never asked anything, and then those silent for longest, where there are too many."""
        most = int(FOR_CLIENTS * _descriptor_limit())
        with suppress(OSError):  # without a descriptor left there are too many
            if len(os.listdir("/proc/self/fd")) <= most:
                return
        longest_silent = sorted(self._connections(), key=lambda one: (self._has_asked(one), -one.silent_ms))
        for connection in longest_silent[: max(0, len(longest_silent) - most // 2)]:
            self._cut(connection.descriptor, self._names, "there are too many, and it was silent")

    def _keep_memory(self) -> None:
        """Cut those that have sent the most that is not a whole message yet, and those that do not read."""
        now = {connection.descriptor: connection for connection in self._connections()}
        unread = {descriptor: self._unread_bytes(connection) for descriptor, connection in now.items()}
        left = sum(unread.values()) / 2
        for descriptor in sorted(unread, key=lambda descriptor: -unread[descriptor]):
            if left <= 0 or unread[descriptor] < NEGLIGIBLE_BYTES:
                break
            left -= unread[descriptor]
            self._cut(descriptor, self._names, f"it sent {unread[descriptor]} bytes without an end")
        for descriptor, connection in now.items():
            stuck = connection.unsent > NEGLIGIBLE_BYTES
            if stuck and connection.acknowledged == self._acknowledged_before(descriptor):
                self._cut(descriptor, self._names, "it does not read what it is sent")
        self._before = now

    def _has_asked(self, connection: Connection) -> bool:
        """Whether a message of this connection, not of one before it with its descriptor, was read."""
        return self._read.get(connection.descriptor, connection.received + 1) <= connection.received

    def _unread_bytes(self, connection: Connection) -> int:
        read = self._read.get(connection.descriptor, 0)
        return connection.received - (read if read <= connection.received else 0)

    def _acknowledged_before(self, descriptor: int) -> int | None:
        before = self._before.get(descriptor)
        return before.acknowledged if before else None

    def _give_back(self, libc: Any) -> None:
        """Give memory that was freed back to the system; ever more rarely while there is little."""
        is_due = time.perf_counter() >= self._trimmed_s + self._pause_s and hasattr(libc, "malloc_trim")
        if is_due and self._trimming.acquire(blocking=False):
            threading.Thread(target=self._trim, args=(libc,), name="focusd-trim", daemon=True).start()

    def _trim(self, libc: Any) -> None:
        """In a thread of its own: it may take a second, and the next connection may fill the memory meanwhile."""
        with ExitStack() as ending:
            ending.callback(self._trimming.release)
            before = resident_bytes()
            libc.malloc_trim(0)
            gave_back = before - resident_bytes() > SPARE_BYTES / 4
            self._pause_s = TRIM_S if gave_back else min(2 * self._pause_s, TRIM_MOST_S)
            self._trimmed_s = time.perf_counter()

    def _connections(self) -> Iterator[Connection]:
        """All that there are."""
        yield from filter(None, map(self._counted, _descriptors()))

    def _counted(self, descriptor: int) -> Connection | None:
        """A connection, if this is one of ours over TCP."""
        try:
            connection = socket.socket(fileno=descriptor)
        except OSError:
            return None
        try:
            if _endpoint_of(connection) not in self._names:
                return None
            told = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, 256)
            sent_ms, received_ms, *counted = _TCP_INFO.unpack_from(told)
            return Connection(descriptor, min(sent_ms, received_ms), *counted)
        except (OSError, struct.error):
            return None
        finally:
            connection.detach()


def _endpoint_of(connection: socket.socket) -> int | str:
    """What the kernel calls the endpoint that a client is connected to; raises OSError for a socket that listens."""
    connection.getpeername()
    name: tuple[str, int] | str = connection.getsockname()
    return name[1] if isinstance(name, tuple) else name


def _name(endpoint: str) -> int | str:
    """What the kernel calls an endpoint: a port, or the path of a file."""
    if endpoint.startswith("tcp://"):
        return int(endpoint.rsplit(":", 1)[1])
    return endpoint.removeprefix("ipc://")


def resident_bytes() -> int:
    """Memory that this process takes up."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


def _descriptors() -> Iterable[int]:
    """Those that are open, or, without another one left to list them by, all that may be."""
    try:
        return map(int, os.listdir("/proc/self/fd"))
    except OSError:
        return range(_descriptor_limit())


def _descriptor_limit() -> int:
    if sys.platform == "win32":
        return 1 << 16
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if 0 <= soft < 1 << 16 else 1 << 16
