"""What each method of the protocol answers: its operation, and a model of the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

from focusd import __version__
from focusd.daemon.asked import AskedRuns
from focusd.daemon.events import EventBus
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Job, Jobs, Report
from focusd.daemon.operations import RigOperations
from focusd.daemon.record import Record
from focusd.errors import CancelledJobError, RequestError
from focusd.focus.frame import Frame
from focusd.protocol import messages, methods
from focusd.protocol.events import StateUnknown
from focusd.protocol.messages import Part
from focusd.protocol.model import Result
from focusd.protocol.openrpc import openrpc
from focusd.protocol.requests import (
    PROTOCOL,
    BacklashParams,
    CalibrateParams,
    HelloParams,
    HoldParams,
    JobParams,
    LeaseIdParams,
    LeaseParams,
    LongParams,
    MoveParams,
    Params,
    PixelFrame,
    RefocusParams,
    ScoreParams,
    SinceParams,
)
from focusd.protocol.results import RunAnswer, RunDropped, Scores, Started
from focusd.protocol.runs import AskParams, RunParams, TellParams
from focusd.protocol.states import (
    Disengaged,
    Ended,
    Hello,
    HoldReport,
    JobStatus,
    Lease,
    LeaseReleased,
    RunningJob,
    Session,
    State,
)
from focusd.server.callers import Caller, Turns
from focusd.storage.worker import Worker

Reconnect = Callable[[], Awaitable[None]]
Handler = Callable[[Any], Awaitable[Result | bytes]]


class Answers:
    """Answers the requests of clients.

    Args:
        reconnect: called by `system.reconnect`; raises FocusdError where there is nothing to reconnect.
    """

    def __init__(
        self,
        operations: RigOperations,
        bus: EventBus,
        jobs: Jobs,
        hold: Hold,
        record: Record,
        reconnect: Reconnect,
    ) -> None:
        self._operations = operations
        self._bus = bus
        self._jobs = jobs
        self._hold = hold
        self._record = record
        self._ask_to_reconnect = reconnect
        self._scoring = Turns()
        self._asked = AskedRuns(operations.autofocus, bus.publish, operations.found_by_client)
        self._paging = Worker("events")
        self._encoding = anyio.Lock()
        slide, calibrations = operations.slide, operations.calibrations
        self._handlers: dict[methods.Method[..., Any], Handler] = {
            methods.HELLO: self._hello,
            methods.PING: self._ping,
            methods.RECONNECT: self._reconnect,
            methods.STATE: self._get_state,
            methods.CALIBRATE: self._calibrate,
            methods.REFOCUS: self._refocus,
            methods.HOLD: self._engage,
            methods.RELEASE: self._release,
            methods.MOVE: self._move,
            methods.BACKLASH: self._backlash,
            methods.CANCEL: self._cancel,
            methods.JOB: self._status,
            methods.ACQUIRE_LEASE: self._acquire_lease,
            methods.RELEASE_LEASE: self._release_lease,
            methods.SINCE: self._since,
            methods.MAP_ADD: self._answering(slide.add),
            methods.MAP_PREDICT: self._answering(slide.predict),
            methods.MAP_GET: self._answering(slide.get),
            methods.MAP_OFFSET: self._answering(slide.offset),
            methods.MAP_CLEAR: self._answering(slide.clear),
            methods.CALIBRATIONS: self._answering(calibrations.listed),
            methods.SHOW_CALIBRATION: self._answering(calibrations.show),
            methods.USE_CALIBRATION: self._answering(calibrations.use),
            methods.REMOVE_CALIBRATION: self._answering(calibrations.remove),
            methods.DROP: self._drop,
            methods.DISCOVER: self._discover,
        }

    async def answer(self, method: str, params: Params, pixels: list[Part], caller: Caller) -> Result | bytes:
        """The result of a request, which may be JSON already.

        Raises:
            FocusdError: it has none.
        """
        if isinstance(params, ScoreParams):
            async with self._scoring.of(caller.name):
                return await self._score(params, pixels, caller)
        if isinstance(params, AskParams):
            return await self._asked.ask(params.client or caller.name, params)
        if isinstance(params, TellParams):
            return await self._tell(params, pixels)
        return await self._handlers[methods.METHODS[method]](params)

    async def _hello(self, params: HelloParams) -> Hello:
        if params.protocol != PROTOCOL:
            raise RequestError(f"this daemon speaks {PROTOCOL}, not {params.protocol!r}")
        return Hello(
            protocols=[PROTOCOL],
            version=__version__,
            session=self._bus.session,
            methods=list(methods.METHODS),
            topics=list(messages.TOPICS),
        )

    async def _ping(self, _params: Params) -> Session:
        return Session(session=self._bus.session)

    async def _reconnect(self, _params: Params) -> Session:
        await self._ask_to_reconnect()
        return Session(session=self._bus.session)

    async def _get_state(self, _params: Params) -> State:
        return await self._current_state()

    async def _calibrate(self, params: CalibrateParams) -> Started:
        return await self._run_long("calibrate", self._operations.calibrate, params)

    async def _refocus(self, params: RefocusParams) -> Started:
        return await self._run_long("refocus", self._operations.refocus, params)

    async def _move(self, params: MoveParams) -> Started:
        return await self._run_long("move", self._operations.move, params)

    async def _backlash(self, params: BacklashParams) -> Started:
        return await self._run_long("backlash", self._operations.backlash, params)

    async def _run_long(
        self, kind: str, operation: Callable[[Any, Report], Awaitable[Ended]], params: LongParams
    ) -> Started:
        job = self._jobs.start(
            kind,
            lambda report: operation(params, report),
            params.client,
            params.request_key,
            params.operation(),
            lease_id=params.lease_id,
        )
        return await _outcome(job) if params.wait else Started(job_id=job.id)

    async def _cancel(self, params: JobParams) -> JobStatus:
        return self._jobs.cancel(params.job_id).status()

    async def _status(self, params: JobParams) -> JobStatus:
        return self._jobs.status(params.job_id).status()

    async def _engage(self, params: HoldParams) -> HoldReport:
        self._operations.require_hardware()
        return await self._hold.engage(params)

    async def _release(self, _params: Params) -> HoldReport | Disengaged:
        return await self._hold.release()

    async def _score(self, params: ScoreParams, pixels: list[Part], caller: Caller) -> Scores:
        """Score a client's frames, one after the other, and let the hold learn from them."""
        params.check_pixels(pixels)
        scores = []
        for frame, content in zip(params.frames, pixels, strict=True):
            if caller.line.has_ended:
                raise CancelledJobError("the client has gone, and nobody waits for these scores")
            score = await self._operations.score(pixels=_image(frame, content), roi=params.roi)
            learns = params.track and score.b is not None
            tracked = learns and self._hold.saw(score.sharpness, frame.z_um, params.tags)
            scores.append(score.model_copy(update={"tracked": tracked}))
        return Scores(scores=scores)

    async def _tell(self, params: TellParams, pixels: list[Part]) -> RunAnswer:
        params.check_pixels(pixels)
        frames = [
            Frame(_image(frame, content), frame.z_um, full_scale=frame.full_scale)
            for frame, content in zip(params.frames, pixels, strict=True)
        ]
        return await self._asked.tell(params.run, frames)

    async def _drop(self, params: RunParams) -> RunDropped:
        return self._asked.drop(params.run)

    def expire_runs(self) -> None:
        """End the runs of clients that nobody has told anything for long."""
        self._asked.expire()

    async def _acquire_lease(self, params: LeaseParams) -> Lease:
        return await self._jobs.acquire_lease(params.client, params.seconds, params.lease_id)

    async def _release_lease(self, params: LeaseIdParams) -> LeaseReleased:
        released = self._jobs.lease.release(params.lease_id)
        return LeaseReleased(released=released)

    async def _since(self, params: SinceParams) -> bytes:
        """From memory if it reaches so far back, else from the record, which has no heartbeats.

        Either way what is answered is on disk, as far as the disk takes it.
        """
        session = params.session or self._bus.session
        if session == self._bus.session and self._bus.remembers(params.seq):
            events = self._bus.since(params.seq, params.limit)
            await self._record.flushed()
        else:
            events = await self._record.since(session, params.seq, params.limit)
        return await self._paging.do(messages.page, self._bus.session, events)

    def _answering(self, operation: Callable[..., Awaitable[Result]]) -> Handler:
        """The handler of a method that may have much to tell: one answer is encoded after the other."""

        async def answer(params: Params) -> bytes:
            result = await operation(**dict(params))
            async with self._encoding:
                return messages.encode(result)

        return answer

    async def _discover(self, _params: Params) -> bytes:
        return await anyio.to_thread.run_sync(openrpc)  # made with the first request, in a tenth of a second

    async def state_or_fault(self) -> State | StateUnknown:
        """The state; what is wrong where it cannot be told."""
        try:
            return await self._current_state()
        except Exception as error:
            return StateUnknown(fault=str(error))

    async def _current_state(self) -> State:
        job = self._jobs.running
        running = RunningJob(job_id=job.id, kind=job.kind, client=job.client) if job else None
        rig = await self._operations.state()
        return State(**dict(rig), job=running, lease=self._jobs.lease.holder, hold=self._hold.state())


def _image(frame: PixelFrame, content: Part) -> NDArray[Any]:
    """The pixels of a frame, (y, x) or (y, x, colours), as they came."""
    return np.frombuffer(content, np.dtype(frame.dtype).newbyteorder("<")).reshape(frame.shape)


async def _outcome(job: Job) -> Started:
    """The end of a job as the reply to the request that waited for it."""
    await job.wait()
    if job.error:
        raise job.error.error()
    assert job.result is not None, "it has succeeded"
    return job.result.model_copy(update={"job_id": job.id})
