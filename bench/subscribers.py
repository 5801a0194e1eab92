"""Clients of a daemon in a process of their own: `python -m bench.subscribers CONTROL EVENTS COUNT EVENTS_TOTAL`.

All subscribers but one read what they are sent, the last one never does; meanwhile one client asks for pings. Prints
`ready`, then, when all events have come, the seconds from publication to receipt and of each round trip, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import zmq

from focusd.client import Client
from focusd.protocol.messages import event_topic

TOPIC = "log"
SILENCE_MS = 10_000


def main(control: str, events: str, count: int, total: int) -> None:
    """Subscribe, measure, print."""
    context = zmq.Context()
    sockets = [_subscriber(context, events) for _ in range(count)]
    reading = sockets if count == 1 else sockets[:-1]
    trips: list[float] = []
    done = threading.Event()
    asking = threading.Thread(target=_ask, args=(control, trips, done))
    print("ready", flush=True)
    asking.start()
    latencies = _read(reading, total)
    done.set()
    asking.join()
    print(json.dumps({"event_s": latencies, "rpc_s": trips}), flush=True)
    context.destroy(linger=0)


def _subscriber(context: zmq.Context[Any], endpoint: str) -> zmq.Socket[Any]:
    """Subscribed for certain: the daemon tells a new subscriber the state."""
    socket: zmq.Socket[Any] = context.socket(zmq.SUB)
    socket.connect(endpoint)
    for topic in (TOPIC, "state"):
        socket.subscribe(event_topic(topic))
    if not socket.poll(SILENCE_MS):
        raise SystemExit(f"{endpoint} does not answer")
    return socket


def _read(sockets: list[zmq.Socket[Any]], total: int) -> list[float]:
    """Latency of each receipt, until every socket has had all events."""
    poller = zmq.Poller()
    for socket in sockets:
        poller.register(socket, zmq.POLLIN)
    latencies: list[float] = []
    while len(latencies) < total * len(sockets):
        ready = poller.poll(SILENCE_MS)
        if not ready:
            raise SystemExit(f"only {len(latencies)} of {total * len(sockets)} events came")
        for socket, _ in ready:
            topic, content = socket.recv_multipart()
            if topic == event_topic(TOPIC):
                latencies.append(time.perf_counter() - json.loads(content)["monotonic_s"])
    return latencies


def _ask(control: str, trips: list[float], done: threading.Event) -> None:
    with Client(control, name="bench") as client:
        while not done.wait(0.01):
            began_s = time.perf_counter()
            client.ping()
            trips.append(time.perf_counter() - began_s)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
