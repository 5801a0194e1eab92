"""SIGKILL at random moments of a daemon's life: what the next one finds on the disk.

Each daemon is a process of its own, forked from one that has imported torch already.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

import zmq

from bench.faults.service import UNHURRIED, config_of
from focusd import client as protocol
from focusd.client import Client
from focusd.config import RigConfig
from focusd.daemon.events import Event
from focusd.daemon.memory import OPENING, RigMemory
from focusd.daemon.record import is_kept
from focusd.errors import FocusdError
from focusd.storage.files import unsealed
from focusd.storage.store import CalibrationStore

T = TypeVar("T")

LIFE_S = 0.8
"""A daemon is killed at a moment of its first 0.8 s of work, or while it starts."""
STARTS = 0.2
"""Share of the kills that come while the daemon starts."""


def live(config: RigConfig) -> None:
    """The life of a daemon, its words unheard."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    from focusd import standalone

    standalone.run(config)


def fresh_processes() -> ForkServerContext:
    """Each forked from one that has imported torch already, and has done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["focusd.standalone", "focusd.microscope.simulated", "bench.faults.kills"])
    return context


@contextmanager
def living(given: T, life: Callable[[T], None]) -> Iterator[BaseProcess]:
    """A process of its own, killed at the end."""
    process = fresh_processes().Process(target=life, args=(given,), daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def answers(client: Client, patience_s: float = 60.0) -> bool:
    """Whether it does, in the end."""
    deadline_s = time.perf_counter() + patience_s
    while time.perf_counter() < deadline_s:
        with suppress(FocusdError):
            return bool(client.ping().session)
    return False


def kill(config: RigConfig, random: Random) -> list[Event]:
    """One life and its end: a calibration and refocuses, cut off somewhere; the events that were given out."""
    answered: list[protocol.Event] = []
    with (
        living(config, live) as process,
        Client(config.server.control) as client,
        _monitor(config) as monitor,
    ):
        if random.random() < STARTS:
            time.sleep(random.uniform(0, 0.3))
        else:
            assert answers(client), "the daemon did not start"
            until_s = time.perf_counter() + random.uniform(0, LIFE_S)
            while time.perf_counter() < until_s:
                with suppress(FocusdError):
                    (client.calibrate if random.random() < 0.3 else client.refocus)(wait=False)
                    answered = client.since(0).events
                time.sleep(min(0.1, max(0.0, until_s - time.perf_counter())))
            if random.random() < 0.5:  # killed right after an answer
                answered = client.since(0).events
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        return [cast(Event, event.model_dump(mode="json")) for event in answered] + _received(monitor)


@contextmanager
def _monitor(config: RigConfig) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.SUB) as monitor:
        monitor.linger = 0
        monitor.subscribe(b"")
        monitor.connect(config.server.events)
        yield monitor


def _received(monitor: zmq.Socket[bytes]) -> list[Event]:
    """All that has come, and what was still on its way at the kill."""
    events = []
    while monitor.poll(20):
        events.append(json.loads(monitor.recv_multipart()[-1]))
    return events


def lost(config: RigConfig, given: list[Event]) -> list[tuple[str, int]]:
    """Session and number of the events that were given out and are not on record, word by word."""
    with closing(sqlite3.connect(config.state_dir / config.name / "events.sqlite")) as database:
        rows = database.execute("SELECT session, seq, body FROM events").fetchall()
    on_record = {(session, seq): json.loads(body) for session, seq, body in rows}
    kept = {(event["session"], event["seq"]): event for event in given if is_kept(event)}
    return [number for number, event in kept.items() if on_record.get(number) != event]


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

    Returns: kills, how many came in mid-opening, events that had been given out, what was found wrong, and whether
    the last start serves.
    """
    random, wrong, opening, events = Random(seed), [], 0, 0
    sessions: set[str] = set()
    for _ in range(times):
        config = config_of(folder, stage=UNHURRIED)
        given = kill(config, random)
        events += len({event["seq"] for event in given if is_kept(event)})
        try:
            wrong += [found] if (found := consistent(config)) else []
            wrong += [f"given out and lost: {number}" for number in lost(config, given)] if given else []
            wrong += [f"numbered again: {again}" for again in _sessions(given) & sessions]
        except Exception as error:
            wrong.append(repr(error))
        sessions |= _sessions(given)
        memory = RigMemory(folder / config.name / "rig.json")
        if memory.path.exists() and memory.recall().fault == OPENING:
            opening += 1
            memory.forget_fault("an operator has looked")
    return {
        "kills": times,
        "in_opening": opening,
        "events_given": events,
        "wrong": wrong,
        "serves_after": _serves(config_of(folder, stage=UNHURRIED)),
    }


def _sessions(given: list[Event]) -> set[str]:
    """Events are numbered within a session: one of each daemon's own."""
    return {event["session"] for event in given}


def _serves(config: RigConfig) -> bool:
    with living(config, live), Client(config.server.control) as client:
        if not answers(client):
            return False
        if not client.state().calibration.usable:
            client.calibrate()
        return bool(client.refocus().outcome == "focused")
