"""The daemon's sockets: ROUTER for requests, XPUB for events (docs/reference/protocol.md).

A request gets exactly one reply, a malformed one too. Nothing a client sends or fails to receive can stop
the server or a job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import structlog
import zmq
import zmq.asyncio
from anyio.abc import TaskGroup

from focusd import __version__
from focusd.config import ServerConfig
from focusd.daemon.events import Event, EventBus
from focusd.daemon.hold import Hold
from focusd.daemon.jobs import Job, Jobs
from focusd.daemon.metrics import QUEUE
from focusd.daemon.record import Record
from focusd.errors import BusyError, CancelledJobError, FocusdError, RequestError, error_object, rebuild_error
from focusd.protocol import messages
from focusd.protocol.messages import MAX_MESSAGE_BYTES, InvalidRequestError, JsonObject, Part, Request
from focusd.protocol.params import (
    PROTOCOL,
    CalibrateParams,
    HelloParams,
    HoldParams,
    JobParams,
    LeaseIdParams,
    LeaseParams,
    LongParams,
    MoveParams,
    Params,
    RefocusParams,
    ScoreParams,
    SinceParams,
)
from focusd.server.admission import Admission, Load
from focusd.server.callers import Caller, Inbox, Turns, content_of
from focusd.server.door import Door
from focusd.server.operations import Operations
from focusd.server.publisher import Publisher, serving_subscribers
from focusd.server.ratelimit import RateLimit
from focusd.server.sockets import Endpoints, open_sockets
from focusd.storage.worker import Worker

log = structlog.get_logger(__name__)

Reconnect = Callable[[], Awaitable[None]]

HEARTBEAT_S = 1.0
FRAME_COST = 4.0
"""Of a frame to be scored, in requests: it takes a core as long as hundreds of them do."""
CANCEL = "job.cancel"
"""Never refused for its sender's haste: it is how harm is stopped."""
STATE_S = 0.05
"""The state is not published more often, whatever changes and whoever subscribes."""
UNDER_WAY = Load(requests=256, bytes=MAX_MESSAGE_BYTES), Load(requests=2048, bytes=2 * MAX_MESSAGE_BYTES)
"""Of one client and of all: requests that wait for their answers, with their pixels."""
BYTES_A_REQUEST, BYTES_A_REPLY = 1 << 12, 1 << 14
"""Longer JSON counts as so many requests of its client as it is times longer."""
READING_PER_S, READING_AT_ONCE = 200.0, 10.0
"""What all clients' requests that are longer than that may take to be read, in units of `REQUEST_S`."""
REQUEST_S = 1e-3
"""What takes longer to be read counts as so many requests as it is times longer."""
LAST_REPLIES_S = 1.0
"""How long the end waits for replies that are due."""


@asynccontextmanager
async def serve(
    config: ServerConfig,
    operations: Operations,
    bus: EventBus,
    jobs: Jobs,
    hold: Hold,
    record: Record,
    reconnect: Reconnect,
) -> AsyncIterator[Endpoints]:
    """Serve clients inside the `async with`.

    Its end ends the running job, answers those who wait for it, then closes.

    Args:
        reconnect: called by `system.reconnect`; raises FocusdError where there is nothing to reconnect.

    Raises:
        EndpointError: an address is taken by another focusd, or cannot be bound.
        KeyFileError: keys are asked for and cannot be used.
    """
    with ExitStack() as resources:
        sockets, endpoints = open_sockets(config, resources)
        door = resources.enter_context(Door(endpoints.control, endpoints.events))
        limit = RateLimit(config.max_requests_per_s)
        server = _Server(
            sockets.control, sockets.outbox, operations, bus, jobs, hold, record, limit, door, reconnect
        )
        resources.enter_context(bus.subscribed(server.hear))
        loop = asyncio.get_running_loop()
        greet = partial(_unless_ended, loop, server.greet)
        resources.enter_context(serving_subscribers(sockets, door, greet))
        log.info("serving", control=endpoints.control, events=endpoints.events)
        async with anyio.create_task_group() as answering:
            async with anyio.create_task_group() as listening:
                server.start(listening, answering)
                try:
                    yield endpoints
                finally:
                    with anyio.CancelScope(shield=True):
                        await jobs.shutdown()
                        await server.publisher.flush()
                    listening.cancel_scope.cancel()
            answering.cancel_scope.deadline = anyio.current_time() + LAST_REPLIES_S


def _unless_ended(loop: asyncio.AbstractEventLoop, told: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(told)


class _Server:
    def __init__(
        self,
        control: zmq.asyncio.Socket,
        outbox: zmq.asyncio.Socket,
        operations: Operations,
        bus: EventBus,
        jobs: Jobs,
        hold: Hold,
        record: Record,
        limit: RateLimit,
        door: Door,
        reconnect: Reconnect,
    ) -> None:
        self._control = control
        self.publisher = Publisher(outbox, record)
        self._operations = operations
        self._bus = bus
        self._jobs = jobs
        self._hold = hold
        self._record = record
        self._limit = limit
        self._door = door
        self._under_way = Admission(*UNDER_WAY)
        self._reading = RateLimit(READING_PER_S, at_once=READING_AT_ONCE)
        self._scoring = Turns()
        self._paging = Worker("events")
        self._encoding = anyio.Lock()
        self._ask_to_reconnect = reconnect
        self._state: JsonObject = {}
        self._someone_is_new = False
        self._look_at_state = anyio.Event()
        self._handlers: dict[str, Callable[[Any], Awaitable[JsonObject | bytes]]] = {
            "system.hello": self._hello,
            "system.ping": self._ping,
            "system.reconnect": self._reconnect,
            "state.get": self._get_state,
            "focus.calibrate": self._calibrate,
            "focus.run": self._refocus,
            "focus.hold": self._engage,
            "focus.release": self._release,
            "stage.move": self._move,
            CANCEL: self._cancel,
            "job.status": self._status,
            "lease.acquire": self._acquire_lease,
            "lease.release": self._release_lease,
            "events.since": self._since,
            "map.add": self._answering(operations.slide.add),
            "map.predict": self._answering(operations.slide.predict),
            "map.get": self._answering(operations.slide.get),
            "map.offset": self._answering(operations.slide.offset),
            "map.clear": self._answering(operations.slide.clear),
            "calibrations.list": self._answering(operations.calibrations.listed),
            "calibrations.show": self._answering(operations.calibrations.show),
            "calibrations.use": self._answering(operations.calibrations.use),
            "calibrations.remove": self._answering(operations.calibrations.remove),
            "rpc.discover": self._discover,
        }

    def start(self, listening: TaskGroup, answering: TaskGroup) -> None:
        """Start the loops, and with them everything a client can see."""
        listening.start_soon(self._receive, answering)
        listening.start_soon(self.publisher.run)
        listening.start_soon(self._watch_state)
        listening.start_soon(self._beat)

    async def _receive(self, answering: TaskGroup) -> None:
        inbox = Inbox(self._control)
        while True:
            parts = await inbox.message()
            caller = Caller.of(parts)
            self._door.heard(caller.line)
            if parts[-1].more:
                self._door.cut_client(caller.line)
            else:
                answering.start_soon(self._answer, [content_of(part) for part in parts], caller)
            # A receive that finds a message does not yield: a flood would starve everyone else.
            await anyio.lowlevel.checkpoint()

    async def _answer(self, frames: list[Part], caller: Caller) -> None:
        """Reply to one message. A client that has gone is no error: ROUTER drops what it cannot deliver."""
        reply: bytes | None
        try:
            envelope, content = messages.split_envelope(frames)
            with QUEUE.labels("requests").track_inprogress():
                reply = await self._reply(content, caller)
        except InvalidRequestError as error:
            envelope, reply = [bytes(frames[0]), b""], messages.error_reply(None, error_object(error))
        if reply:
            self._limit.charge(caller.name, _cost(reply, BYTES_A_REPLY) - 1)
            await self._control.send_multipart([*envelope, reply])

    async def _reply(self, content: list[Part], caller: Caller) -> bytes | None:
        length_cost = max((_cost(part, BYTES_A_REQUEST) for part in content[:1]), default=1.0)
        cost = length_cost + FRAME_COST * len(content[1:])
        allowed = self._limit.allows(caller.name, cost)
        is_long = length_cost > 1
        try:
            if not allowed and cost > 1:  # to read what it is would cost as much as to answer it
                raise _hasty()
            if is_long and not self._reading.allows(None, 0):
                raise BusyError(
                    "clients send too many long requests; ask again in a second, or ask for less at once"
                )
            with self._charged(caller, is_long):
                request = messages.read_request(content)
        except FocusdError as error:
            return messages.error_reply(None, error_object(error))
        try:
            if request.method == CANCEL:
                result = await self._result(request, [], caller)
            elif not allowed:
                raise _hasty()
            else:
                with self._under_way.admitted(caller.name, sum(map(len, content))):
                    result = await self._result(request, content[1:], caller, is_long)
            reply = messages.result_reply(request.id, result)
        except FocusdError as error:
            reply = messages.error_reply(request.id, error_object(error))
        except Exception as error:
            log.exception("a request failed on a fault of focusd", method=request.method)
            reply = messages.error_reply(request.id, error_object(error))
        return None if request.is_notification else reply

    async def _result(
        self, request: Request, pixels: list[Part], caller: Caller, is_long: bool = False
    ) -> JsonObject | bytes:
        with self._charged(caller, is_long):
            params = request.checked_params()
        if isinstance(params, ScoreParams):
            async with self._scoring.of(caller.name):
                return await self._score(params, pixels, caller)
        return await self._handlers[request.method](params)

    @contextmanager
    def _charged(self, caller: Caller, is_long: bool) -> Iterator[None]:
        """Count what takes long to be read as so many requests of its client."""
        began_s = time.thread_time()
        try:
            yield
        finally:
            cost = (time.thread_time() - began_s) / REQUEST_S
            self._limit.charge(caller.name, max(0.0, cost - 1))
            if is_long:
                self._reading.charge(None, cost)

    async def _hello(self, params: HelloParams) -> JsonObject:
        if params.protocol != PROTOCOL:
            raise RequestError(f"this daemon speaks {PROTOCOL}, not {params.protocol!r}")
        return {
            "protocols": [PROTOCOL],
            "version": __version__,
            "session": self._bus.session,
            "methods": list(messages.METHODS),
            "topics": list(messages.TOPICS),
        }

    async def _ping(self, _params: Params) -> JsonObject:
        return {"session": self._bus.session}

    async def _reconnect(self, _params: Params) -> JsonObject:
        await self._ask_to_reconnect()
        return {"session": self._bus.session}

    async def _get_state(self, _params: Params) -> JsonObject:
        return await self._current_state()

    async def _calibrate(self, params: CalibrateParams) -> JsonObject:
        return await self._run_long("calibrate", self._operations.calibrate, params)

    async def _refocus(self, params: RefocusParams) -> JsonObject:
        return await self._run_long("refocus", self._operations.refocus, params)

    async def _move(self, params: MoveParams) -> JsonObject:
        return await self._run_long("move", self._operations.move, params)

    async def _run_long(
        self, kind: str, operation: Callable[..., Awaitable[JsonObject]], params: LongParams
    ) -> JsonObject:
        arguments = params.operation()
        job = self._jobs.start(
            kind,
            lambda report: operation(**arguments, report=report),
            params.client,
            params.request_key,
            arguments,
            lease_id=params.lease_id,
        )
        return await _outcome(job) if params.wait else {"job_id": job.id}

    async def _cancel(self, params: JobParams) -> JsonObject:
        return self._jobs.cancel(params.job_id).summary()

    async def _status(self, params: JobParams) -> JsonObject:
        return self._jobs.status(params.job_id).summary()

    async def _engage(self, params: HoldParams) -> JsonObject:
        held = await self._hold.engage(
            client=params.client, roi=params.roi, position=params.position, tags=params.tags
        )
        self._look_at_state.set()
        return held

    async def _release(self, _params: Params) -> JsonObject:
        released = await self._hold.release()
        self._look_at_state.set()
        return released

    async def _score(self, params: ScoreParams, pixels: list[Part], caller: Caller) -> JsonObject:
        """Score a client's frames, one after the other, and let the hold learn from them."""
        params.check_pixels(pixels)
        scores = []
        for frame, content in zip(params.frames, pixels, strict=True):
            if caller.line.has_ended:
                raise CancelledJobError("the client has gone, and nobody waits for these scores")
            image = np.frombuffer(content, np.dtype(frame.dtype).newbyteorder("<")).reshape(frame.shape)
            score = await self._operations.score(pixels=image, roi=params.roi)
            learns = params.track and score["b"] is not None
            tracked = learns and self._hold.saw(score["sharpness"], frame.z_um, params.tags)
            scores.append(score | {"tracked": tracked})
        return {"scores": scores}

    async def _acquire_lease(self, params: LeaseParams) -> JsonObject:
        granted = await self._jobs.acquire_lease(params.client, params.seconds, params.lease_id)
        self._look_at_state.set()
        return granted

    async def _release_lease(self, params: LeaseIdParams) -> JsonObject:
        released = self._jobs.lease.release(params.lease_id)
        self._look_at_state.set()
        return {"released": released}

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

    def _answering(
        self, operation: Callable[..., Awaitable[JsonObject]]
    ) -> Callable[[Params], Awaitable[JsonObject | bytes]]:
        """The handler of a method that may have much to tell: one answer is encoded after the other."""

        async def answer(params: Params) -> bytes:
            result = await operation(**dict(params))
            async with self._encoding:
                return messages.encode(result)

        return answer

    async def _discover(self, _params: Params) -> bytes:
        return messages.openrpc()

    def hear(self, event: Event) -> None:
        """A subscriber of the event bus."""
        self.publisher.hear(event)
        if event["topic"] in ("job", "drift"):
            self._look_at_state.set()

    def greet(self) -> None:
        """Somebody has subscribed to the state: being told it, they also know that they are subscribed."""
        self._someone_is_new = True
        self._look_at_state.set()

    async def _watch_state(self) -> None:
        """Publish the state when it has changed: looked at with each heartbeat and each change of a job."""
        while True:
            with anyio.move_on_after(HEARTBEAT_S):
                await self._look_at_state.wait()
            self._look_at_state = anyio.Event()
            someone_is_new, self._someone_is_new = self._someone_is_new, False
            state = await self._state_or_fault()
            if state != self._state:
                self._state = state
                self._bus.publish(messages.STATE_TOPIC, state)
            elif someone_is_new:
                self.publisher.greet(state, self._bus)
            await anyio.sleep(STATE_S)

    async def _state_or_fault(self) -> JsonObject:
        try:
            return await self._current_state()
        except Exception as error:
            return {"fault": str(error)}

    async def _current_state(self) -> JsonObject:
        job = self._jobs.running
        summary = {"job_id": job.id, "kind": job.kind, "client": job.client} if job else None
        holding = {"lease": self._jobs.lease.summary(), "hold": self._hold.state()}
        return {**await self._operations.state(), "job": summary, **holding}

    async def _beat(self) -> None:
        started_s = time.perf_counter()
        while True:
            self._bus.publish("heartbeat", {"uptime_s": round(time.perf_counter() - started_s, 3)})
            await anyio.sleep(HEARTBEAT_S)


def _hasty() -> BusyError:
    return BusyError("this client sends too many requests (server.max_requests_per_s); wait a second")


def _cost(json: Part, bytes_a_request: int) -> float:
    """In requests."""
    return max(1.0, len(json) / bytes_a_request)


async def _outcome(job: Job) -> JsonObject:
    """The end of a job as the reply to the request that waited for it."""
    await job.wait()
    if job.error:
        raise rebuild_error(job.error)
    return {"job_id": job.id, **(job.result or {})}
