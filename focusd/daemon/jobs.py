"""Long operations as jobs: one at a time, cancellable, remembered after their end."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskGroup

from focusd.daemon.events import Event, EventBus, Payload
from focusd.daemon.lease import Lease
from focusd.errors import BusyError, CancelledJobError, FocusdError, RequestError
from focusd.protocol import states
from focusd.protocol.failure import Failure
from focusd.protocol.requests import LongParams
from focusd.protocol.states import Ended, JobState, JobStatus
from focusd.rounding import rounded_um

log = structlog.get_logger(__name__)

REMEMBERED = 2000
"""Finished jobs whose end can still be asked for."""
KEY_LIFETIME_S = 600.0
"""How long after a job's end its request key still answers with it."""

Report = Callable[[str, Payload], object]
"""(topic, payload): how an operation publishes events that carry its job's id."""
Work = Callable[[Report], Awaitable[Ended]]
LOGGED = (
    "z_focus_um",
    "focus_um",
    "backlash_um",
    "sigma_um",
    "z_um",
    "stage_z_um",
    "exposures",
    "outcome",
    "message",
)
"""What the log's line at a job's end repeats of its result or of its error's data."""


@dataclass(eq=False)
class Job:
    """One long operation, from the request to its end."""

    kind: str
    client: str
    request_key: str | None
    params: LongParams | None
    background: bool = False
    """Gives way to any other job."""
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    state: JobState = "queued"
    result: Ended | None = None
    error: Failure | None = None
    """Not the exception, whose traceback would keep camera frames alive."""
    progress_s: float = field(default_factory=time.perf_counter)
    """When it last reported something, or began."""
    ended_s: float | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _ended: anyio.Event = field(default_factory=anyio.Event)

    def report(self, bus: EventBus, topic: str, payload: Payload) -> Event:
        """Publish an event of this job, which is a sign of its progress."""
        self.progress_s = time.perf_counter()
        return bus.publish(topic, payload, self.id)

    @property
    def context(self) -> dict[str, str]:
        """What each of its log lines says about it."""
        given = {"job_id": self.id, "request_key": self.request_key, "client": self.client}
        return {name: value for name, value in given.items() if value}

    async def wait(self) -> None:
        """Return when the job has ended, however it did."""
        await self._ended.wait()

    def succeed(self, result: Ended) -> None:
        """Set the result."""
        self.state, self.result = "succeeded", result

    def fail(self, error: Exception) -> None:
        """Set the error."""
        self.state = "cancelled" if isinstance(error, CancelledJobError) else "failed"
        self.error = Failure.of(error, job_id=self.id)

    def end(self, now_s: float) -> None:
        """Wake those who wait."""
        self.ended_s = now_s
        self._ended.set()

    def figures(self) -> dict[str, object]:
        """What the log says of its end: outcome, focus and uncertainty, exposures; lengths have the digits of σ."""
        if self.error:
            told = self.error.data.model_dump() | {"message": self.error.message}
        else:
            told = self.result.model_dump() if self.result else {}
        known = {name: told[name] for name in LOGGED if told.get(name) not in (None, "")}
        sigma_um = known.get("sigma_um")
        return {
            name: rounded_um(value, sigma_um) if isinstance(value, float) else value
            for name, value in known.items()
        }

    def status(self) -> JobStatus:
        """What `job.status` answers."""
        return JobStatus(
            job_id=self.id,
            kind=self.kind,
            client=self.client,
            state=self.state,
            result=self.result,
            error=self.error,
        )


class Jobs:
    """Runs one job at a time in a task group of the caller's, and none while another client has the lease."""

    def __init__(
        self, bus: EventBus, tasks: TaskGroup, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.lease = Lease(clock)
        self._bus = bus
        self._tasks = tasks
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._by_key: dict[str, Job] = {}
        self._closing = False

    @property
    def running(self) -> Job | None:
        """The job that has not ended, if there is one: always the latest."""
        latest = next(reversed(self._jobs.values()), None)
        return latest if latest and latest.ended_s is None else None

    def start(
        self,
        kind: str,
        run: Work,
        client: str = "",
        request_key: str | None = None,
        params: LongParams | None = None,
        *,
        lease_id: str | None = None,
        background: bool = False,
    ) -> Job:
        """Start `run`, or find the job that this request key has already started.

        A background job that runs is cancelled, and `run` begins when it has ended.

        Args:
            lease_id: of the lease under which it may run.

        Raises:
            BusyError: another job is running or somebody has the lease; nothing was started, the key is not used up.
            RequestError: the key belongs to a request of another kind or with other params.
        """
        known = self._known(kind, request_key, params)
        if known:
            return known
        self.lease.check(lease_id)
        self._refuse_if_busy(background)
        ending = self.running
        if ending:
            ending.scope.cancel()
        job = Job(kind, client, request_key, params, background)
        self._jobs[job.id] = job
        if request_key:
            self._by_key[request_key] = job
        if len(self._jobs) > REMEMBERED:
            self._forget(next(iter(self._jobs)))
        self._tasks.start_soon(self._run, job, run, ending)
        return job

    async def acquire_lease(self, client: str, seconds: float, lease_id: str | None) -> states.Lease:
        """Give a client the lease, from when a background job that runs has ended with the stage at rest.

        Raises:
            BusyError: a job is running, or somebody else has the lease.
        """
        if lease_id is None:
            self._refuse_if_busy()
        granted = self.lease.acquire(client, seconds, lease_id)
        job = self.running
        if job and job.background:
            job.scope.cancel()
            await job.wait()
            granted = self.lease.acquire(client, seconds, granted.lease_id)
        return granted

    def _known(self, kind: str, request_key: str | None, params: LongParams | None) -> Job | None:
        job = self._by_key.get(request_key or "")
        if job is None or (job.ended_s is not None and job.ended_s < self._clock() - KEY_LIFETIME_S):
            return None
        if (job.kind, job.params) != (kind, params):
            raise RequestError("this request_key was used for another request; take a new UUID for each")
        return job

    def _forget(self, job_id: str) -> None:
        job = self._jobs.pop(job_id)
        if self._by_key.get(job.request_key or "") is job:
            del self._by_key[job.request_key or ""]

    def _refuse_if_busy(self, background: bool = False) -> None:
        if self._closing:
            raise BusyError("focusd is stopping; ask again when it runs")
        job = self.running
        if job and (background or not job.background):
            whose = f" of {job.client}" if job.client else ""
            message = f"a {job.kind} job{whose} is running ({job.id}); wait for its end or cancel it"
            raise BusyError(message, job_id=job.id, kind=job.kind, client=job.client)

    def status(self, job_id: str) -> Job:
        """The job with this id.

        Raises:
            RequestError: there is none, or it is forgotten.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise RequestError(
                f"no job {job_id[:40]!r}; only the last {REMEMBERED} of this session are remembered"
            )
        return job

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end; a job that has ended stays as it is. Does not wait.

        Raises:
            RequestError: there is no such job.
        """
        job = self.status(job_id)
        if job.ended_s is None:
            job.scope.cancel()
        return job

    async def shutdown(self) -> None:
        """Refuse new jobs, cancel the running one and wait for its clean end."""
        self._closing = True
        if job := self.running:
            job.scope.cancel()
            await job.wait()

    async def _run(self, job: Job, run: Work, ending: Job | None) -> None:
        with structlog.contextvars.bound_contextvars(**job.context), _logged(job):
            try:
                if (
                    ending
                ):  # whatever becomes of this job: it has not ended before the one that gives way to it
                    with anyio.CancelScope(shield=True):
                        await ending.wait()
                await self._attempt(job, run)
            finally:
                if job.state in ("queued", "running"):  # the whole daemon is being cancelled
                    job.fail(CancelledJobError("focusd stopped while the job ran"))
                job.end(self._clock())
                self._publish_state(job)

    async def _attempt(self, job: Job, run: Work) -> None:
        job.state = "running"
        self._publish_state(job)
        try:
            with job.scope:
                await anyio.lowlevel.checkpoint()  # one that is cancelled before it starts moves nothing
                job.succeed(await run(partial(job.report, self._bus)))
            if job.scope.cancelled_caught:
                job.fail(CancelledJobError("the job was cancelled"))
        except FocusdError as error:
            job.fail(error)
        except Exception as error:
            log.exception("a job failed on a fault of focusd", kind=job.kind)
            job.fail(error)

    def _publish_state(self, job: Job) -> None:
        payload: Payload = {"kind": job.kind, "client": job.client, "state": job.state}
        if job.error:
            payload["error"] = job.error.model_dump()
        self._bus.publish("job", payload, job.id)


@contextmanager
def _logged(job: Job) -> Iterator[None]:
    """Log a job's beginning and its end: at level info, the checks and moves of a hold at level debug."""
    level = logging.DEBUG if job.background else logging.INFO
    log.log(level, "a job begins", kind=job.kind)
    began_s = time.perf_counter()
    try:
        yield
    finally:
        seconds = round(time.perf_counter() - began_s, 3)
        log.log(level, "a job has ended", kind=job.kind, state=job.state, **job.figures(), seconds=seconds)
