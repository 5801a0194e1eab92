"""The daemon: a rig, its operations and its sockets, put together and taken apart again."""

from __future__ import annotations

import logging
import os
import signal
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
from focusd.service.watchdog import Notifier, keep_alive, watch
from focusd.sharpness.scorer import Scorer
from focusd.sharpness.weights import load_model
from focusd.wire.server import serve

log = structlog.get_logger(__name__)

SHUTDOWN_S = 4.0
"""After this the process ends, whatever a native call is still doing (DESIGN §8)."""


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
    stopping, notifier = anyio.Event(), Notifier()
    async with anyio.create_task_group() as tasks:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            tasks.start_soon(_hear, signals, stopping, notifier)
            await _serve(config, stopping, notifier)
            tasks.cancel_scope.cancel()


async def _hear(signals: AsyncIterator[signal.Signals], stopping: anyio.Event, notifier: Notifier) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        if not stopping.is_set():
            notifier.tell("STOPPING=1", "STATUS=stopping")
            _end_in_any_case()
        stopping.set()


async def _serve(config: RigConfig, stopping: anyio.Event, notifier: Notifier) -> None:
    async with opened(config) as (operations, rig):
        bus = EventBus()
        with forward_to(bus), bus.subscribed(notifier.tell_state):
            async with anyio.create_task_group() as tasks:
                jobs = Jobs(bus, tasks)
                async with serve(config.server, operations, bus, jobs):
                    notifier.tell("READY=1")
                    tasks.start_soon(keep_alive, notifier, watch(jobs, rig))
                    await stopping.wait()
                tasks.cancel_scope.cancel()


@asynccontextmanager
async def opened(config: RigConfig) -> AsyncIterator[tuple[RigOperations, Rig]]:
    """The operations of a rig whose hardware is open inside the `async with`."""
    scorer = await to_thread.run_sync(open_scorer, config)
    microscope = await to_thread.run_sync(open_microscope, config)
    rig = Rig(microscope, config.stage, config.camera)
    try:
        await rig.position_um()  # a stage that cannot even be read is told now, not at the first request
        store = CalibrationStore(config.state_dir / config.name / "calibrations")
        yield RigOperations(config, rig, scorer, store), rig
    finally:
        with anyio.CancelScope(shield=True):
            await rig.aclose()


def open_scorer(config: RigConfig) -> Scorer:
    """The scorer that a configuration asks for.

    Raises:
        ModelError: no weights, or not the ones that their hash promises.
    """
    if config.scorer.threads is not None:
        torch.set_num_threads(config.scorer.threads)
    model = load_model(config.scorer.weights)
    instrument = Instrument.from_config(config.objective, config.camera)
    return Scorer(model, instrument.sampling if instrument else None, config.scorer.batch)


def _end_in_any_case() -> None:
    """Arm an alarm that ends the process if a hung native call outlives the shutdown."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, SHUTDOWN_S)
