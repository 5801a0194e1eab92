"""How long status takes while a hardware call hangs: the daemon and who asks are processes of their own."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import zmq

from bench.faults.fuzz import PING
from bench.faults.kills import answers, living
from bench.faults.service import config_of
from focusd.client import Client
from focusd.config import RigConfig
from focusd.demo.rigs import free_ports

STATUS = PING.replace(b"system.ping", b"state.get")
PAUSE_S = 0.002
HANG_S = 120.0
RANKS = {"median": 0.5, "p99": 0.99, "max": 1.0}


def live_with_a_camera_that_hangs(config: RigConfig) -> None:
    """The life of a daemon whose first exposure never ends."""
    from bench.faults.kills import live
    from focusd.microscope.micromanager import MicroManagerMicroscope

    with patch.object(MicroManagerMicroscope, "snap", lambda _self: time.sleep(HANG_S)):
        live(config)


def _echo(endpoint: str) -> None:
    """A process that sends back what it is sent: what this machine takes for that, focusd aside."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        while True:
            router.send_multipart(router.recv_multipart())


def run_status(folder: Path, asks: int) -> dict[str, Any]:
    """Ask as often while the camera hangs and its deadline is far, an echo in turn.

    Returns: median, 99th percentile and maximum of both in ms, and whether the call hung all the time.
    """
    config = config_of(folder, stage={"timeout_s": HANG_S})
    (port,) = free_ports(1)
    echo = f"tcp://127.0.0.1:{port}"
    with (
        living(config, live_with_a_camera_that_hangs),
        living(echo, _echo),
        Client(config.server.control) as client,
    ):
        assert answers(client), "the daemon did not start"
        client.calibrate(wait=False)
        took_ms, state = _asked((config.server.control, echo), asks)
    figures = [{name: float(np.quantile(each, rank)) for name, rank in RANKS.items()} for each in took_ms]
    hung = state["job"] is not None and state["fault"] is None
    return {"asks": asks, "status_ms": figures[0], "echo_ms": figures[1], "hung": hung}


def _asked(endpoints: tuple[str, ...], asks: int) -> tuple[list[list[float]], dict[str, Any]]:
    """What each answer took, in ms, and the last one of the first."""
    took_ms: list[list[float]] = [[] for _ in endpoints]
    with zmq.Context() as context, ExitStack() as sockets:
        asking = [sockets.enter_context(context.socket(zmq.DEALER)) for _ in endpoints]
        for monitor, endpoint in zip(asking, endpoints, strict=True):
            monitor.linger = 0
            monitor.connect(endpoint)
        for _ in range(asks):
            replies = [_answer(monitor, times) for monitor, times in zip(asking, took_ms, strict=True)]
    return took_ms, json.loads(replies[0])["result"]


def _answer(monitor: zmq.Socket[bytes], times_ms: list[float]) -> bytes:
    began_s = time.perf_counter()
    monitor.send_multipart([b"", STATUS])
    reply = monitor.recv_multipart()[-1]
    times_ms.append(1000 * (time.perf_counter() - began_s))
    time.sleep(PAUSE_S)
    return reply
