"""The rigs of the demo: configurations, and daemons that run them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import SystemRandom
from typing import Any

import numpy as np

from focusd.client import Client
from focusd.config import RigConfig, load_config
from focusd.errors import FocusdError, UnreachableError
from focusd.microscope.recorded import Stack

START_S = 90.0
"""A daemon that does not answer by then has failed; importing torch takes seconds, more on a busy machine."""

PORTS = range(10_000, 32_000)
"""Below what Linux, Windows and macOS give to outgoing connections."""


def simulated_rig(state_dir: Path, sample: str, seed: int, focus_z_um: float) -> dict[str, Any]:
    """A simulated 10×/0.3 microscope whose stage starts at z = 0, as values of a configuration file."""
    return {
        "name": "demo-simulated",
        "state_dir": str(state_dir),
        "objective": {"name": "10x-0.3", "magnification": 10.0, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 10.0},
        "stage": {"min_um": -300.0, "max_um": 300.0, "towards_sample": "increasing"},
        "microscope": {"kind": "simulated", "sample": sample, "seed": seed, "focus_z_um": focus_z_um},
    }


def recorded_rig(state_dir: Path, path: Path, stack: Stack, start_um: float) -> dict[str, Any]:
    """A recorded stack as a microscope of unknown optics."""
    return {
        "name": "demo-" + "".join(c if c.isalnum() else "-" for c in path.name.split(".")[0]),
        "state_dir": str(state_dir),
        "objective": {"name": "recorded"},
        "camera": {"pixel_um": stack.pixel_um or 1.0, "exposure_ms": 1.0},
        "stage": {
            "min_um": float(stack.z_um[0]),
            "max_um": float(stack.z_um[-1]),
            "towards_sample": "increasing",
        },
        "microscope": {"kind": "recorded", "stack": str(path.resolve()), "start_z_um": start_um},
    }


if sys.platform == "win32":  # SIGTERM kills there, and Ctrl-Break reaches all of a group
    _STOP, _OWN_GROUP = signal.CTRL_BREAK_EVENT, subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _STOP, _OWN_GROUP = signal.SIGTERM, 0


class DemoDaemon:
    """A daemon in a process of its own."""

    def __init__(self, values: dict[str, Any], folder: Path) -> None:
        control, events = free_ports(2)
        server = {"control": f"tcp://127.0.0.1:{control}", "events": f"tcp://127.0.0.1:{events}"}
        file = folder / f"{values['name']}-{control}.toml"
        file.write_text(to_toml(values | {"server": server, "log": {"format": "json"}}), encoding="utf-8")
        self.config: RigConfig = load_config(file)
        self._log = file.with_suffix(".log")
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "focusd", "run", "--config", str(file)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, creationflags=_OWN_GROUP)
        self.client = Client(server["control"], server["events"], name="demo")

    def wait_until_ready(self) -> None:
        """Return when the daemon answers.

        Raises:
            FocusdError: it ended instead, or never answered; the message holds the end of its log.
        """
        deadline_s = time.perf_counter() + START_S
        while time.perf_counter() < deadline_s and self._process.poll() is None:
            with contextlib.suppress(UnreachableError):
                self.client.ping()
                return
        self.stop()
        raise FocusdError(f"the daemon did not start: …{self._log.read_text(errors='replace')[-800:]}")

    def stop(self) -> None:
        """End the daemon as an operator would, with a signal."""
        self.client.close()
        try:
            if self._process.poll() is None:
                self._process.send_signal(_STOP)
        except OSError:  # on Windows without a console
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def daemons(rigs: list[dict[str, Any]], folder: Path) -> Iterator[Iterator[DemoDaemon]]:
    """Daemons for a list of rigs, one after the other; the next one starts while the last one is used.

    One process owns a rig, and these overlap: each has a state folder of its own, and hands its calibrations on.
    """
    started: list[DemoDaemon] = []

    def start(index: int) -> None:
        if index < len(rigs):
            own = {"state_dir": str(Path(rigs[index]["state_dir"]) / str(index))}
            started.append(DemoDaemon(rigs[index] | own, folder))

    def each() -> Iterator[DemoDaemon]:
        start(0)
        for index in range(len(rigs)):
            started[index].wait_until_ready()
            start(index + 1)
            if index:
                _hand_over(started[index - 1].config, started[index].config)
            yield started[index]
            started[index].stop()

    try:
        yield each()
    finally:
        for daemon in started:
            daemon.stop()


def _hand_over(last: RigConfig, following: RigConfig) -> None:
    calibrations = last.state_folder / "calibrations"
    if calibrations.exists():
        shutil.copytree(calibrations, following.state_folder / "calibrations", dirs_exist_ok=True)


def starting_planes(stack: Stack, focus_um: float, count: int) -> list[float]:
    """Recorded planes to start from, spread over both sides of the focus.

    Not the stack's ends: from there the focus lies at the very edge of the range that the stack calibrates.
    """
    away = [float(z) for z in stack.z_um[1:-1] if abs(z - focus_um) > 0.02 * np.ptp(stack.z_um)]
    picks = np.linspace(0, len(away) - 1, min(count, len(away))).round().astype(int)
    return [away[i] for i in dict.fromkeys(picks.tolist())]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that no other process which asks here is given soon.

    They lie below those that a system gives to outgoing connections: one of these could take a port before the daemon
    that is meant to listen there has started.
    """
    found: list[int] = []
    for port in _candidates(os.getpid()):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


@cache
def _candidates(_pid: int) -> Iterator[int]:
    """All ports of the range, over and over, from where chance has this process begin."""
    begin = SystemRandom().randrange(len(PORTS))
    return (PORTS[number % len(PORTS)] for number in itertools.count(begin))


def to_toml(values: dict[str, Any]) -> str:
    """A configuration file of two levels."""
    top = [_pair(key, value) for key, value in values.items() if not isinstance(value, dict)]
    tables = [
        "\n".join([f"[{name}]", *(_pair(key, value) for key, value in table.items())])
        for name, table in values.items()
        if isinstance(table, dict)
    ]
    return "\n\n".join(["\n".join(top), *tables]) + "\n"


def _pair(key: str, value: object) -> str:
    """JSON's strings, numbers and lists are TOML's too."""
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
