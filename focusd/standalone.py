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
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import anyio
import structlog
import torch
from anyio import to_thread

from focusd.assembly import assembled
from focusd.config import EmbeddedConfig, RigConfig
from focusd.daemon.logs import configure_logging
from focusd.daemon.opening import opened_rig
from focusd.daemon.rig import Rig
from focusd.daemon.signals import ending_signals
from focusd.daemon.stages import first_error
from focusd.daemon.watchdog import Notifier, keep_alive, watch
from focusd.errors import RequestError
from focusd.microscope.factory import borrowed_only
from focusd.scoring.choice import open_scorer
from focusd.server.sockets import LOOP

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
    if isinstance(config.microscope, EmbeddedConfig):
        raise borrowed_only()
    configure_logging(config.log)
    allow_descriptors()
    os.environ.setdefault("PATH", os.defpath)  # pymmcore-plus takes it for granted
    ending = Ending()
    with ending_signals() as signals:
        try:
            anyio.run(_run, config, ending, signals, backend_options=LOOP)
        except BaseExceptionGroup as group:
            logging.shutdown()  # the log comes before the error
            raise first_error(group) from None
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
    async with opened_rig(config) as (rig, memory):
        reconnect = partial(_reconnect, rig, ending)
        runs = assembled(
            config,
            scorer,
            rig,
            memory,
            reconnect,
            forgets_fault=lambda: ending.again,
            listener=notifier.tell_state,
        )
        async with runs as assembly, anyio.create_task_group() as tasks:
            favour_event_loop()
            notifier.tell("READY=1")
            tasks.start_soon(keep_alive, notifier, watch(assembly.jobs, rig))
            await ending.asked.wait()
            tasks.cancel_scope.cancel()


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
