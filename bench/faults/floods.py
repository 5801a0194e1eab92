"""The attacks through the sockets: what any program on this machine can send."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import zmq

from bench.faults.besieged import (
    PER_S,
    UNANSWERED_S,
    Siege,
    Target,
    events_on_record,
    outcome_of,
    threads_of,
)
from focusd.client import Client
from focusd.demo.rigs import free_ports
from focusd.errors import FocusdError
from focusd.protocol.messages import MAX_FRAME_BYTES, event_topic, request

POSITIONS, PREDICTING = 300, 30
PARTS = 80
SCORED_SHAPE = (2048, 1024)
"""Of 16 bit: 4 MB."""
UNREAD, LONG_ID = 5, 1_000_000
SUBSCRIPTIONS, PREFIXES, PREFIX_BYTES = 200_000, 20, 30_000_000
SPREAD_S = 5.0
"""So long the last subscriptions may be on their way."""
CHURN_PER_S = 400.0
RECORDED_PER_S = 5.0
"""More of what is recorded would erase everybody's history."""
HALF_SENT, IDLE, USUAL_DESCRIPTORS = 494, 1100, 1024
THREADS = 64
"""Connections may cost so many, not one each."""
IDLE_CORES = 0.3


def paced(per_s: float, seconds: float) -> Iterator[float]:
    """The seconds so far, as often as said; it catches up where the taker is slow."""
    began_s = time.perf_counter()
    for number in range(int(per_s * seconds)):
        if (ahead_s := began_s + number / per_s - time.perf_counter()) > 0:
            time.sleep(ahead_s)
        yield time.perf_counter() - began_s


class Crowd:
    """Raw clients of one daemon, and the outcomes that they were answered."""

    def __init__(self, sockets: list[zmq.Socket[bytes]]) -> None:
        self.sockets = sockets
        self.sent = 0
        self.outcomes: Counter[str] = Counter()

    def ask(self, number: int, *parts: Any) -> None:
        """One request of one client; lost where the daemon takes no more."""
        with suppress(zmq.Again):
            self.sockets[number % len(self.sockets)].send_multipart([b"", *parts], zmq.NOBLOCK, copy=False)
            self.sent += 1

    def read(self, wait_ms: int = 0) -> None:
        """Take the answers that have come."""
        for client in self.sockets:
            while client.poll(wait_ms):
                self.outcomes[outcome_of(client.recv_multipart()[-1])] += 1
                wait_ms = 0

    @property
    def unanswered(self) -> int:
        """Requests without an answer so far."""
        return self.sent - self.outcomes.total()

    def wait(self, patience_s: float = UNANSWERED_S) -> None:
        """Read until all has been answered, or the patience ends."""
        until_s = time.perf_counter() + patience_s
        while self.unanswered and time.perf_counter() < until_s:
            self.read()
            time.sleep(0.01)

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {"sent": self.sent, "answers": dict(self.outcomes), "attack_unanswered": self.unanswered}


@contextmanager
def crowd(target: Target, size: int, *, reads: bool = True) -> Iterator[Crowd]:
    """So many raw clients, gone without a word at the end."""
    with zmq.Context() as context, ExitStack() as sockets:
        clients = []
        for _ in range(size):
            client = sockets.enter_context(context.socket(zmq.DEALER))
            client.linger = 0
            if not reads:
                client.rcvhwm, client.rcvbuf = 1, 4096
            client.connect(target.config.server.control)
            clients.append(client)
        yield Crowd(clients)


def calm(target: Target) -> dict[str, Any]:
    """Nothing: what the other rows are to be compared with."""
    time.sleep(target.seconds)
    return {}


def map_flood(target: Target) -> dict[str, Any]:
    """300 positions that contradict one another, then predictions from 30 clients, positions measured anew in
    between."""
    random = Random(1)
    places = [_place_um(random) for _ in range(POSITIONS)]
    with crowd(target, PREDICTING + 1) as clients:
        for place, _ in zip(places, paced(PER_S, 2 * POSITIONS / PER_S), strict=False):
            clients.ask(PREDICTING, _add(random, place))
            clients.read()
        for number in range(2 * PREDICTING):
            clients.ask(number % PREDICTING, _predict(random))
        for number, _ in enumerate(paced(2 * PREDICTING, target.seconds)):
            clients.ask(
                number % PREDICTING,
                _add(random, random.choice(places)) if number % 12 == 0 else _predict(random),
            )
            clients.read()
        clients.wait()
    failed = [f"{clients.unanswered} of the map's requests unanswered"] if clients.unanswered else []
    return clients.told() | {"failed": failed}


def _add(random: Random, place_um: tuple[float, float]) -> bytes:
    """A focus that no smooth surface reconciles with the others."""
    x_um, y_um = place_um
    focus = {"z_um": random.uniform(-1000, 1000), "sigma_um": 0.1}
    return request("map.add", {"x_um": x_um, "y_um": y_um, **focus}, 1)


def _predict(random: Random) -> bytes:
    return request("map.predict", {"positions": [_place_um(random) for _ in range(10)]}, 1)


def _place_um(random: Random) -> tuple[float, float]:
    return random.uniform(-100_000, 100_000), random.uniform(-100_000, 100_000)


def many_parts(target: Target) -> dict[str, Any]:
    """Messages of 80 parts, each as long as is allowed."""
    part = bytes(MAX_FRAME_BYTES)
    until_s = time.perf_counter() + target.seconds
    sent = 0
    while time.perf_counter() < until_s:
        with crowd(target, 1) as clients:
            clients.ask(0, request("system.ping", {}, 1), *[part] * PARTS)
            clients.wait(max(0.0, until_s - time.perf_counter()))
            sent += clients.sent
    return {"sent": sent}


def many_small_parts(target: Target) -> dict[str, Any]:
    """Messages of 50,000 parts."""
    with crowd(target, 2) as clients:
        for number, _ in enumerate(paced(2, target.seconds)):
            clients.ask(number, request("system.ping", {}, 1), *[b"x"] * 50_000)
            clients.read()
    return clients.told()


def large_scores(target: Target) -> dict[str, Any]:
    """Frames of 4 MB to be scored, faster than anything can score them; the sender leaves without reading."""
    return _score(target, 1, SCORED_SHAPE)


def small_scores(target: Target) -> dict[str, Any]:
    """Small frames from five clients."""
    return _score(target, 5, (256, 256))


def _score(target: Target, size: int, shape: tuple[int, int]) -> dict[str, Any]:
    frame = os.urandom(2 * shape[0] * shape[1])
    asked = request("focus.score", {"frames": [{"dtype": "uint16", "shape": list(shape)}]}, 1)
    with crowd(target, size) as clients:
        for number, _ in enumerate(paced(PER_S * size, target.seconds)):
            clients.ask(number, asked, frame)
            clients.read()
    return clients.told()


def unread_replies(target: Target) -> dict[str, Any]:
    """Clients that ask with ids of 1 MB and never read an answer."""
    asked = request("system.ping", {}, "x" * LONG_ID)
    with crowd(target, UNREAD, reads=False) as clients:
        for number, _ in enumerate(paced(PER_S, target.seconds)):
            clients.ask(number, asked)
    return {"sent": clients.sent}


def many_subscriptions(target: Target) -> dict[str, Any]:
    """One subscriber of 200,000 topics."""
    topics = (b"focusd/1/%d/%s" % (number, secrets.token_hex(48).encode()) for number in count())
    return _subscribe(target, topics, SUBSCRIPTIONS)


def long_subscriptions(target: Target) -> dict[str, Any]:
    """One subscriber of 20 topics whose names are 30 MB long."""
    return _subscribe(target, (secrets.token_bytes(PREFIX_BYTES) for _ in count()), PREFIXES)


def _subscribe(target: Target, topics: Iterator[bytes], total: int) -> dict[str, Any]:
    """A subscriber that speaks ZMTP itself: ZeroMQ would need as much memory here as it takes there."""
    sent, until_s = 0, time.perf_counter() + target.seconds
    with suppress(OSError), _raw_subscriber(target) as subscriber:
        for topic, _ in zip(topics, paced(total / target.seconds, target.seconds), strict=False):
            subscriber.settimeout(max(0.01, until_s - time.perf_counter()))
            subscriber.sendall(_frame(b"\1" + topic))
            sent += 1
        time.sleep(SPREAD_S)
    return {"sent": sent}


@contextmanager
def _raw_subscriber(target: Target) -> Iterator[socket.socket]:
    port = int(target.config.server.events.rsplit(":", 1)[1])
    greeting = b"\xff" + bytes(8) + b"\x7f\3\0" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\5READY\x0bSocket-Type" + (3).to_bytes(4, "big") + b"SUB"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as subscriber:
        subscriber.sendall(greeting)
        subscriber.recv(64, socket.MSG_WAITALL)
        subscriber.sendall(b"\4" + bytes([len(ready)]) + ready)
        subscriber.recv(4096)
        yield subscriber


def _frame(body: bytes) -> bytes:
    """A message of one part."""
    return b"\2" + len(body).to_bytes(8, "big") + body if len(body) > 255 else bytes([0, len(body)]) + body


def subscription_churn(target: Target) -> dict[str, Any]:
    """A subscriber that comes and goes 400 times a second."""
    before, began_s = events_on_record(target.config), time.perf_counter()
    with zmq.Context() as context, context.socket(zmq.SUB) as events:
        events.linger, events.sndhwm = 0, 0
        events.connect(target.config.server.events)
        for number, _ in enumerate(paced(CHURN_PER_S, target.seconds)):
            (events.unsubscribe if number % 2 else events.subscribe)(event_topic("state"))
            while events.poll(0):
                events.recv_multipart()
    time.sleep(1)
    per_s = (events_on_record(target.config) - before) / (time.perf_counter() - began_s)
    failed = [f"{per_s:.0f} events a second recorded"] if per_s > RECORDED_PER_S else []
    return {"recorded_per_s": per_s, "failed": failed}


def discover_flood(target: Target) -> dict[str, Any]:
    """Five clients that ask for the description of the protocol as often as they may."""
    return _ask(target, "rpc.discover", {})


def since_flood(target: Target) -> dict[str, Any]:
    """Five clients that ask for all remembered events as often as they may."""
    return _ask(target, "events.since", {"seq": 0})


def state_flood(target: Target) -> dict[str, Any]:
    """Five clients that ask for the state as often as they may."""
    return _ask(target, "state.get", {})


def _ask(target: Target, method: str, params: dict[str, Any]) -> dict[str, Any]:
    asked = request(method, params, 1)
    with crowd(target, 5) as clients:
        for number, _ in enumerate(paced(5 * PER_S, target.seconds)):
            clients.ask(number, asked)
            clients.read()
    return clients.told()


def half_sent_gets(target: Target) -> dict[str, Any]:
    """Half a GET on each of 494 connections to the metrics."""
    port = target.config.metrics.port
    assert port is not None
    before = threads_of(target.pid)
    with _connections(HALF_SENT, [port], b"GET /metr") as opened:
        time.sleep(target.seconds)
        threads = threads_of(target.pid) - before
        is_answered = _answers_a_get(port)
    failed = [f"{threads} threads more"] if threads > THREADS else []
    failed += [] if is_answered else ["the metrics do not answer"]
    return {"opened": opened, "threads_more": threads, "failed": failed}


def _answers_a_get(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return b"focusd" in answer.read()
    return False


def idle_connections(target: Target) -> dict[str, Any]:
    """1,100 connections that say nothing, to a daemon that was given 1,024 descriptors."""
    config = target.config
    ports = [int(endpoint.rsplit(":", 1)[1]) for endpoint in (config.server.control, config.server.events)]
    with _connections(IDLE, ports, b"") as opened:
        cores = _cores(target.pid, target.seconds)
        failed = [f"{cores:.1f} cores while idle"] if cores > IDLE_CORES else []
        failed += _works(target)
    return {"opened": opened, "idle_cores": cores, "failed": failed}


def _works(target: Target) -> list[str]:
    """What a client that comes now cannot do."""
    failed = []
    with Client(target.config.server.control, target.config.server.events, "late") as client:
        for name, ask in (
            ("ping", client.ping),
            ("calibrate", client.calibrate),
            ("refocus", client.refocus),
        ):
            try:
                ask()
            except FocusdError as error:
                failed.append(f"{name}: {error.message}")
    return failed


def _cores(pid: int, seconds: float) -> float:
    """How many cores a process keeps busy."""
    began = _cpu_s(pid)
    time.sleep(seconds)
    return (_cpu_s(pid) - began) / seconds


def _cpu_s(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


@contextmanager
def _connections(total: int, ports: list[int], say: bytes) -> Iterator[int]:
    """Open connections to the ports in turn, as many as are taken."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * total + 1000), hard))
    with ExitStack() as opened:
        taken = 0
        for number in range(total):
            with suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", ports[number % len(ports)]), timeout=1)
                opened.enter_context(connection).sendall(say)
                taken += 1
        yield taken


def connection_churn(target: Target) -> dict[str, Any]:
    """Clients that come, ask once and go, 100 a second."""
    asked, numbers = request("state.get", {}, 1), count()
    for _ in paced(100, target.seconds):
        with crowd(target, 1) as clients:
            clients.ask(next(numbers), asked)
    return {}


def sieges() -> list[Siege]:
    """All of them."""
    (port,) = free_ports(1)
    return [
        Siege("calm", calm),
        Siege("map: 300 contradictory positions, 30 clients predict", map_flood),
        Siege("message of 80 parts of 32 MB", many_parts),
        Siege("messages of 50,000 parts", many_small_parts),
        Siege("focus.score of 4 MB at 190/s", large_scores),
        Siege("focus.score of small frames, 5 clients at 190/s", small_scores),
        Siege("replies of 1 MB that nobody reads", unread_replies),
        Siege("200,000 subscriptions", many_subscriptions),
        Siege("subscriptions of 30 MB", long_subscriptions),
        Siege("subscribing anew 400 times a second", subscription_churn, is_alone=True),
        Siege("rpc.discover, 5 clients at 190/s", discover_flood),
        Siege("events.since, 5 clients at 190/s", since_flood),
        Siege("state.get, 5 clients at 190/s", state_flood),
        Siege("100 connections a second", connection_churn),
        Siege("metrics: 494 half-sent GETs", half_sent_gets, {"metrics": {"port": port}}),
        Siege("1,100 idle connections", idle_connections, is_alone=True, descriptors=USUAL_DESCRIPTORS),
    ]
