"""Throwing away the rest of a message of very many parts, before which no other message can be read.

pyzmq lets go of Python's lock for each part. Where other threads compute, getting it back takes 15 µs a part, so that a
message of 50,000 parts keeps everybody waiting for a second. Without letting go it takes 40 ms.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat, takewhile
from operator import attrgetter

import zmq

_MESSAGE_BYTES = 64
"""Of libzmq's `zmq_msg_t`."""


def drain(socket: zmq.Socket[bytes]) -> None:
    """Read the parts of a message that are left, and keep none. At least one must be left."""
    if _in_libzmq is None:
        _in_python(socket)
    else:
        _in_libzmq(socket)


def _in_python(socket: zmq.Socket[bytes]) -> None:
    parts = map(socket.recv, repeat(zmq.NOBLOCK), repeat(False))
    deque(takewhile(attrgetter("more"), parts), maxlen=0)


def _drainer() -> Callable[[zmq.Socket[bytes]], None] | None:
    """Drains by libzmq's own functions; None: they cannot be reached, as where libraries do not show what they link."""
    try:
        library = ctypes.PyDLL(sys.modules["zmq.backend.cython._zmq"].__file__)
        init, receive, more = library.zmq_msg_init, library.zmq_msg_recv, library.zmq_msg_more
    except (KeyError, OSError, AttributeError):
        return None
    init.argtypes = more.argtypes = [ctypes.c_void_p]
    receive.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]

    def drain_it(socket: zmq.Socket[bytes]) -> None:
        part = ctypes.create_string_buffer(_MESSAGE_BYTES)
        place, from_socket = ctypes.c_void_p(ctypes.addressof(part)), ctypes.c_void_p(socket.underlying)
        init(place)
        received = iter(partial(receive, place, from_socket, int(zmq.NOBLOCK)), -1)
        next(received, None)
        deque(zip(iter(partial(more, place), 0), received, strict=False), maxlen=0)

    return drain_it


_in_libzmq = _drainer()
