"""The daemon: a rig, its operations and its sockets, put together and taken apart again."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog
import torch
from anyio import to_thread

from focusd.config import RigConfig
from focusd.microscope.factory import open_microscope
from focusd.optics.instrument import Instrument
from focusd.service.events import EventBus
from focusd.service.jobs import Jobs
from focusd.service.logs import configure_logging, forward_to
from focusd.service.operations import RigOperations
from focusd.service.rig import Rig
from focusd.service.store import CalibrationStore
from focusd.sharpness.choice import open_backends
from focusd.sharpness.scorer import Scorer
from focusd.sharpness.weights import load_model
from focusd.wire.server import serve

log = structlog.get_logger(__name__)

SHUTDOWN_S = 4.0
"""After this the process ends, whatever a native call is still doing (DESIGN §8)."""
SWITCH_S = 0.0005
"""How long a thread that computes may keep the event loop from running Python."""


def run(config: RigConfig) -> None:
    """Run until SIGINT or SIGTERM, then end the process with exit code 0.

    Raises:
        FocusdError: the daemon cannot start; the message says why.
    """
    configure_logging(config.log)
    try:
        anyio.run(_run, config)
    except BaseExceptionGroup as group:
        raise _first(group) from None
    # All is put away. What native libraries do when the interpreter goes must neither hang nor change the exit code.
    logging.shutdown()
    os._exit(0)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error inside nested groups: task groups wrap what they raise."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _run(config: RigConfig) -> None:
    """Signals are heard from the first moment to the last: a second one must not cut the first one's end short."""
    stopping = anyio.Event()
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            tasks.start_soon(_hear, signals, stopping)
            await _serve(config, stopping)
            tasks.cancel_scope.cancel()


async def _hear(signals: AsyncIterator[signal.Signals], stopping: anyio.Event) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        if not stopping.is_set():
            _end_in_any_case()
        stopping.set()


async def _serve(config: RigConfig, stopping: anyio.Event) -> None:
    async with opened(config) as operations:
        favour_event_loop()
        bus = EventBus()
        with forward_to(bus):
            async with anyio.create_task_group() as tasks:
                jobs = Jobs(bus, tasks)
                async with serve(config.server, operations, bus, jobs):
                    await stopping.wait()


@asynccontextmanager
async def opened(config: RigConfig) -> AsyncIterator[RigOperations]:
    """The operations of a rig whose hardware is open inside the `async with`."""
    scorer = await to_thread.run_sync(open_scorer, config)
    microscope = await to_thread.run_sync(open_microscope, config)
    rig = Rig(microscope, config.stage, config.camera)
    try:
        await rig.position_um()  # a stage that cannot even be read is told now, not at the first request
        store = CalibrationStore(config.state_dir / config.name / "calibrations")
        yield RigOperations(config, rig, scorer, store)
    finally:
        with anyio.CancelScope(shield=True):
            await rig.aclose()


def favour_event_loop() -> None:
    """Keep threads that compute, and the collector of garbage, from delaying it: once all libraries are loaded."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # else each full collection looks through all that the libraries have made: 0.1 s


def open_scorer(config: RigConfig) -> Scorer:
    """The scorer that a configuration asks for.

    Raises:
        ModelError: no weights, or not the ones that their hash promises.
    """
    torch.set_num_threads(
        1
    )  # the scorer has threads of its own; torch's wait for one another when it is busy
    model = load_model(config.scorer.weights)
    instrument = Instrument.from_config(config.objective, config.camera)
    backends = open_backends(model, config.scorer)
    sampling = instrument.sampling if instrument else None
    return Scorer(model, sampling, backends, config.scorer.max_tiles)


def _end_in_any_case() -> None:
    """Arm an alarm that ends the process if a hung native call outlives the shutdown."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, SHUTDOWN_S)
