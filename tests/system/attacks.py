"""What hostile clients may do to a running daemon, in a process of their own: `python -m tests.system.attacks NAME …`.

Some speak ZMTP over plain sockets, where libzmq's own sockets are too polite.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Any

import zmq

MB = 1 << 20
Attack = Callable[[str, str, float], None]


def request(method: str, params: Any = None, number: object = 1) -> bytes:
    """A request's JSON."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}).encode()


def until(seconds: float) -> Iterator[int]:
    """Counts until the time is up."""
    end_s = time.perf_counter() + seconds
    for number in count():
        if time.perf_counter() > end_s:
            return
        yield number


@contextmanager
def connected(endpoint: str, kind: int = zmq.DEALER) -> Iterator[zmq.Socket[bytes]]:
    """A polite socket, whose queues are short."""
    with zmq.Context() as context, context.socket(kind) as raw:
        raw.linger = 0
        raw.sndhwm = 4
        raw.connect(endpoint)
        yield raw


def shaken_hands(endpoint: str, kind: bytes) -> socket.socket:
    """A plain connection on which ZMTP's greetings are done."""
    host, port = endpoint.removeprefix("tcp://").split(":")
    raw = socket.create_connection((host, int(port)))
    raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
    return raw


def hurled(
    endpoint: str, kind: bytes, seconds: float, content: Callable[[], bytes], lead: bytes = b""
) -> None:
    """Send content over and over again, on a new connection whenever one is cut."""
    for _ in until(seconds):
        with suppress(OSError), shaken_hands(endpoint, kind) as raw:
            raw.settimeout(1.0)
            raw.sendall(lead)
            for _ in until(seconds):
                raw.sendall(content())
        time.sleep(0.01)


def flood(
    endpoint: str, seconds: float, frames: Callable[[int], list[bytes]], per_s: float, reads: bool = True
) -> None:
    """Messages at a steady rate."""
    with connected(endpoint) as raw:
        began_s = time.perf_counter()
        for number in until(seconds):
            with suppress(zmq.Again):
                raw.send_multipart([b"", *frames(number)], zmq.NOBLOCK)
            while raw.poll(0):
                raw.recv_multipart()
            time.sleep(max(0.0, began_s + number / per_s - time.perf_counter()))


def many_parts(control: str, _events: str, seconds: float) -> None:
    """One message of parts of 32 MB, without an end."""
    part = bytes(32 * MB)
    hurled(control, b"DEALER", seconds, lambda: b"\x03" + len(part).to_bytes(8, "big") + part)


def tiny_parts(control: str, _events: str, seconds: float) -> None:
    """One message of empty parts without an end, each of which costs its receiver 64 bytes and its sender two."""
    content = b"\x01\x00" * MB
    hurled(control, b"DEALER", seconds, lambda: content)


def many_senders(control: str, _events: str, seconds: float) -> None:
    """A hundred connections, each with a few MB of a message without an end."""
    content = b"\x01\x00" * (4 * MB)
    with ExitStack() as open_ones:
        for _ in until(seconds):
            with suppress(OSError):
                raw = open_ones.enter_context(shaken_hands(control, b"DEALER"))
                raw.settimeout(1.0)
                raw.sendall(content)


def big_scores(control: str, _events: str, seconds: float) -> None:
    """Frames of 4 MB to be scored, far faster than they can be."""
    pixels = bytes(4 * MB)
    params = {"frames": [{"dtype": "uint8", "shape": [2048, 2048]}]}
    flood(control, seconds, lambda n: [request("focus.score", params, n), pixels], 190)


def unread_replies(control: str, _events: str, seconds: float) -> None:
    """Five clients that ask for the largest answers with the longest ids, and read none."""
    method = request("events.since", {"seq": 0, "limit": 10_000}, "x" * 250)
    long_id = request("system.ping", {}, "x" * 100_000)
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(connected(control)) for _ in range(5)]
        for client in clients:
            client.rcvhwm = 1
        for number in until(seconds):
            for client in clients:
                with suppress(zmq.Again):
                    client.send_multipart([b"", long_id if number % 2 else method], zmq.NOBLOCK)
            time.sleep(1 / 190)


def many_subscriptions(_control: str, events: str, seconds: float) -> None:
    """Subscriptions to what there is not, as fast as they go."""

    def content() -> bytes:
        return b"".join(b"\x00\x21\x01" + os.urandom(32) for _ in range(2000))

    hurled(events, b"SUB", seconds, content)


def same_subscriptions(_control: str, events: str, seconds: float) -> None:
    """Subscribing and unsubscribing as fast as it goes."""
    content = b"\x00\x0a\x01focusd/1/\x00\x0a\x00focusd/1/" * 5000
    hurled(events, b"SUB", seconds, lambda: content)


def long_prefixes(_control: str, events: str, seconds: float) -> None:
    """Subscriptions to prefixes of 30 MB."""
    size = 30 * MB
    hurled(
        events, b"SUB", seconds, lambda: b"\x02" + size.to_bytes(8, "big") + b"\x01" + os.urandom(size - 1)
    )


def anew(_control: str, events: str, seconds: float) -> None:
    """Subscribe to the state anew, 400 times a second."""
    with connected(events, zmq.SUB) as raw:
        for _ in until(seconds):
            raw.subscribe(b"focusd/1/state")
            time.sleep(1 / 800)
            raw.unsubscribe(b"focusd/1/state")
            time.sleep(1 / 800)


def idle_connections(control: str, events: str, seconds: float) -> None:
    """As many connections as this process may have, half of them with greetings done, none of which says more."""
    idle: list[socket.socket] = []
    for number in until(seconds):
        with suppress(OSError):
            idle.append(shaken_hands(control if number % 2 else events, b"DEALER" if number % 2 else b"SUB"))
    time.sleep(1.0)


def map_flood(control: str, _events: str, seconds: float) -> None:
    """Contradictory positions, each followed by predictions."""
    import random

    rng = random.Random(1)

    def frames(number: int) -> list[bytes]:
        place = {"x_um": rng.uniform(-2e4, 2e4), "y_um": rng.uniform(-2e4, 2e4)}
        if number % 3 == 0:
            return [request("map.add", place | {"z_um": rng.uniform(-100, 100), "sigma_um": 0.05}, number)]
        return [request("map.predict", {"positions": [list(place.values())] * 100}, number)]

    flood(control, seconds, frames, 190)


def discoveries(control: str, _events: str, seconds: float) -> None:
    """The protocol's document, over and over."""
    flood(control, seconds, lambda n: [request("rpc.discover", {}, n)], 190)


def long_requests(control: str, _events: str, seconds: float) -> None:
    """Requests of a megabyte."""
    params = {"planes_um": [0.123456789] * 80_000}
    body = request("focus.calibrate", params)
    flood(control, seconds, lambda _n: [body], 190)


def wide_requests(control: str, _events: str, seconds: float) -> None:
    """Requests of many params that do not exist."""
    body = request("focus.run", {f"{n:x}": n for n in range(10_000)})
    flood(control, seconds, lambda _n: [body], 190)


def wrong_values(control: str, _events: str, seconds: float) -> None:
    """Requests of as many wrong values as one may hold."""
    tags = request("focus.hold", {"tags": {f"{n:x}": [] for n in range(2000)}})
    places = request("map.predict", {"positions": [["a", "b"]] * 1000})
    flood(control, seconds, lambda number: [tags if number % 2 else places], 190)


def parts_of_strangers(control: str, _events: str, seconds: float) -> None:
    """Messages of 50,000 parts, each over a connection of its own."""
    content = b"\x01\x00" * 50_000 + b"\x00\x00"
    with ExitStack() as open_ones:
        for _ in until(seconds):
            with suppress(OSError):
                open_ones.enter_context(shaken_hands(control, b"DEALER")).sendall(content)
            time.sleep(0.2)


def histories(control: str, _events: str, seconds: float) -> None:
    """All that is remembered, over and over."""
    flood(control, seconds, lambda n: [request("events.since", {"seq": 0, "limit": 10_000}, n)], 190)


def waiting_requests(control: str, _events: str, seconds: float) -> None:
    """Requests that wait for the end of one and the same job."""
    params = {"wait": True, "request_key": "00000000-0000", "max_exposures": 100}
    flood(control, seconds, lambda n: [request("focus.run", params, n)], 190)


def failing_jobs(control: str, _events: str, seconds: float) -> None:
    """Jobs that end at once, each with events that are kept."""
    flood(control, seconds, lambda n: [request("stage.move", {"z_um": 1e6}, n)], 190)


def leases(control: str, _events: str, seconds: float) -> None:
    """A lease taken and let run out, over and over."""
    flood(control, seconds, lambda n: [request("lease.acquire", {"seconds": 1e-3, "client": str(n)}, n)], 190)


def strangers(control: str, _events: str, seconds: float) -> None:
    """A new connection for each request."""
    with zmq.Context() as context:
        for number in until(seconds):
            with context.socket(zmq.DEALER) as raw:
                raw.linger = 0
                raw.connect(control)
                raw.send_multipart([b"", request("state.get", {}, number)])
                raw.poll(100)


def many_clients(control: str, _events: str, seconds: float) -> None:
    """Thirty connections with 190 requests a second each."""
    with ExitStack() as open_ones:
        clients = [open_ones.enter_context(connected(control)) for _ in range(30)]
        for _ in until(seconds):
            for client in clients:
                with suppress(zmq.Again):
                    client.send_multipart([b"", request("state.get")], zmq.NOBLOCK)
                while client.poll(0):
                    client.recv_multipart()
            time.sleep(1 / 190)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        many_parts,
        tiny_parts,
        many_senders,
        big_scores,
        unread_replies,
        many_subscriptions,
        same_subscriptions,
        long_prefixes,
        anew,
        idle_connections,
        map_flood,
        discoveries,
        long_requests,
        wide_requests,
        wrong_values,
        parts_of_strangers,
        histories,
        waiting_requests,
        failing_jobs,
        leases,
        strangers,
        many_clients,
    )
}

if __name__ == "__main__":
    name, control, events, seconds = sys.argv[1:]
    ATTACKS[name](control, events, float(seconds))
