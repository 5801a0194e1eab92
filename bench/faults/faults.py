"""The faults: how each is done, and what focusd promises to answer and where the stage must end."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

import zmq

from bench.faults import harm
from bench.faults.fuzz import HARMLESS, mutated
from bench.faults.harm import FaultyMicroscope
from bench.faults.service import Service
from focusd.errors import HardwareError
from focusd.service import events, files, memory

End = Literal["home", "still", "focused"]
"""Where the stage ends: where it began; where it was at the fault, untouched; in focus, the fault being no obstacle."""


@dataclass(frozen=True)
class Fault:
    """One row of the matrix.

    Attributes:
        done: does it inside the `with`, given a service and a generator for its moment.
        outcomes: that may be answered.
        method: that meets it.
        latches: the hardware must be left alone afterwards.
    """

    name: str
    done: Callable[[Service, Random], AbstractContextManager[object]]
    outcomes: frozenset[str]
    end: End
    method: str = "focus.run"
    latches: bool = False
    client_dies: bool = False


def _armed(action: str, do: Callable[[FaultyMicroscope], object]) -> Callable[[Service, Random], Any]:
    """Do it at the first, second or third action of a refocus."""

    def done(service: Service, random: Random) -> AbstractContextManager[None]:
        microscope = service.microscope
        microscope.arm(action, random.randint(1, 2 if action == "move" else 3), partial(do, microscope))
        return nullcontext()

    return done


def _frames(change: Callable[[Any], Any]) -> Callable[[Service, Random], Any]:
    return _armed("snap", lambda microscope: microscope.spoil("snap", change))


def _gone(microscope: FaultyMicroscope) -> None:
    def gone(_z_um: float) -> float:
        raise HardwareError("the stage is gone")

    microscope.spoil("position", gone)


@contextmanager
def _scorer_raises(service: Service, random: Random) -> Iterator[None]:
    def fail(*_: object) -> None:
        service.microscope.fired()
        raise ArithmeticError("a bug in the scorer")

    service.scorer.score = fail
    yield


@contextmanager
def _scorer_nan(service: Service, random: Random) -> Iterator[None]:
    def nothing(*frame: Any) -> Any:
        service.microscope.fired()
        measure = service.scorer.inner.score(*frame)
        return replace(measure, b=measure.b * math.nan)

    service.scorer.score = nothing
    yield


@contextmanager
def _disk_full(service: Service, random: Random) -> Iterator[None]:
    write = files._write_through

    def full(path: Path, _text: str) -> None:
        if path.parent.name == "calibrations":
            service.microscope.fired()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files._write_through = full
    try:
        yield
    finally:
        files._write_through = write


@contextmanager
def _subscriber_stalls(service: Service, random: Random) -> Iterator[None]:
    """It reads nothing, while more is published than any buffer holds."""
    with zmq.Context() as context, context.socket(zmq.SUB) as stalled:
        stalled.linger, stalled.rcvhwm = 0, 1
        stalled.connect(service.config.server.events)
        stalled.subscribe(b"")
        stalled.poll(1000)
        service.microscope.fired()
        for _ in range(1500):
            logging.getLogger("bench").error("x" * 10_000)
        yield


@contextmanager
def _clock_stepped(service: Service, random: Random) -> Iterator[None]:
    """The wall clock goes back by a day in the middle of a refocus, as when a lost time server is found again."""

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(days=1)

    def step() -> None:
        events.datetime = memory.datetime = Yesterday

    service.microscope.arm("snap", random.randint(1, 3), step)
    try:
        yield
    finally:
        events.datetime = memory.datetime = datetime


@contextmanager
def _garbage(service: Service, random: Random) -> Iterator[None]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as raw:
        raw.linger = 0
        raw.connect(service.config.server.control)
        service.microscope.fired()
        for _ in range(300):
            raw.send_multipart(mutated(random, HARMLESS))
        yield


HARDWARE, FOCUSED = frozenset({"hardware_error"}), frozenset({"focused"})
NO_ANSWER = frozenset({"ambiguous", "out_of_range", "budget_spent", "no_sample"})

FAULTS = (
    Fault("camera hangs", _armed("snap", FaultyMicroscope.hang), HARDWARE, "still", latches=True),
    Fault("camera raises", _armed("snap", FaultyMicroscope.raise_error), HARDWARE, "home"),
    Fault("stage hangs in a move", _armed("move", FaultyMicroscope.hang), HARDWARE, "still", latches=True),
    Fault(
        "stage hangs when read", _armed("position", FaultyMicroscope.hang), HARDWARE, "still", latches=True
    ),
    Fault("stage raises", _armed("move", FaultyMicroscope.raise_error), HARDWARE, "home"),
    Fault("stage gone", _armed("move", _gone), HARDWARE, "still"),
    Fault("stage reads back wrong", _armed("move", FaultyMicroscope.slip), HARDWARE, "home"),
    Fault(
        "stage reads back NaN",
        _armed("move", FaultyMicroscope.lose_position),
        HARDWARE | {"travel_limit"},
        "still",
    ),
    Fault("dead frames", _frames(harm.dead), HARDWARE, "home"),
    Fault("dark frames", _frames(harm.dark), HARDWARE | NO_ANSWER, "home"),
    Fault("saturated frames", _frames(harm.saturated), frozenset({"saturated"}), "home"),
    Fault("NaN frames", _frames(harm.not_a_number), HARDWARE, "home"),
    Fault("scorer raises", _scorer_raises, frozenset({"error"}), "home"),
    Fault("scorer answers NaN", _scorer_nan, frozenset({"error"}), "home"),
    Fault("disk full", _disk_full, frozenset({"calibration_mismatch"}), "home", method="focus.calibrate"),
    Fault("subscriber stalls", _subscriber_stalls, FOCUSED, "focused"),
    Fault("client dies", _armed("snap", FaultyMicroscope.fired), FOCUSED, "focused", client_dies=True),
    Fault("clock stepped", _clock_stepped, FOCUSED, "focused"),
    Fault("garbage messages", _garbage, FOCUSED, "focused"),
)
