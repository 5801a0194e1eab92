"""The whole daemon but for its process: real sockets, real files, the simulated microscope behind a faulty one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio

from bench.faults.harm import FaultyMicroscope
from focusd import standalone
from focusd.client import Client
from focusd.config import RigConfig
from focusd.daemon import opening
from focusd.daemon.watchdog import Notifier
from focusd.demo.rigs import free_ports
from focusd.errors import UnreachableError
from focusd.microscope.factory import open_microscope
from focusd.optics.bands import BlockSpectra
from focusd.scoring.scorer import Scorer

FOCUS_UM = 20.0
LIMITS_UM = (-80.0, 80.0)
DEADLINE_S = 0.3
"""Of a stage call that is going to hang; an exposure's is 1 ms more."""
UNHURRIED = {"timeout_s": 5.0}
"""A stage that never hangs: on a busy machine 0.3 s is soon over."""


def config_of(state: Path, **sections: dict[str, Any]) -> RigConfig:
    """A fast rig whose sample is out of focus by 20 µm."""
    control, events = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    low, high = LIMITS_UM
    values: dict[str, Any] = {
        "name": "faults",
        "state_dir": state,
        "objective": {"name": "10x/0.3", "magnification": 10.0, "na": 0.3},
        "camera": {"pixel_um": 6.5, "exposure_ms": 1.0},
        "stage": {"min_um": low, "max_um": high, "towards_sample": "increasing", "timeout_s": DEADLINE_S},
        "microscope": {
            "kind": "simulated",
            "sample": "gravel",
            "focus_z_um": FOCUS_UM,
            "width": 256,
            "height": 256,
            "velocity_um_per_s": 1e5,
            "settling_ms": 0.0,
        },
        "calibration": {"range_um": 60.0, "step_um": 4.0},
        "scorer": {"threads": 1},
        "server": {"control": control, "events": events, "max_requests_per_s": 1e9},
    }
    return RigConfig.model_validate(
        values | {name: values.get(name, {}) | section for name, section in sections.items()}
    )


class FaultyScorer:
    """A real scorer that can be broken."""

    def spectra(self, *frame: Any, **which: Any) -> BlockSpectra:
        """These work."""
        return self.inner.spectra(*frame, **which)

    def __init__(self, inner: Scorer) -> None:
        self.use(inner)

    def use(self, inner: Scorer) -> None:
        """Score with this one from now on."""
        self.model = inner.model
        self.inner = inner
        self.score: Any = inner.score

    @property
    def backend(self) -> str:
        """The name of the backend that serves now."""
        return self.inner.backend


@dataclass
class Service:
    """A running service, its faulty ends, and a client."""

    config: RigConfig
    scorer: FaultyScorer
    microscopes: list[FaultyMicroscope] = field(default_factory=list)

    @property
    def microscope(self) -> FaultyMicroscope:
        """The one that is open."""
        return self.microscopes[-1]

    def open_faulty(self, config: RigConfig) -> FaultyMicroscope:
        """In place of the factory."""
        self.microscopes.append(FaultyMicroscope(open_microscope(config)))
        return self.microscope

    def connect(self) -> Client:
        """A client; the caller closes it."""
        return Client(self.config.server.control, self.config.server.events, "bench")


@contextmanager
def running(config: RigConfig, scorer: Scorer) -> Iterator[Service]:
    """A service that answers inside the `with`; it ends whatever its hardware does."""
    service, ending = Service(config, FaultyScorer(scorer)), standalone.Ending()
    loop_is_there = threading.Event()
    stop: list[Any] = []

    async def serve() -> None:
        async with anyio.from_thread.BlockingPortal() as portal:
            stop.append(portal)
            loop_is_there.set()
            await standalone.serve_rig(config, ending, Notifier({}))

    thread = threading.Thread(target=anyio.run, args=(serve,), daemon=True)
    with (
        patch.object(opening, "open_microscope", service.open_faulty),
        patch.object(standalone, "open_scorer", lambda _config: service.scorer),
    ):
        thread.start()
        try:
            loop_is_there.wait()
            with service.connect() as client:
                _wait_for(client)
            yield service
        finally:
            for microscope in service.microscopes:
                microscope.released.set()
            stop[0].start_task_soon(_set, ending)
            thread.join(30)
    if thread.is_alive():
        raise RuntimeError("the service did not end within 30 s")


def _wait_for(client: Client) -> None:
    for _ in range(10):
        with suppress(UnreachableError):
            client.ping()
            return
    raise RuntimeError("the service did not start")


async def _set(ending: standalone.Ending) -> None:
    ending.asked.set()
