"""What systemd is told (sd_notify(3)): READY once it is true, a status in words, signs of life while work goes on.

The signs of life come out of the event loop, so that they end when it is blocked. They also end when a job hangs.
A hardware call that hangs does not end them: it latches a fault, and a restart would touch the hardware again.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import anyio
import structlog

from focusd.daemon.events import Event
from focusd.daemon.jobs import Jobs
from focusd.daemon.rig import Rig

log = structlog.get_logger(__name__)

STALL_S = 60.0
"""A job that has neither reported nor used the hardware for so long, a hardware call's deadline aside, hangs."""
PINGS_PER_PERIOD = 3
LONGEST = 1000
"""Characters of one assignment; a status that is longer is cut."""


class Notifier:
    """Datagrams to the service manager that started this process; nothing happens where none did."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # Opened once: signs of life must not end when the process is out of file descriptors.
        self._socket = _datagrams() if address else None
        microseconds = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        wanted = mine and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        self.period_s = int(microseconds) / 1e6 if wanted else None
        """How long the service manager waits for a sign of life; None: it wants none."""

    def tell(self, *assignments: str) -> None:
        """Send `NAME=value` lines, each cut to one printable line: none may hold a second assignment.

        A service manager that does not listen is no reason to stop.
        """
        if self._socket:
            with suppress(OSError):
                self._socket.sendto("\n".join(map(_one_line, assignments)).encode(), self._address)

    def close(self) -> None:
        """Tell no more."""
        if self._socket:
            self._socket.close()

    def tell_state(self, event: Event) -> None:
        """A subscriber of the event bus: the rig's state becomes the service's status."""
        if event["topic"] == "state":
            self.tell(f"STATUS={in_words(event['data'])}")


def _datagrams() -> socket.socket | None:
    if sys.platform == "win32":
        return None
    try:
        datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    except OSError:
        return None
    datagrams.setblocking(False)
    return datagrams


def _one_line(text: str) -> str:
    """Names come from clients, and may hold anything."""
    return "".join(c if c.isprintable() else " " for c in text[:LONGEST])


def in_words(state: Mapping[str, Any]) -> str:
    """The state of a rig as one line."""
    z_um, job = state.get("z_um"), state.get("job")
    where = "z unknown" if z_um is None else f"z = {z_um:.2f} µm"
    if fault := state.get("fault"):
        return " ".join(f"FAULT: {fault}; {where}".split())
    if job:
        return f"{job['kind']} for {job['client'] or 'a client'}; {where}"
    usable = (state.get("calibration") or {}).get("usable")
    return f"idle; {where}" + ("" if usable else "; not calibrated")


def hangs(jobs: Jobs, rig: Rig, now_s: float) -> bool:
    """Whether the running job has shown no progress for too long. One at a latched fault is about to end."""
    job = jobs.running
    if job is None or rig.fault:
        return False
    return now_s - max(job.progress_s, rig.progress_s) > STALL_S + rig.deadline_s


async def keep_alive(notifier: Notifier, hung: Callable[[], bool]) -> None:
    """Give signs of life as long as nothing hangs; returns at once where nobody waits for them."""
    if notifier.period_s is None:
        return
    while True:
        if hung():
            log.error("a job hangs: no more signs of life, the service manager will restart focusd")
        else:
            notifier.tell("WATCHDOG=1")
        await anyio.sleep(notifier.period_s / PINGS_PER_PERIOD)


def watch(jobs: Jobs, rig: Rig) -> Callable[[], bool]:
    """`hangs` of this service, now."""
    return lambda: hangs(jobs, rig, time.perf_counter())
