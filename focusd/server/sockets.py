"""The daemon's two sockets: bound where they should be, to nobody else's address, with keys where it is told to."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from focusd.config import ServerConfig
from focusd.errors import FocusdError
from focusd.protocol import keys
from focusd.protocol.messages import MAX_FRAME_BYTES, MAX_SUBSCRIPTION_BYTES
from focusd.storage.files import lock

log = structlog.get_logger(__name__)

LOOP = {"loop_factory": asyncio.SelectorEventLoop}
"""For `anyio.run`: Windows' own event loop cannot wait for ZeroMQ's sockets; elsewhere this is the usual one."""
LINGER_MS = 100
"""How long a closing socket may take to hand the last reply over: replies are sent just before the end."""


HANDSHAKE_MS = 3000
"""A connection that has not said what it is by then is closed."""
UNREAD_REQUESTS, UNREAD_REPLIES = 16, 256
"""Messages of one client that ZeroMQ keeps, in each direction."""
UNREAD_SUBSCRIPTIONS = 2
"""XPUB reads all that waits at once: a flood of subscriptions is to wait outside. With 1, CURVE's handshakes hang."""
KEEPALIVE = {"tcp_keepalive": 1, "tcp_keepalive_idle": 30, "tcp_keepalive_intvl": 10, "tcp_keepalive_cnt": 3}
"""A client whose machine has gone is noticed after a minute."""


class EndpointError(FocusdError):
    """The server cannot listen where it should."""


@dataclass(frozen=True)
class Endpoints:
    """Where the server really listens: a configured port may be `*`."""

    control: str
    events: str


class AllowList:
    """ZeroMQ asks it for each new connection. It reads the folder anew: `focusctl keys allow` needs no restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def callback(self, _domain: str, key: bytes) -> bool:
        """Whether a client's key is listed."""
        known = key in keys.allowed(self._folder).values()
        if not known:
            log.info("a client whose key is not on the list was refused", key=key.decode("ascii", "replace"))
        return known


@dataclass(frozen=True)
class Sockets:
    """All sockets of a server.

    Attributes:
        control: ROUTER.
        events: XPUB, for a thread of its own, as `inbox` is.
        outbox, inbox: two ends of a PAIR.
        unserved: closes `events` and `inbox`, until it is emptied by the thread that closes them itself.
    """

    control: zmq.asyncio.Socket
    events: zmq.Socket[bytes]
    outbox: zmq.asyncio.Socket
    inbox: zmq.Socket[bytes]
    unserved: ExitStack


def open_sockets(config: ServerConfig, resources: ExitStack) -> tuple[Sockets, Endpoints]:
    """The sockets, bound, and where; they close with `resources`. Call it in the event loop.

    Raises:
        EndpointError: an address is taken by another focusd, or cannot be bound.
        KeyFileError: keys are asked for and cannot be used.
    """
    context = resources.enter_context(zmq.asyncio.Context())
    control = resources.enter_context(context.socket(zmq.ROUTER))
    outbox = resources.enter_context(context.socket(zmq.PAIR))
    plain = zmq.Context(context)  # the same one, for sockets that no event loop waits for
    unserved = resources.enter_context(ExitStack())
    events, inbox = (unserved.enter_context(plain.socket(kind)) for kind in (zmq.XPUB, zmq.PAIR))
    outbox.bind("inproc://events")
    inbox.connect("inproc://events")
    events.xpub_verbose = 1
    control.maxmsgsize, events.maxmsgsize = MAX_FRAME_BYTES, MAX_SUBSCRIPTION_BYTES
    control.rcvhwm, events.rcvhwm = UNREAD_REQUESTS, UNREAD_SUBSCRIPTIONS
    control.sndhwm = UNREAD_REPLIES
    for socket in (control, events):
        socket.linger = LINGER_MS
        socket.handshake_ivl = HANDSHAKE_MS
        for name, value in KEEPALIVE.items():
            setattr(socket, name, value)
    if config.keys is not None:
        _ask_for_keys(context, (control, events), config.keys, resources)
    endpoints = Endpoints(_bind(control, config.control, resources), _bind(events, config.events, resources))
    return Sockets(control, events, outbox, inbox, unserved), endpoints


def _ask_for_keys(
    context: zmq.asyncio.Context, sockets: tuple[zmq.Socket[Any], ...], folder: Path, resources: ExitStack
) -> None:
    """CURVE on both sockets, for the clients on the list alone."""
    pair = keys.load_pair(folder / f"{keys.DAEMON}.key_secret")
    if not keys.allowed(folder):
        raise keys.KeyFileError(
            f"{folder / keys.ALLOWED} lists no client, so that nobody could reach focusd: run "
            f"`focusctl keys allow CLIENT.key --folder {folder}`, or leave server.keys out and serve this machine only"
        )
    authenticator = AsyncioAuthenticator(context)
    authenticator.start()
    resources.callback(_stop, authenticator)
    authenticator.configure_curve_callback("*", AllowList(folder))
    for socket in sockets:
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = pair.public, pair.secret


def _stop(authenticator: AsyncioAuthenticator) -> None:
    """The event loop must no longer wait for its socket: one that is closed ends the loop on Windows."""
    asyncio.get_running_loop().remove_reader(authenticator.zap_socket.FD)
    authenticator.stop()


def _bind(socket: zmq.Socket[Any], endpoint: str, resources: ExitStack) -> str:
    """Listen on `endpoint`; return it as it came out."""
    socket.ipv6 = "[" in endpoint
    try:
        # ZeroMQ would silently take an ipc address over from a running daemon.
        if endpoint.startswith("ipc://") and not endpoint.startswith("ipc://@"):
            lock(Path(endpoint.removeprefix("ipc://") + ".lock"), resources)
        socket.bind(endpoint)
    except BlockingIOError as error:
        raise _taken(endpoint) from error
    except (OSError, zmq.ZMQError) as error:
        if error.errno == zmq.EADDRINUSE:
            raise _taken(endpoint) from error
        hint = "set another address under [server] in the configuration"
        raise EndpointError(f"cannot listen on {endpoint}: {error.strerror}; {hint}") from error
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def _taken(endpoint: str) -> EndpointError:
    return EndpointError(
        f"another focusd (or another program) is running on {endpoint}: "
        "stop it, or set another address under [server] in the configuration"
    )
