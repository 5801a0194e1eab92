"""SIGKILL at random moments of a daemon's life: what the next one finds on the disk.

Each daemon is a process of its own, forked from one that has imported torch already.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

from bench.faults.service import config_of
from focusd.config import RigConfig
from focusd.errors import FocusdError
from focusd.service.files import unsealed
from focusd.service.memory import OPENING, RigMemory
from focusd.service.store import CalibrationStore
from focusd.wire.client import Client

LIFE_S = 0.8
"""A daemon is killed at a moment of its first 0.8 s of work, or while it starts."""
STARTS = 0.2
"""Share of the kills that come while the daemon starts."""


def _live(config: RigConfig) -> None:
    """The life of a daemon, its words unheard."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    from focusd import daemon

    daemon.run(config)


@contextmanager
def _daemon(config: RigConfig) -> Iterator[BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["focusd.daemon", "focusd.microscope.simulated", "bench.faults.kills"])
    process = context.Process(target=_live, args=(config,), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _answers(client: Client, patience_s: float = 60.0) -> bool:
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        with suppress(FocusdError):
            return "session" in client.ping()
    return False


def kill(config: RigConfig, random: Random) -> None:
    """One life and its end: a calibration and refocuses, cut off somewhere."""
    with _daemon(config) as process, Client(config.server.control) as client:
        if random.random() < STARTS:
            time.sleep(random.uniform(0, 0.3))
        else:
            assert _answers(client), "the daemon did not start"
            until_s = time.monotonic() + random.uniform(0, LIFE_S)
            while time.monotonic() < until_s:
                with suppress(FocusdError):
                    (client.calibrate if random.random() < 0.3 else client.refocus)(wait=False)
                time.sleep(min(0.1, max(0.0, until_s - time.monotonic())))
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)


def consistent(config: RigConfig) -> str:
    """What is wrong with what a killed daemon has left; empty: nothing."""
    folder = config.state_dir / config.name
    if bad := list(folder.rglob("*.bad-*")):
        return f"set aside: {bad}"
    record = folder / "rig.json"
    if record.exists() and unsealed(record.read_text(encoding="utf-8"))["fault"] not in (None, OPENING):
        return "a fault that was none"
    store = CalibrationStore(folder / "calibrations")
    if store.path(config.objective.name).exists():
        store.load(config.objective.name)
    return ""


def run_kills(folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Kill as often, looking at the disk after each and letting the next daemon start on it.

    Returns: kills, how many came in mid-opening, what was found wrong, and whether the last start serves.
    """
    random, wrong, opening = Random(seed), [], 0
    for _ in range(times):
        config = config_of(folder)
        kill(config, random)
        try:
            wrong += [found] if (found := consistent(config)) else []
        except Exception as error:
            wrong.append(repr(error))
        memory = RigMemory(folder / config.name / "rig.json")
        if memory.path.exists() and memory.recall().fault == OPENING:
            opening += 1
            memory.forget_fault("an operator has looked")
    return {"kills": times, "in_opening": opening, "wrong": wrong, "serves_after": _serves(config_of(folder))}


def _serves(config: RigConfig) -> bool:
    with _daemon(config), Client(config.server.control) as client:
        if not _answers(client):
            return False
        if not client.state()["calibration"]["usable"]:
            client.calibrate()
        return client.refocus()["outcome"] == "focused"
