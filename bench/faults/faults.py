"""The faults: how each is done, and what focusd promises to answer and where the stage must end."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
import zmq
from numpy.typing import NDArray
from torch import Tensor

from bench.faults import harm
from bench.faults.fuzz import HARMLESS, mutated
from bench.faults.harm import FaultyMicroscope
from bench.faults.service import Service
from focusd.config import ScorerConfig
from focusd.daemon import events, memory
from focusd.errors import HardwareError
from focusd.scoring import gpu
from focusd.scoring.backends import CpuBackend
from focusd.scoring.choice import open_scorer
from focusd.scoring.network import FocusNet, Score
from focusd.scoring.views import Views
from focusd.storage import files

End = Literal["home", "still", "stated", "focused"]
"""Where the stage ends: where it began; where it was at the fault, untouched; where the answer says, home being out of
reach; in focus, the fault being no obstacle."""


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


def _limits_narrowed(low_um: float, high_um: float) -> Callable[[Service, Random], Any]:
    """An operator turns on a soft limit of the stage's controller: from then on it clamps."""
    return _armed("move", lambda microscope: microscope.limit(low_um, high_um))


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


class _LostGpu(CpuBackend):
    """Stands for torch on a GPU: what the CPU says, until the GPU is lost; then what torch says of that, for good."""

    name = "cuda"
    steps_left = math.inf

    def __init__(self, network: FocusNet, at_loss: Callable[[], None]) -> None:
        super().__init__(network, batch=1)
        self._at_loss = at_loss

    def load(self, pixels: NDArray[np.generic]) -> Tensor:
        """Upload, unless lost."""
        self._step()
        return super().load(pixels)

    def __call__(self, views: Views) -> Score:
        """Score, unless lost."""
        self._step()
        return super().__call__(views)

    def _step(self) -> None:
        self.steps_left -= 1
        if self.steps_left < 0:
            self._at_loss()
            raise torch.AcceleratorError(
                "CUDA error: GPU is lost\nCUDA kernel errors might be reported later"
            )


@contextmanager
def _gpu_lost(service: Service, random: Random) -> Iterator[None]:
    """At an upload or a batch of the first two frames. Choice, check and chain of backends are the daemon's own."""
    device = _LostGpu(service.scorer.model.network, service.microscope.fired)
    config = service.config.model_copy(update={"scorer": ScorerConfig(backend="cuda", threads=1)})
    before = gpu.missing, gpu.open_cuda
    gpu.missing, gpu.open_cuda = lambda: None, lambda _network: device  # type: ignore[assignment,return-value]
    try:
        service.scorer.use(open_scorer(config))
    finally:
        gpu.missing, gpu.open_cuda = before
    assert service.scorer.backend == "cuda", "the GPU serves before it is lost"
    device.steps_left = random.randint(0, 8)
    yield


@contextmanager
def _disk_full(service: Service, random: Random) -> Iterator[None]:

    def full(path: Path, _text: str) -> None:
        if "calibrations" in path.parts:
            service.microscope.fired()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with patch.object(files, "_write_through", full):
        yield


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

    with ExitStack() as patches:

        def step() -> None:
            for module in (events, memory):
                patches.enter_context(patch.object(module, "datetime", Yesterday))

        service.microscope.arm("snap", random.randint(1, 3), step)
        yield


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
    Fault("limits narrowed", _limits_narrowed(-1.0, 1.0), HARDWARE, "home"),
    Fault("limits exclude home", _limits_narrowed(-40.0, -12.0), HARDWARE, "stated"),
    Fault("dead frames", _frames(harm.dead), HARDWARE, "home"),
    Fault("dark frames", _frames(harm.dark), HARDWARE | NO_ANSWER, "home"),
    Fault("saturated frames", _frames(harm.saturated), frozenset({"saturated"}), "home"),
    Fault("NaN frames", _frames(harm.not_a_number), HARDWARE, "home"),
    Fault("scorer raises", _scorer_raises, frozenset({"error"}), "home"),
    Fault("scorer answers NaN", _scorer_nan, frozenset({"error"}), "home"),
    Fault("GPU lost", _gpu_lost, FOCUSED, "focused"),
    Fault("disk full", _disk_full, frozenset({"calibration_mismatch"}), "home", method="focus.calibrate"),
    Fault("subscriber stalls", _subscriber_stalls, FOCUSED, "focused"),
    Fault("client dies", _armed("snap", FaultyMicroscope.fired), FOCUSED, "focused", client_dies=True),
    Fault("clock stepped", _clock_stepped, FOCUSED, "focused"),
    Fault("garbage messages", _garbage, FOCUSED, "focused"),
)
