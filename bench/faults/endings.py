"""Attacks on the daemon as a process: signals, a full disk, a second daemon. Its hardware tells what it has seen."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.faults.kills import answers, live, living
from bench.faults.service import config_of
from focusd.client import Client
from focusd.config import MicroManagerConfig, RigConfig
from focusd.demo.rigs import free_ports
from focusd.errors import FocusdError
from focusd.storage.files import unsealed

HOME_UM, NEAR_UM = 10.0, 0.5
DEEP_UM = -20.0
"""The signal comes when the calibration has brought the stage so far."""
ENDS_S, STARTS_S = 20.0, 30.0
HANG_S = 600.0
HANG_DEADLINE_S = 1.0
"""Of the call that hangs."""
DISK_BYTES = 16 << 20

Seen = tuple[str, float]
"""`opened`, `moved` or `hung`, and the z of a move."""


@dataclass
class Life:
    """What a daemon is given.

    Attributes:
        hang: while this file is there, exposures never end.
        file_bytes: no file may grow beyond; None: any may.
    """

    config: RigConfig
    pipe: Connection
    hang: Path
    file_bytes: int | None = None


def live_seen(given: Life) -> None:
    """The life of a daemon whose hardware tells what is done to it."""
    from focusd.daemon import opening
    from focusd.microscope.micromanager import MicroManagerMicroscope

    telling = threading.Lock()

    def tell(what: str, z_um: float = 0.0) -> None:
        with telling, suppress(OSError):
            given.pipe.send((what, z_um))

    open_microscope = vars(opening)["open_microscope"]
    move_to, snap = MicroManagerMicroscope.move_to, MicroManagerMicroscope.snap

    def opened(config: RigConfig) -> Any:
        tell("opened")
        return open_microscope(config)

    def moved(self: MicroManagerMicroscope, z_um: float) -> None:
        move_to(self, z_um)
        tell("moved", z_um)

    def snapped(self: MicroManagerMicroscope) -> Any:
        if given.hang.exists():
            tell("hung")
            time.sleep(HANG_S)
        return snap(self)

    if given.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (given.file_bytes, resource.RLIM_INFINITY))
    with (
        patch.object(opening, "open_microscope", opened),
        patch.object(MicroManagerMicroscope, "move_to", moved),
        patch.object(MicroManagerMicroscope, "snap", snapped),
    ):
        live(given.config)


@dataclass
class Daemon:
    """One that runs, and all that its hardware has seen."""

    config: RigConfig
    process: BaseProcess
    pipe: Connection
    seen: list[Seen] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process.pid is not None
        return self.process.pid

    def look(self) -> list[Seen]:
        """All that the hardware has seen by now."""
        with suppress(EOFError, OSError):
            while self.pipe.poll(0):
                self.seen.append(self.pipe.recv())
        return self.seen

    @property
    def z_um(self) -> float:
        """Where the stage truly stands."""
        return next((z_um for what, z_um in reversed(self.look()) if what == "moved"), 0.0)

    @property
    def was_opened(self) -> bool:
        """Whether the hardware was."""
        return any(what == "opened" for what, _ in self.look())

    def wait_until(self, met: Callable[[], bool], patience_s: float) -> bool:
        """Whether something came true in time."""
        until_s = time.perf_counter() + patience_s
        while not met():
            if time.perf_counter() > until_s:
                return False
            time.sleep(0.01)
        return True

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return not self.process.is_alive()

    def record(self) -> dict[str, Any]:
        """What the rig's record says."""
        return unsealed((self.config.state_dir / self.config.name / "rig.json").read_text(encoding="utf-8"))


@contextmanager
def daemon(config: RigConfig, hang: Path, file_bytes: int | None = None) -> Iterator[Daemon]:
    """A daemon in a process of its own, killed at the end."""
    here, there = Pipe()
    with here, living(Life(config, there, hang, file_bytes), live_seen) as process:
        there.close()
        yield Daemon(config, process, here)


def signalled(number: signal.Signals, folder: Path) -> list[str]:
    """A signal in the middle of a calibration: the stage comes home, and the record says where it is."""
    config = config_of(
        folder,
        camera={"exposure_ms": 20.0},
        calibration={"range_um": 60.0, "step_um": 1.0},
        stage={"timeout_s": 10.0},
    )
    with daemon(config, folder / "hang") as running, Client(config.server.control) as client:
        if not answers(client):
            return ["the daemon did not start"]
        client.move(HOME_UM)
        client.calibrate(wait=False)
        if not running.wait_until(lambda: running.z_um < DEEP_UM, ENDS_S):
            return ["the calibration did not begin"]
        os.kill(running.pid, number)
        if not running.wait_until(running.has_ended, ENDS_S) and client.state().job:
            return ["the calibration goes on, and the process too"]
        z_um, record = running.z_um, running.record()
    failed = (
        []
        if abs(z_um - HOME_UM) <= NEAR_UM
        else [f"the stage stays at {z_um:.1f} µm, it began at {HOME_UM} µm"]
    )
    told_um = record["z_um"] if record["z_um"] is not None else float("nan")
    failed += (
        []
        if abs(told_um - z_um) <= NEAR_UM
        else [f"the record says {told_um} µm, the stage stands at {z_um:.1f}"]
    )
    return failed + ([f"a fault that was none: {record['fault']}"] if record["fault"] else [])


class Disk:
    """A small disk where this process may mount one; else files that may not grow.

    Attributes:
        folder: on it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
        self.is_mounted = _succeeds(mount)

    def fill(self, running: Daemon) -> None:
        """Leave no room."""
        if not self.is_mounted:
            resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            for size in (1 << 16, 1 << 12, 1):
                with suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """Make room."""
        (self.folder / "filler").unlink(missing_ok=True)

    def unmount(self) -> None:
        """Give it back."""
        if self.is_mounted:
            _succeeds(["umount", "-l", str(self.folder)])


def _succeeds(command: list[str]) -> bool:
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    return False


def full_disk(folder: Path, *, is_full: bool = True, is_freed: bool = False) -> list[str]:
    """The camera hangs while the disk is full; after SIGKILL the next daemon must not open the hardware.

    Args:
        is_full: whether it is: a fault is not forgotten on an ordinary disk either.
        is_freed: there is room again when the next one starts.
    """
    disk = Disk(folder / "disk")
    try:
        config, hang = config_of(disk.folder, stage={"timeout_s": HANG_DEADLINE_S}), folder / "hang"
        with daemon(config, hang) as first, Client(config.server.control) as client:
            if not answers(client):
                return ["the daemon did not start"]
            client.calibrate()
            if is_full:
                disk.fill(first)
            failed = _killed_in_fault(first, client, hang, lambda: None)
        if is_freed:
            disk.free()
        limit = None if is_freed or not is_full or disk.is_mounted else 0
        return failed + _left_alone(config, hang, limit)
    finally:
        disk.unmount()


def no_descriptors(folder: Path) -> list[str]:
    """The same without a free file descriptor."""
    config, hang = config_of(folder / "state", stage={"timeout_s": HANG_DEADLINE_S}), folder / "hang"
    with daemon(config, hang) as first, Client(config.server.control) as client:
        if not answers(client):
            return ["the daemon did not start"]
        client.calibrate()
        failed = _killed_in_fault(first, client, hang, lambda: _take_descriptors(first.pid))
    return failed + _left_alone(config, hang, None)


def _take_descriptors(pid: int) -> None:
    """From now on it opens nothing; what is open stays so."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))


def _killed_in_fault(
    running: Daemon, client: Client, hang: Path, meanwhile: Callable[[], object]
) -> list[str]:
    """Let an exposure hang until the fault is latched; kill the daemon a little later.

    Args:
        meanwhile: is called while the exposure hangs.
    """
    hang.touch()
    client.refocus(wait=False)
    did_hang = running.wait_until(lambda: any(what == "hung" for what, _ in running.look()), ENDS_S)
    meanwhile()
    time.sleep(HANG_DEADLINE_S + 1.0)
    running.process.kill()
    running.process.join()
    hang.unlink()
    return [] if did_hang else ["the camera did not hang"]


def _left_alone(config: RigConfig, hang: Path, file_bytes: int | None) -> list[str]:
    """Whether the next daemon leaves the hardware alone; it may refuse to start."""
    with daemon(config, hang, file_bytes) as second, Client(config.server.control) as client:
        opened = _opens(second, client)
    return ["the next daemon opened the hardware"] if opened else []


def _opens(starting: Daemon, client: Client) -> bool:
    """Whether a daemon opens its hardware before it serves, or ends."""
    starting.wait_until(lambda: starting.was_opened or starting.has_ended() or answers(client, 1.0), STARTS_S)
    return starting.was_opened


def second_daemon(
    folder: Path, *, name: str = "faults", state: str = "state", is_unlocked: bool = False
) -> list[str]:
    """Another daemon on the same hardware.

    Args:
        name, state: of the second one.
        is_unlocked: somebody has deleted the first one's lock files.
    """
    first, second = _micromanager(folder / "state", "faults"), _micromanager(folder / state, name)
    hang = folder / "hang"
    with daemon(first, hang) as running, Client(first.server.control) as client:
        if not answers(client):
            return ["the first daemon did not start"]
        if is_unlocked:
            for lock in (folder / "state").rglob("*lock*"):
                lock.unlink()
        with daemon(second, hang) as other, Client(second.server.control) as late:
            opened = _opens(other, late)
        is_first_alive = not running.has_ended()
    failed = ["both have the hardware open"] if opened else []
    return failed + ([] if is_first_alive else ["the first daemon has ended"])


def _micromanager(state: Path, name: str) -> RigConfig:
    """Micro-Manager's own demo devices."""
    control, events = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    config = config_of(state, server={"control": control, "events": events}, stage={"timeout_s": 10.0})
    hardware = MicroManagerConfig(kind="micromanager", config_file="MMConfig_demo.cfg")
    return config.model_copy(update={"name": name, "microscope": hardware})


ENDINGS: dict[str, Callable[[Path], list[str]]] = {
    "SIGHUP in mid-calibration": partial(signalled, signal.SIGHUP),
    "SIGQUIT in mid-calibration": partial(signalled, signal.SIGQUIT),
    "full disk, latched fault, SIGKILL, restart": full_disk,
    "the same, room again before the restart": partial(full_disk, is_freed=True),
    "no file descriptors, latched fault, SIGKILL, restart": no_descriptors,
    "second daemon of another name": partial(second_daemon, name="other"),
    "second daemon with another state folder": partial(second_daemon, state="elsewhere"),
    "second daemon, the lock deleted": partial(second_daemon, is_unlocked=True),
}
"""Each returns the promises that were broken, in words."""


def run_ending(name: str, folder: Path) -> dict[str, Any]:
    """One of them."""
    began_s = time.perf_counter()
    try:
        failed = ENDINGS[name](folder)
    except FocusdError as error:
        failed = [f"{error.outcome}: {error.message}"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"name": name, "ok": not failed, "seconds": time.perf_counter() - began_s, "failed": failed}
