"""A service manager as focusd sees it: a socket that hears what the daemon tells."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

WATCHDOG_S = 1.5


@dataclass
class Manager:
    """Hears datagrams; `heard` keeps them all."""

    address: Path
    socket: socket.socket
    heard: list[str] = field(default_factory=list)

    def hear(self, timeout_s: float) -> bool:
        """Wait for one message; False: there was none."""
        self.socket.settimeout(timeout_s)
        try:
            self.heard.append(self.socket.recv(4096).decode())
        except TimeoutError:
            return False
        return True

    def hear_until(self, text: str, timeout_s: float = 60.0) -> str:
        """The first message from now on with this text."""
        deadline_s = time.perf_counter() + timeout_s
        while self.hear(max(0.001, deadline_s - time.perf_counter())):
            if text in self.heard[-1]:
                return self.heard[-1]
        raise AssertionError(f"{text!r} was not told, but {self.heard[-10:]}")

    def pings_within(self, seconds: float) -> int:
        """How many signs of life come in a time."""
        before, deadline_s = len(self.heard), time.perf_counter() + seconds
        while self.hear(max(0.001, deadline_s - time.perf_counter())):
            pass
        return sum("WATCHDOG=1" in message for message in self.heard[before:])

    def starts(self, command: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
        """The command, told where to report as systemd does it."""
        told = ["env", f"NOTIFY_SOCKET={self.address}", f"WATCHDOG_USEC={WATCHDOG_S * 1e6:.0f}"]
        return lambda config: [*told, *command(config)]


@contextmanager
def service_manager(folder: Path) -> Iterator[Manager]:
    """Listens inside the `with`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        address = folder / "notify"
        listening.bind(str(address))
        yield Manager(address, listening)
