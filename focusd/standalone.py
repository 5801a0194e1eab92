"""The daemon: a rig, its operations and its sockets, put together and taken apart again."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import anyio
import structlog
import torch
from anyio import to_thread

from focusd.config import RigConfig
from focusd.daemon.events import EventBus
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Jobs
from focusd.daemon.logs import configure_logging, forward_to
from focusd.daemon.memory import Recorder
from focusd.daemon.metrics import Bookkeeper, served
from focusd.daemon.opening import opened_rig
from focusd.daemon.operations import RigOperations
from focusd.daemon.record import recorded
from focusd.daemon.rig import Rig
from focusd.daemon.signals import ending_signals
from focusd.daemon.watchdog import Notifier, keep_alive, watch
from focusd.errors import RequestError
from focusd.scoring.choice import open_scorer
from focusd.server.server import serve
from focusd.server.sockets import LOOP
from focusd.storage.store import CalibrationStore

log = structlog.get_logger(__name__)

SHUTDOWN_S = 4.0
"""After this the process ends, whatever a native call is still doing (docs/explanation/field-notes.md)."""
DESCRIPTORS = 4096
"""Files and sockets that this process may have open, where the system lets it: each client takes one."""
SWITCH_S = 0.0001
"""How long a thread that computes may keep the event loop from running Python."""


@dataclass
class Ending:
    """How this process ends.

    Attributes:
        asked: set when it shall.
        again: a new process takes its place, which opens the hardware anew: nothing of a hung native call survives.
    """

    asked: anyio.Event = field(default_factory=anyio.Event)
    again: bool = False

    def leave(self) -> NoReturn:
        """End now. What native libraries do when the interpreter goes must neither hang nor change the exit code."""
        logging.shutdown()
        if self.again and sys.platform == "win32":  # which has no exec
            subprocess.Popen([sys.executable, *sys.orig_argv[1:]])
        elif self.again:
            os.execv(sys.executable, sys.orig_argv)
        os._exit(0)

    def within_bounds(self) -> None:
        """Arm an alarm that ends the process if a hung native call outlives the shutdown."""
        alarm = threading.Timer(SHUTDOWN_S, self.leave)
        alarm.daemon = True
        alarm.start()


def run(config: RigConfig) -> NoReturn:
    """Run until a signal asks for the end, then end the process with exit code 0.

    Signals are heard from the first moment to the last: a second one must not cut the first one's end short.

    Raises:
        FocusdError: the daemon cannot start; the message says why.
    """
    configure_logging(config.log)
    allow_descriptors()
    os.environ.setdefault("PATH", os.defpath)  # pymmcore-plus takes it for granted
    ending = Ending()
    with ending_signals() as signals:
        try:
            anyio.run(_run, config, ending, signals, backend_options=LOOP)
        except BaseExceptionGroup as group:
            logging.shutdown()  # the log comes before the error
            raise _first(group) from None
        ending.leave()


def allow_descriptors() -> None:
    """Raise this process's limit of open files and sockets as far as it may: the usual 1024 are soon used up."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            with suppress(OSError, ValueError):  # a sandbox may forbid it
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error inside nested groups: task groups wrap what they raise."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _run(config: RigConfig, ending: Ending, signals: AsyncIterator[signal.Signals]) -> None:
    with closing(Notifier()) as notifier:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_hear, signals, ending, notifier)
            await serve_rig(config, ending, notifier)
            tasks.cancel_scope.cancel()


async def _hear(signals: AsyncIterator[signal.Signals], ending: Ending, notifier: Notifier) -> None:
    async for number in signals:
        log.info("stopping", signal=number.name)
        ending.again = False
        if not ending.asked.is_set():
            notifier.tell("STOPPING=1", "STATUS=stopping")
            ending.within_bounds()
        ending.asked.set()


async def serve_rig(config: RigConfig, ending: Ending, notifier: Notifier) -> None:
    """Open the rig and serve it until the end is asked for."""
    torch.set_num_threads(1)  # the scorer has its own threads; torch's wait for one another when it is busy
    scorer = await to_thread.run_sync(open_scorer, config)
    folder = config.state_folder
    async with opened_rig(config) as (rig, memory):
        operations = RigOperations(config, rig, scorer, CalibrationStore(folder / "calibrations"))
        favour_event_loop()
        bus, recorder, bookkeeper = EventBus(), Recorder(memory, rig), Bookkeeper()
        reconnect = partial(_reconnect, rig, ending)
        with ExitStack() as resources:
            record = resources.enter_context(recorded(bus, folder / "events.sqlite"))
            resources.enter_context(forward_to(bus))
            for listener in (notifier.tell_state, recorder.hear, bookkeeper.hear):
                resources.enter_context(bus.subscribed(listener))
            async with (
                served(config.metrics, config.name, scorer.model.name),
                anyio.create_task_group() as tasks,
            ):
                jobs = Jobs(bus, tasks)
                hold = Hold(
                    operations,
                    bus,
                    jobs,
                    config.hold,
                    config.camera.exposure_ms,
                    interrupted=memory.record.hold,
                )
                tasks.start_soon(recorder.keep)
                tasks.start_soon(hold.run)
                async with serve(config.server, operations, bus, jobs, hold, record, reconnect, config.http):
                    notifier.tell("READY=1")
                    tasks.start_soon(keep_alive, notifier, watch(jobs, rig))
                    await ending.asked.wait()
                tasks.cancel_scope.cancel()
            recorder.stop(forget_fault=ending.again)


async def _reconnect(rig: Rig, ending: Ending) -> None:
    """End this process in favour of a new one, which may touch the hardware.

    Raises:
        RequestError: there is no fault.
    """
    if rig.fault is None:
        raise RequestError("the hardware is connected and not at fault: there is nothing to reconnect")
    log.warning("an operator reconnects the hardware", fault=rig.fault)
    ending.again = True
    ending.within_bounds()
    ending.asked.set()


def favour_event_loop() -> None:
    """Keep threads that compute, and the collector of garbage, from delaying it: once all libraries are loaded."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # else each full collection looks through all that the libraries have made: 0.1 s
