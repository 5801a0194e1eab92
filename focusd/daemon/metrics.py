"""Figures for Prometheus: off unless a port is configured, and then for this machine alone.

They are counted where things happen (the rig, its driver), or heard from the event bus;
`configs/grafana-dashboard.json` shows them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from focusd import __version__
from focusd.config import MetricsConfig
from focusd.daemon.events import Event
from focusd.errors import FocusdError

HOST = "127.0.0.1"
MOST_SERVED = 64
"""Connections at once; more are closed unanswered."""
MOST_ASKED_BYTES = 1 << 14
ANSWER_S = 2.0
"""After which a connection is closed, whatever it has asked by then."""
FRESH_S = 0.5
NO_QUESTION = (anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError, anyio.EndOfStream)
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_MICROMETRES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

REGISTRY = CollectorRegistry()
STAGE_SECONDS = Histogram(
    "focusd_stage_seconds",
    "Time of a camera call, a stage call, a frame's spectra, its scores.",
    ["stage"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
EXPOSURES = Counter("focusd_exposures", "Exposures taken: the sample's dose.", registry=REGISTRY)
EXPOSURE_SECONDS = Counter("focusd_exposure_seconds", "Light on the sample, s.", registry=REGISTRY)
JOBS = Counter("focusd_jobs", "Jobs by kind and how they ended.", ["kind", "outcome"], registry=REGISTRY)
JOB_SECONDS = Histogram("focusd_job_seconds", "Time of a job.", ["kind"], buckets=_SECONDS, registry=REGISTRY)
SHIFT_UM = Histogram(
    "focusd_shift_um",
    "How far out of focus a refocus found the sample, µm.",
    buckets=_MICROMETRES,
    registry=REGISTRY,
)
SIGMA_UM = Histogram(
    "focusd_sigma_um",
    "Standard uncertainty that a refocus states, µm.",
    buckets=_MICROMETRES,
    registry=REGISTRY,
)
Z_UM = Gauge("focusd_z_um", "Where the stage stands, µm.", registry=REGISTRY)
FAULT = Gauge("focusd_fault", "1: the hardware is at fault and left alone.", registry=REGISTRY)
CALIBRATED = Gauge("focusd_calibrated", "1: the objective's calibration is usable.", registry=REGISTRY)
RUNNING = Gauge("focusd_job_running", "1: a job runs.", registry=REGISTRY)
BACKEND = Gauge("focusd_backend", "1: this one scores.", ["backend"], registry=REGISTRY)
QUEUE = Gauge(
    "focusd_queue_depth",
    "What waits: requests for their answers, clients' frames to be scored, events for subscribers and for the disk.",
    ["queue"],
    registry=REGISTRY,
)
HOLD = Gauge(
    "focusd_hold",
    "Of the last drift estimate: dz_um, sigma_um, velocity_um_per_min.",
    ["figure"],
    registry=REGISTRY,
)
LOCKED = Gauge("focusd_hold_locked", "1: the focus is held and locked.", registry=REGISTRY)
INFO = Info("focusd", "What runs.", registry=REGISTRY)


class MetricsError(FocusdError):
    """The figures cannot be served."""


class Bookkeeper:
    """Turns events into figures."""

    def __init__(self) -> None:
        self._began_s: dict[str | None, float] = {}

    def hear(self, event: Event) -> None:
        """A subscriber of the event bus."""
        match event["topic"]:
            case "job":
                self._job(event)
            case "state":
                _state(event)
            case "drift":
                _drift(event)
            case "focus.done" if event["data"].get("kind") == "refocus":
                _observe(SHIFT_UM, event["data"].get("shift_um"))
                _observe(SIGMA_UM, event["data"].get("sigma_um"))

    def _job(self, event: Event) -> None:
        job = event["data"]
        RUNNING.set(job["state"] == "running")
        if job["state"] == "running":
            self._began_s[event["job_id"]] = event["monotonic_s"]
            return
        outcome = job["error"]["data"]["outcome"] if "error" in job else job["state"]
        JOBS.labels(job["kind"], outcome).inc()
        began_s = self._began_s.pop(event["job_id"], event["monotonic_s"])
        JOB_SECONDS.labels(job["kind"]).observe(event["monotonic_s"] - began_s)


def _observe(histogram: Histogram, value_um: float | None) -> None:
    if value_um is not None:
        histogram.observe(abs(value_um))


def _state(event: Event) -> None:
    state = event["data"]
    if state.get("z_um") is not None:
        Z_UM.set(state["z_um"])
    FAULT.set(state.get("fault") is not None)
    CALIBRATED.set(bool((state.get("calibration") or {}).get("usable")))
    LOCKED.set((state.get("hold") or {}).get("state") == "locked")
    if backend := state.get("backend"):
        BACKEND.clear()
        BACKEND.labels(backend).set(1)


def _drift(event: Event) -> None:
    for figure in ("dz_um", "sigma_um", "velocity_um_per_min"):
        if (value := event["data"].get(figure)) is not None:
            HOLD.labels(figure).set(value)


class _Page:
    """Serves the figures over HTTP, in the event loop: no connection costs a thread, and few are served at once."""

    def __init__(self) -> None:
        self._being_served = 0
        self._text, self._written_s = b"", -math.inf

    async def answer(self, stream: SocketStream) -> None:
        """Answer one connection, and end it, whatever it has asked by then."""
        self._being_served += 1
        try:
            async with stream:
                if self._being_served <= MOST_SERVED:
                    with anyio.move_on_after(ANSWER_S), suppress(*NO_QUESTION):
                        asked = BufferedByteReceiveStream(stream)
                        head = await asked.receive_until(b"\r\n\r\n", MOST_ASKED_BYTES)
                        await stream.send(self._reply(head))
        finally:
            self._being_served -= 1

    def _reply(self, head: bytes) -> bytes:
        if head.split()[:2] != [b"GET", b"/metrics"]:
            return b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        text = self._figures()
        kind = f"HTTP/1.1 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\nConnection: close\r\n"
        return f"{kind}Content-Length: {len(text)}\r\n\r\n".encode() + text

    def _figures(self) -> bytes:
        """Written anew only if the last ones are old: they may be asked for in a flood."""
        if time.perf_counter() - self._written_s > FRESH_S:
            self._text, self._written_s = generate_latest(REGISTRY), time.perf_counter()
        return self._text


@asynccontextmanager
async def served(config: MetricsConfig, rig: str, model: str) -> AsyncIterator[None]:
    """Serve the figures at http://127.0.0.1:PORT/metrics inside the `async with`, if a port is configured.

    Raises:
        MetricsError: the port is taken.
    """
    INFO.info({"version": __version__, "rig": rig, "model": model})
    if config.port is None:
        yield
        return
    try:
        listener = await anyio.create_tcp_listener(local_host=HOST, local_port=config.port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise MetricsError(f"metrics.port {config.port}: {reason}; set another, or none") from error
    async with listener, anyio.create_task_group() as answering:
        answering.start_soon(listener.serve, _Page().answer)
        try:
            yield
        finally:
            answering.cancel_scope.cancel()
