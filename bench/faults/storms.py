"""More attacks through the sockets, found when others had been withstood: each aims at what one request may cost."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any

import zmq

from bench.faults.besieged import PER_S, Siege, Target
from bench.faults.floods import Crowd, _connections, _frame, crowd, paced
from focusd.demo.rigs import free_ports
from focusd.protocol.messages import MAX_FRAME_BYTES, MAX_VALUES, request

Ask = Callable[[int], list[bytes]]

PARTS, PARTS_PER_S = 100_000, 10.0
GARBAGE_PER_S, MANY_CONNECTIONS = 200.0, 800
JUNK, JUNK_BYTES = 4, 900
LARGE_SENDERS, LARGE_PARTS = 8, 3
POSITIONS, PLANES = 1000, 1000
NEVER_READ = 50


def _flood(
    target: Target, asked: Ask, *, size: int = 5, per_s: float = PER_S, reads: bool = True
) -> dict[str, Any]:
    """Clients that ask, each as often as said."""
    with crowd(target, size, reads=reads) as clients:
        return _ask(target, clients, asked, per_s, reads=reads)


def _ask(target: Target, clients: Crowd, asked: Ask, per_s: float, *, reads: bool = True) -> dict[str, Any]:
    for number, _ in enumerate(paced(per_s * len(clients.sockets), target.seconds)):
        clients.ask(number, *asked(number))
        if reads:
            clients.read()
    return clients.told() if reads else {"sent": clients.sent}


def wrong_values(target: Target) -> dict[str, Any]:
    """Requests of as many wrong values as one may hold, in turn in each place where there may be many."""
    few, many = {f"{n:x}": n for n in range(60)}, MAX_VALUES // 2 - 10
    wrong = [
        request("focus.hold", {"tags": {f"{n:x}": [] for n in range(many)}}, 1),
        request("focus.score", {"frames": [few] * (many // 60)}, 1),
        request("map.predict", {"positions": [["a", "b"]] * (many // 2)}, 1),
        request("focus.calibrate", {"planes_um": ["a"] * many}, 1),
        json.dumps({f"{n:x}": n for n in range(many)}).encode(),
        request("focus.calibrate", {}, 1).replace(
            b"{}", b'{"planes_um":[%s]}' % b",".join([b"9" * 4200] * 55)
        ),
    ]
    return _flood(target, lambda number: [wrong[number % len(wrong)]])


def parts_from_strangers(target: Target) -> dict[str, Any]:
    """Messages of 100,000 parts, each over a connection of its own."""
    content = b"\1\0" * PARTS + b"\0\0"
    sent = 0
    with ExitStack() as opened:
        for _ in paced(PARTS_PER_S, target.seconds):
            with suppress(OSError):
                opened.enter_context(_shaken(target.config.server.control, b"DEALER")).sendall(content)
                sent += 1
    return {"sent": sent}


def cancels(target: Target) -> dict[str, Any]:
    """Five clients that cancel a job that there is not, ten times as often as other requests are allowed."""
    return _flood(
        target, lambda number: [request("job.cancel", {"job_id": "none"}, number)], per_s=10 * PER_S
    )


def calibration_lists(target: Target) -> dict[str, Any]:
    """Five clients that ask for all calibrations."""
    return _flood(target, lambda number: [request("calibrations.list", {}, number)])


def whole_maps(target: Target) -> dict[str, Any]:
    """A map of 1,000 positions, that five clients ask for."""
    with crowd(target, 5) as clients:
        for number, _ in enumerate(paced(PER_S * 4, POSITIONS / PER_S / 4)):
            place = {"x_um": 500.0 * (number % 32), "y_um": 500.0 * (number // 32)}
            clients.ask(number, request("map.add", place | {"z_um": 0.001 * number, "sigma_um": 0.1}, number))
            clients.read()
        return _ask(target, clients, lambda number: [request("map.get", {}, number)], PER_S)


def old_histories(target: Target) -> dict[str, Any]:
    """Five clients that ask for the events of a session that nobody knows, all of which are on disk."""
    asked = {"seq": 0, "session": "unknown", "limit": 10_000}
    return _flood(target, lambda number: [request("events.since", asked, number)])


def failing_jobs(target: Target) -> dict[str, Any]:
    """Five clients whose jobs end at once, each with a key of its own."""

    def asked(number: int) -> list[bytes]:
        return [request("stage.move", {"z_um": 1e6, "request_key": secrets.token_hex(16)}, number)]

    return _flood(target, asked)


def leases(target: Target) -> dict[str, Any]:
    """Five clients that take the lease for a moment, over and over."""
    return _flood(
        target, lambda number: [request("lease.acquire", {"seconds": 1e-3, "client": str(number)}, number)]
    )


def holds(target: Target) -> dict[str, Any]:
    """Five clients that hold the focus and release it, over and over."""
    return _flood(
        target, lambda number: [request("focus.release" if number % 2 else "focus.hold", {}, number)]
    )


def garbage(target: Target) -> dict[str, Any]:
    """Connections that speak HTTP or nothing known, 200 a second."""
    ports = _ports(target)
    for number, _ in enumerate(paced(GARBAGE_PER_S, target.seconds)):
        with suppress(OSError), socket.create_connection(("127.0.0.1", ports[number % 2]), timeout=1) as one:
            one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" if number % 3 else os.urandom(4096))
    return {}


def unread_metrics(target: Target) -> dict[str, Any]:
    """Metrics that are asked for and not read, on 200 connections, over and over."""
    port = target.config.metrics.port
    assert port is not None
    until_s = time.perf_counter() + target.seconds
    opened = 0
    while time.perf_counter() < until_s:
        with _connections(200, [port], b"GET /metrics HTTP/1.1\r\n\r\n") as taken:
            opened += taken
            time.sleep(0.5)
    return {"opened": opened}


def junk_subscriptions(target: Target) -> dict[str, Any]:
    """800 connections, each with a few long subscriptions to what there is not."""
    with ExitStack() as opened:
        for _ in paced(MANY_CONNECTIONS / target.seconds * 2, target.seconds / 2):
            with suppress(OSError):
                one = opened.enter_context(_shaken(target.config.server.events, b"SUB"))
                one.sendall(b"".join(_frame(b"\1" + secrets.token_bytes(JUNK_BYTES)) for _ in range(JUNK)))
        time.sleep(target.seconds / 2)
    return {}


def unread_pages(target: Target) -> dict[str, Any]:
    """Fifty clients that ask for all events, and read none."""
    asked = request("events.since", {"seq": 0, "limit": 10_000}, 1)
    return _flood(target, lambda _number: [asked], size=NEVER_READ, per_s=20.0, reads=False)


def unread_maps(target: Target) -> dict[str, Any]:
    """Fifty clients that ask for predictions at 1,000 places, and read none."""
    positions = [[float(n), float(n)] for n in range(POSITIONS)]
    asked = request("map.predict", {"positions": positions}, 1)
    return _flood(target, lambda _number: [asked], size=NEVER_READ, per_s=20.0, reads=False)


def large_messages(target: Target) -> dict[str, Any]:
    """Eight clients that send the longest messages which are allowed, over and over."""
    part = bytes(MAX_FRAME_BYTES)
    frames = [{"dtype": "uint8", "shape": [8192, 4096]}] * LARGE_PARTS
    asked = request("focus.score", {"frames": frames}, 1)
    return _flood(target, lambda _number: [asked, *[part] * LARGE_PARTS], size=LARGE_SENDERS, per_s=2.0)


def half_messages(target: Target) -> dict[str, Any]:
    """800 connections, each with a part of 400 KB of a message without an end."""
    content = b"\3" + (4 * 102_400).to_bytes(8, "big") + bytes(4 * 102_400)
    with ExitStack() as opened:
        for _ in paced(MANY_CONNECTIONS / target.seconds * 2, target.seconds / 2):
            with suppress(OSError):
                one = opened.enter_context(_shaken(target.config.server.control, b"DEALER"))
                one.settimeout(0.5)
                one.sendall(content)
        time.sleep(target.seconds / 2)
    return {}


def remembered_planes(target: Target) -> dict[str, Any]:
    """Calibrations of 1,000 planes that end at once, and are remembered."""
    planes = [1e5 + n + secrets.randbelow(1000) / 1000 for n in range(PLANES)]
    return _flood(target, lambda number: [request("focus.calibrate", {"planes_um": planes}, number)])


def deaf_subscribers(target: Target) -> dict[str, Any]:
    """300 subscribers to everything that read nothing, while jobs end all the time."""
    with ExitStack() as opened:
        for _ in range(300):
            with suppress(OSError):
                one = opened.enter_context(_shaken(target.config.server.events, b"SUB"))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.sendall(_frame(b"\1focusd/1/"))
        return failing_jobs(target)


def long_names(target: Target) -> dict[str, Any]:
    """Connections with names of 255 bytes, 300 at once, that ask and stay."""
    with zmq.Context() as context, ExitStack() as opened:
        context.max_sockets = 4096
        for _, number in zip(paced(100, target.seconds), count(), strict=False):
            one = opened.enter_context(context.socket(zmq.DEALER))
            one.linger, one.routing_id = 0, b"x" + secrets.token_bytes(254)
            one.connect(target.config.server.control)
            one.send_multipart([b"", request("state.get", {}, number)])
    return {}


def _ports(target: Target) -> list[int]:
    server = target.config.server
    return [int(endpoint.rsplit(":", 1)[1]) for endpoint in (server.control, server.events)]


@contextmanager
def _shaken(endpoint: str, kind: bytes) -> Iterator[socket.socket]:
    """A plain connection on which ZMTP's greetings have been sent."""
    with socket.create_connection(("127.0.0.1", int(endpoint.rsplit(":", 1)[1])), timeout=2) as one:
        ready = b"\5READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
        greeting = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)
        one.sendall(greeting + b"\4" + bytes([len(ready)]) + ready)
        yield one


def storms() -> list[Siege]:
    """All of them."""
    (port,) = free_ports(1)
    return [
        Siege("requests of 2,000 wrong values, 5 clients at 190/s", wrong_values),
        Siege("100,000 parts over a new connection, 10 a second", parts_from_strangers),
        Siege("job.cancel, 5 clients at 1,900/s", cancels),
        Siege("calibrations.list, 5 clients at 190/s", calibration_lists),
        Siege("map.get of 1,000 positions, 5 clients at 190/s", whole_maps),
        Siege("events.since from disk, 5 clients at 190/s", old_histories),
        Siege("jobs that fail at once, 5 clients at 190/s", failing_jobs, is_alone=True),
        Siege("leases of a moment, 5 clients at 190/s", leases, is_alone=True),
        Siege("holds engaged and released, 5 clients at 190/s", holds, is_alone=True),
        Siege("HTTP and noise over 200 connections a second", garbage),
        Siege("metrics that nobody reads", unread_metrics, {"metrics": {"port": port}}),
        Siege("800 subscribers to what there is not", junk_subscriptions),
        Siege("pages of events that 50 clients do not read", unread_pages),
        Siege("predictions that 50 clients do not read", unread_maps),
        Siege("messages of 96 MB from 8 clients", large_messages),
        Siege("800 connections with 400 KB of a message each", half_messages),
        Siege("calibrations of 1,000 planes that fail at once", remembered_planes, is_alone=True),
        Siege("300 subscribers that read nothing", deaf_subscribers, is_alone=True),
        Siege("connections with long names", long_names),
    ]
