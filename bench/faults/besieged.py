"""A daemon under attack: a process of its own, watched by a client in another one while a third one attacks.

What is promised: `state.get` answers everybody else within 50 ms in 99 of 100 cases, memory stays below 1 GB and comes
back, refocuses go on, and no hardware is blamed.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from bench.faults.fuzz import PING
from bench.faults.kills import answers, live, living
from bench.faults.service import config_of
from bench.faults.status import PAUSE_S, _echo
from focusd.client import Client
from focusd.config import RigConfig
from focusd.demo.rigs import free_ports
from focusd.errors import FocusdError

STATE_P99_MS, RSS_MB, RSS_LEFT_MB = 50.0, 1000.0, 100.0
"""What is promised."""
CEILING_MB = 3000.0
"""A daemon that takes so much is killed, to spare this machine."""
UNANSWERED_S = 20.0
"""A request without an answer for so long counts as never answered."""
COMES_BACK_S = 20.0
"""So long after an attack memory may take to come back."""
PER_S = 190.0
"""Requests of one client that stays just below what it is allowed."""
STATUS = PING.replace(b"system.ping", b"state.get")


@dataclass(frozen=True)
class Target:
    """What an attacker knows.

    Attributes:
        pid: of the daemon.
        seconds: how long to attack.
    """

    config: RigConfig
    pid: int
    seconds: float


@dataclass(frozen=True)
class Siege:
    """One attack.

    Attributes:
        run: attacks until it returns; what it returns is noted, and every entry of its "failed" is a broken promise.
        sections: of the configuration.
        is_alone: the attack does its own refocuses.
        descriptors: that the daemon may have open, unless it asks for more; None: as this process.
    """

    name: str
    run: Callable[[Target], dict[str, Any]]
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_alone: bool = False
    descriptors: int | None = None


def besiege(siege: Siege, folder: Path, seconds: float) -> dict[str, Any]:
    """Attack a daemon of its own; returns what was seen, and whether all promises were kept."""
    sections = {"server": {"max_requests_per_s": 200.0}, "stage": {"timeout_s": 10.0}} | siege.sections
    config = config_of(folder, **sections)
    (port,) = free_ports(1)
    echo = f"tcp://127.0.0.1:{port}"
    with (
        living((config, siege.descriptors), live_within) as daemon,
        living(echo, _echo),
        Client(config.server.control, config.server.events, "bench") as client,
    ):
        assert daemon.pid is not None
        if not answers(client):
            return {"name": siege.name, "ok": False, "failed": ["the daemon did not start"]}
        client.calibrate()
        before_mb, guard = _forget_peak(daemon.pid), Guard(daemon.pid)
        guard.start()
        with ExitStack() as processes:
            watching = processes.enter_context(_beside(watch, config.server.control, echo))
            refocusing = None
            if not siege.is_alone:
                refocusing = processes.enter_context(
                    _beside(refocus, config.server.control, config.server.events)
                )
            time.sleep(0.5)
            attacking = processes.enter_context(_beside(siege.run, Target(config, daemon.pid, seconds)))
            more = _end(attacking, {"failed": ["the attack did not end"]}, patience_s=10 * seconds + 60)
            seen = _end(watching, {})
            refocuses = _end(refocusing, {}) if refocusing else {}
        after_mb = _settled_mb(daemon.pid, before_mb)
        seen |= guard.end() | {"rss_before_mb": before_mb, "rss_after_mb": after_mb}
        seen |= {"refocuses": refocuses, "fault": _fault(client), "alive": daemon.is_alive()}
    failed = list(more.pop("failed", [])) + broken(seen, is_alone=siege.is_alone)
    return {"name": siege.name, "ok": not failed, **seen, **more, "failed": failed}


def broken(seen: dict[str, Any], *, is_alone: bool = False) -> list[str]:
    """The promises that were not kept, in words."""
    refused = {name: count for name, count in seen["refocuses"].items() if name != "focused"}
    promises = {
        f"state.get took {seen.get('state_p99_ms', np.inf):.0f} ms": seen.get("state_p99_ms", np.inf)
        <= STATE_P99_MS,
        f"{seen.get('unanswered')} state.get unanswered": seen.get("unanswered") == 0,
        f"{seen['rss_peak_mb']:.0f} MB at the peak": seen["rss_peak_mb"] <= RSS_MB,
        f"{seen['rss_after_mb'] - seen['rss_before_mb']:.0f} MB did not come back": (
            seen["rss_after_mb"] <= seen["rss_before_mb"] + RSS_LEFT_MB
        ),
        f"fault: {seen['fault']}": seen["fault"] is None,
        f"refocuses: {refused or 'none ended'}": is_alone or (bool(seen["refocuses"]) and not refused),
        "the daemon has ended": seen["alive"],
    }
    return [words for words, kept in promises.items() if not kept]


def live_within(given: tuple[RigConfig, int | None]) -> None:
    """The life of a daemon that was started with so many descriptors."""
    import resource

    config, descriptors = given
    if descriptors is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
    live(config)


@contextmanager
def _beside(life: Callable[..., dict[str, Any]], *given: Any) -> Iterator[Connection]:
    """A process that does something until it is told to end, and sends what it has seen."""
    here, there = Pipe()
    with here, living((life, given, there), _reporting):
        there.close()
        yield here


def _reporting(given: tuple[Callable[..., dict[str, Any]], tuple[Any, ...], Connection]) -> None:
    life, arguments, pipe = given
    pipe.send(life(*arguments, pipe) if life in (watch, refocus) else life(*arguments))


def _end(
    pipe: Connection, otherwise: dict[str, Any], patience_s: float = 2 * UNANSWERED_S + 60
) -> dict[str, Any]:
    """What the other process tells once it is told to end."""
    with suppress(OSError, EOFError):
        pipe.send("end")
        if pipe.poll(patience_s):
            told: dict[str, Any] = pipe.recv()
            return told
    return otherwise


class Guard(threading.Thread):
    """Looks at a process's memory and threads, and kills it before it takes this machine's memory.

    Attributes:
        peak_mb, threads: the most that was seen.
        has_killed: whether it had to.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._done = pid, threading.Event()
        self.peak_mb, self.threads, self.has_killed = 0.0, 0, False

    def run(self) -> None:
        """Look until told to end."""
        while not self._done.wait(0.05):
            self.peak_mb = max(self.peak_mb, memory_mb(self._pid, "VmHWM"))
            self.threads = max(self.threads, threads_of(self._pid))
            if self.peak_mb > CEILING_MB and not self.has_killed:
                os.kill(self._pid, signal.SIGKILL)
                self.has_killed = True

    def end(self) -> dict[str, Any]:
        """What was seen."""
        self._done.set()
        self.join()
        return {"threads_peak": self.threads, "rss_peak_mb": self.peak_mb, "killed": self.has_killed}


def watch(control: str, echo: str, end: Connection) -> dict[str, Any]:
    """Ask for the state until told to end, an echo in turn.

    Returns: latencies of the state, and those of the echo, which are this machine's own.
    """
    state_ms: list[float] = []
    echo_ms: list[float] = []
    unanswered = 0
    with zmq.Context() as context, ExitStack() as sockets:
        asking, echoing = (_connected(sockets, context, endpoint) for endpoint in (control, echo))
        while not end.poll(PAUSE_S * 5):
            took_ms = _round_trip_ms(asking)
            if took_ms is None:
                unanswered, took_ms = unanswered + 1, 1000 * UNANSWERED_S
                asking = _connected(sockets, context, control)
            state_ms.append(took_ms)
            echo_ms.append(_round_trip_ms(echoing) or 1000 * UNANSWERED_S)
    p50, p99, largest = (float(np.quantile(state_ms or [np.inf], rank)) for rank in (0.5, 0.99, 1.0))
    return {
        "asked": len(state_ms),
        "unanswered": unanswered,
        "state_p50_ms": p50,
        "state_p99_ms": p99,
        "state_max_ms": largest,
        "echo_p99_ms": float(np.quantile(echo_ms or [0.0], 0.99)),
    }


def refocus(control: str, events: str, end: Connection) -> dict[str, Any]:
    """Refocus again and again until told to end; returns how often each outcome came."""
    outcomes: Counter[str] = Counter()
    with Client(control, events, "ordinary") as client:
        while not end.poll(0.3):
            try:
                outcomes[str(client.refocus(timeout_s=60.0).outcome)] += 1
            except FocusdError as error:
                outcomes[error.outcome] += 1
    return dict(outcomes)


def _connected(sockets: ExitStack, context: zmq.Context[Any], endpoint: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = sockets.enter_context(context.socket(zmq.DEALER))
    socket.linger = 0
    socket.connect(endpoint)
    return socket


def _round_trip_ms(asking: zmq.Socket[bytes]) -> float | None:
    """How long an answer took; None: it did not come."""
    began_s = time.perf_counter()
    asking.send_multipart([b"", STATUS])
    if not asking.poll(int(1000 * UNANSWERED_S)):
        return None
    asking.recv_multipart()
    return 1000 * (time.perf_counter() - began_s)


def memory_mb(pid: int, name: str = "VmRSS") -> float:
    """Resident memory of a process, or its peak (`VmHWM`)."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return float(line.split()[1]) / 1024
    return 0.0


def threads_of(pid: int) -> int:
    """Threads of a process."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    return 0


def _forget_peak(pid: int) -> float:
    """Begin the peak anew; returns the memory now."""
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory_mb(pid)


def _settled_mb(pid: int, before_mb: float) -> float:
    """The memory once it has come back, or after all the time that it is given."""
    until_s = time.perf_counter() + COMES_BACK_S
    while (now_mb := memory_mb(pid)) > before_mb + RSS_LEFT_MB and time.perf_counter() < until_s:
        time.sleep(0.25)
    return now_mb


def _fault(client: Client) -> str | None:
    try:
        fault: str | None = client.state().fault
    except FocusdError as error:
        return f"not known: {error.message}"
    return fault


def events_on_record(config: RigConfig) -> int:
    """How many events the daemon has recorded so far."""
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(config.state_dir / config.name / "events.sqlite")) as database:
        (count,) = database.execute("SELECT max(rowid) FROM events").fetchone()
    return int(count or 0)


def outcome_of(reply: bytes) -> str:
    """`result`, or the outcome of an error."""
    told = json.loads(reply)
    return str(told["error"]["data"]["outcome"]) if "error" in told else "result"
