"""The engine room: a thread with an event loop of its own, in which the rig runs while the program goes on.

It changes nothing of the process: no signal handler, no setting of the interpreter, of torch or of logging.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio
import structlog
from anyio import to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from focusd.assembly import Assembly, assembled
from focusd.config import EmbeddedConfig, RigConfig
from focusd.daemon.events import Subscriber
from focusd.daemon.jobs import Report
from focusd.daemon.opening import Borrowed, opened_rig
from focusd.embedded.logs import quiet_logging
from focusd.embedded.waiting import wait_for
from focusd.errors import BusyError, RequestError
from focusd.protocol.requests import LongParams
from focusd.protocol.results import CalibrationResult, RefocusResult
from focusd.scoring.choice import open_scorer
from focusd.scoring.scorer import Scorer
from focusd.server.sockets import LOOP

log = structlog.get_logger(__name__)
T = TypeVar("T")
R = TypeVar("R", CalibrationResult, RefocusResult)

PROGRAM = "the program"
"""The client's name of what the core's owner asks for."""
QUIET_S = 1.0
"""After the program has used its camera or stage, nothing is done in the background for so long: it may yet fetch
the image that it has taken."""
TURN_S = 365 * 86400.0
"""A turn of the program ends when the program says so; the lease behind it has to end at some time."""

INSIDE: ContextVar[bool] = ContextVar("focusd_inside", default=False)
"""Whether focusd itself is calling: in the engine room and in the threads that work for it."""


class EngineRoom:
    """A rig that runs in a thread of its own.

    Its methods may be called by any thread of the program, and wait.

    Attributes:
        assembly: the rig; for the room's own thread.
    """

    assembly: Assembly

    def __init__(self, config: RigConfig, borrowed: Borrowed, listener: Subscriber) -> None:
        """Open the rig.

        Args:
            listener: hears every event, in the room's thread.

        Raises:
            RigTakenError: another process runs this rig or drives its hardware.
            FocusdError: the rig does not open.
        """
        self._config = config
        self._borrowed = borrowed
        self._listener = listener
        self._ended: Future[None] | None = None
        self._lease_id: str | None = None
        self._turns = 0
        with ExitStack() as resources:
            resources.enter_context(quiet_logging())
            portal = start_blocking_portal(backend_options=LOOP, name="focusd")
            self._portal: BlockingPortal = resources.enter_context(portal)
            ready: Future[None] = Future()
            self._ended = self._portal.start_task_soon(self._live, ready)
            self._ended.add_done_callback(lambda ended: _fail(ready, ended))
            wait_for(ready)
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Cancel what runs, give back what is borrowed, and end the thread."""
        if self._ended is not None:
            with self._resources:
                self._portal.start_task_soon(self._leave)
                ended, self._ended = self._ended, None
                wait_for(ended)

    def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await a function in the room.

        Raises:
            BusyError: focusd itself is calling, as from what the program does at each image that is taken.
        """
        if INSIDE.get():
            raise BusyError("focusd is focusing at this moment; ask again when it has ended")
        result: T = wait_for(self._portal.start_task_soon(self._inside, function, *args))
        return result

    def job(self, kind: str, work: Callable[[Report], Awaitable[R]], params: LongParams) -> R:
        """Run a job to its end, and return its result.

        Raises:
            BusyError: another job is running, or somebody else has the lease.
            FocusdError: how the job failed.
        """
        result: R = self.call(self._job, kind, work, params)
        return result

    @contextmanager
    def turn(self, moves: str | None = None, *, alone: bool = False) -> Iterator[None]:
        """Give the program camera and stage inside the `with`: nothing of focusd's runs but what the program asks for.

        A job in the background gives way, and one that somebody has asked for is waited for.

        Args:
            moves: what moves the stage or changes the sample; None: nothing does.
            alone: not while another client has the lease, whose jobs would run.

        Raises:
            BusyError: another client has the lease.
        """
        self.call(self._take_turn, alone)
        try:
            yield
        finally:
            self.call(self._end_turn, moves)

    async def _live(self, ready: Future[None]) -> None:
        INSIDE.set(True)
        self._leaving = anyio.Event()
        scorer = await to_thread.run_sync(open_scorer, self._config)
        try:
            while await self._run(scorer, ready):
                log.warning("the rig is opened anew")
        finally:
            scorer.close()

    async def _run(self, scorer: Scorer, ready: Future[None]) -> bool:
        """Run the rig until the program leaves; return whether an operator wants it opened anew."""
        config, reopened = self._config, anyio.Event()
        assert isinstance(config.microscope, EmbeddedConfig)

        async def reconnect() -> None:
            if rig.fault is None:
                raise RequestError(
                    "the hardware is connected and not at fault: there is nothing to reconnect"
                )
            reopened.set()

        async with opened_rig(config, self._borrowed) as (rig, memory):
            serving = config.microscope.sockets
            async with assembled(
                config,
                scorer,
                rig,
                memory,
                reconnect,
                forgets_fault=reopened.is_set,
                serving=serving,
                listener=self._listener,
            ) as self.assembly:
                if not ready.done():
                    ready.set_result(None)
                await _first_of(self._leaving, reopened)
        return reopened.is_set() and not self._leaving.is_set()

    async def _leave(self) -> None:
        self._leaving.set()

    async def _inside(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        INSIDE.set(True)
        return await function(*args)

    async def _job(self, kind: str, work: Callable[[Report], Awaitable[R]], params: LongParams) -> Any:
        jobs = self.assembly.jobs
        job = jobs.start(kind, work, PROGRAM, params=params, lease_id=self._lease_id)
        try:
            await job.wait()
        except anyio.get_cancelled_exc_class():
            jobs.cancel(job.id)
            raise
        if job.error:
            raise job.error.error()
        return job.result

    async def _take_turn(self, alone: bool) -> None:
        try:
            await self._lease(TURN_S)
        except BusyError:
            if alone:
                raise
        self._turns += 1

    async def _lease(self, seconds: float) -> None:
        jobs = self.assembly.jobs
        while True:
            try:
                granted = await jobs.acquire_lease(PROGRAM, seconds, self._held_lease())
            except BusyError:
                if jobs.running is None:
                    raise
                await jobs.running.wait()
            else:
                self._lease_id = granted.lease_id
                return

    def _held_lease(self) -> str | None:
        """Return the lease's id while it lasts."""
        holder = self.assembly.jobs.lease.holder
        if holder is None or holder.client != PROGRAM:
            self._lease_id = None
        return self._lease_id

    async def _end_turn(self, moves: str | None) -> None:
        self._turns -= 1
        if self._turns == 0 and self._held_lease():
            await self._lease(QUIET_S)
        if moves is not None:
            if not self.assembly.rig.fault:
                await self.assembly.rig.position_um()
            self.assembly.hold.disturb(moves)


def _fail(ready: Future[None], ended: Future[None]) -> None:
    """Tell those who wait for the rig that it did not open."""
    if not ready.done():
        ready.set_exception(ended.exception() or RuntimeError("the engine room ended before it was ready"))


async def _first_of(*events: anyio.Event) -> None:
    async with anyio.create_task_group() as waiting:
        for event in events:
            waiting.start_soon(_until, event, waiting.cancel_scope)


async def _until(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
