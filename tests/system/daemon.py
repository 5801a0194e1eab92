"""`focusd run` as a process of its own, on free ports, and the raw messages that a client might send it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from focusd.client import Client
from focusd.demo.rigs import free_ports, to_toml
from focusd.errors import UnreachableError

START_S = 90.0
"""Importing torch takes seconds, and many more on a busy machine."""
STOP_S = 5.0
"""What the daemon promises."""
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

Values = dict[str, Any]


def rig(state: Path, **sections: Values) -> Values:
    """A fast simulated 10×/0.3 of 256 px, as values of a configuration file; sections overrule single values."""
    values: Values = {
        "name": "bench",
        "state_dir": str(state),
        "objective": {"name": "10x/0.3", "magnification": 10.0, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 10.0},
        "stage": {"min_um": -150.0, "max_um": 150.0, "towards_sample": "increasing"},
        "microscope": {
            "kind": "simulated",
            "sample": "gravel",
            "seed": 1,
            "width": 256,
            "height": 256,
            "velocity_um_per_s": 1e5,
            "settling_ms": 0.0,
        },
        "scorer": {"threads": 1},
        "log": {"format": "json"},
    }
    return values | {name: values.get(name, {}) | section for name, section in sections.items()}


def write(folder: Path, values: Values) -> Path:
    """The values as a configuration file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rig.toml"
    path.write_text(to_toml(values), encoding="utf-8")
    return path


def command(config: Path) -> list[str]:
    """How a daemon is started."""
    return [sys.executable, "-m", "focusd", "run", "--config", str(config)]


def failed_start(config: Path) -> subprocess.CompletedProcess[str]:
    """A start that ends by itself."""
    return subprocess.run(command(config), capture_output=True, text=True, timeout=START_S, env=ALONE)


@dataclass
class Daemon:
    """A running daemon and a client of it."""

    process: subprocess.Popen[Any]
    config: Path
    log: Path
    control: str
    events: str
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.connect("test")

    def connect(self, name: str) -> Client:
        """Another client; the caller closes it."""
        return Client(self.control, self.events, name)

    def answers(self) -> bool:
        """Whether it still serves."""
        return bool(self.client.ping().session) and self.process.poll() is None

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code; raises TimeoutExpired if it takes too long."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def wait_until_ready(self) -> None:
        """Return when it answers."""
        deadline_s = time.perf_counter() + START_S
        while self.process.poll() is None and time.perf_counter() < deadline_s:
            with contextlib.suppress(UnreachableError):
                self.client.ping()
                return
        raise AssertionError(f"the daemon did not start: {self.log.read_text(errors='replace')[-2000:]}")

    def close(self) -> None:
        """End it whatever it is doing."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2 * STOP_S)
        self.process.kill()
        self.process.wait()


@contextmanager
def running(folder: Path, values: Values, command: Callable[[Path], list[str]] = command) -> Iterator[Daemon]:
    """A daemon on free ports that answers inside the `with`."""
    ports = free_ports(2)
    control, events = (f"tcp://127.0.0.1:{port}" for port in ports)
    config = write(folder, values | {"server": {"control": control, "events": events}})
    log = folder / "daemon.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command(config), stdout=file, stderr=file, env=ALONE)
    daemon = Daemon(process, config, log, control, events)
    try:
        daemon.wait_until_ready()
        yield daemon
    finally:
        daemon.close()


@contextmanager
def dealer(endpoint: str) -> Iterator[zmq.Socket[bytes]]:
    """A raw socket that may send whatever it likes."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(endpoint)
        yield raw


def exchange(endpoint: str, frames: list[bytes]) -> Values:
    """Send frames as they are; return the reply."""
    with dealer(endpoint) as raw:
        raw.send_multipart(frames)
        assert raw.poll(10_000), "no reply"
        reply: Values = json.loads(raw.recv_multipart()[-1])
        return reply
