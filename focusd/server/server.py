"""The daemon's sockets: ROUTER for requests, XPUB for events (docs/reference/protocol.md).

A request gets exactly one reply, a malformed one too. Nothing a client sends or fails to receive can stop
the server or a job.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial

import anyio
import anyio.lowlevel
import structlog
import zmq
import zmq.asyncio
from anyio.abc import TaskGroup

from focusd.config import HttpConfig, ServerConfig
from focusd.daemon.events import Event, EventBus
from focusd.daemon.jobs import Jobs
from focusd.daemon.metrics import QUEUE
from focusd.daemon.record import Record
from focusd.errors import BusyError, FocusdError
from focusd.protocol import messages, methods
from focusd.protocol.events import StateUnknown
from focusd.protocol.messages import MAX_MESSAGE_BYTES, InvalidRequestError, Part, Request
from focusd.protocol.model import Result
from focusd.protocol.states import State
from focusd.server.admission import Admission, Load
from focusd.server.answers import Answers
from focusd.server.callers import Caller, Inbox, content_of
from focusd.server.door import Door, Line
from focusd.server.http import serving_http
from focusd.server.publisher import Publisher, serving_subscribers
from focusd.server.ratelimit import RateLimit
from focusd.server.sockets import Endpoints, open_sockets

log = structlog.get_logger(__name__)

HEARTBEAT_S = 1.0
FRAME_COST = 4.0
"""Of a frame to be scored, in requests: it takes a core as long as hundreds of them do."""
CANCEL = methods.CANCEL.name
"""Never refused for its sender's haste: it is how harm is stopped."""
CHANGING = {
    method.name for method in (methods.HOLD, methods.RELEASE, methods.ACQUIRE_LEASE, methods.RELEASE_LEASE)
}
"""After these the state is looked at; after a job, an event says so."""
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
    answers: Answers,
    bus: EventBus,
    jobs: Jobs,
    record: Record,
    http: HttpConfig | None = None,
) -> AsyncIterator[Endpoints]:
    """Serve clients inside the `async with`.

    Its end ends the running job, answers those who wait for it, then closes.

    Args:
        answers: to what clients ask.
        http: whether the same is served over HTTP; None: it is not.

    Raises:
        HttpError: the HTTP port cannot be bound.
        EndpointError: an address is taken by another focusd, or cannot be bound.
        KeyFileError: keys are asked for and cannot be used.
    """
    with ExitStack() as resources:
        sockets, endpoints = open_sockets(config, resources)
        door = resources.enter_context(Door(endpoints.control, endpoints.events))
        limit = RateLimit(config.max_requests_per_s)
        publisher = Publisher(sockets.outbox, record)
        server = _Server(sockets.control, publisher, answers, bus, limit, door)
        resources.enter_context(bus.subscribed(server.hear))
        loop = asyncio.get_running_loop()
        greet = partial(_unless_ended, loop, server.greet)
        resources.enter_context(serving_subscribers(sockets, door, greet))
        log.info("serving", control=endpoints.control, events=endpoints.events)
        async with anyio.create_task_group() as answering:
            async with anyio.create_task_group() as listening:
                server.start(listening, answering)
                try:
                    async with serving_http(http.port if http else None, server.reply_to):
                        try:
                            yield endpoints
                        finally:  # those who wait for a job over HTTP are answered, too
                            with anyio.CancelScope(shield=True):
                                await jobs.shutdown()
                finally:
                    with anyio.CancelScope(shield=True):
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
        publisher: Publisher,
        answers: Answers,
        bus: EventBus,
        limit: RateLimit,
        door: Door,
    ) -> None:
        self._control = control
        self.publisher = publisher
        self._answers = answers
        self._bus = bus
        self._limit = limit
        self._door = door
        self._under_way = Admission(*UNDER_WAY)
        self._reading = RateLimit(READING_PER_S, at_once=READING_AT_ONCE)
        self._state: State | StateUnknown | None = None
        self._someone_is_new = False
        self._look_at_state = anyio.Event()

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
            envelope, reply = [bytes(frames[0]), b""], messages.error_reply(None, error)
        if reply:
            self._limit.charge(caller.name, _cost(reply, BYTES_A_REPLY) - 1)
            await self._control.send_multipart([*envelope, reply])

    async def reply_to(self, content: list[Part], client: str) -> bytes | None:
        """Reply to a message that came another way than over ZeroMQ."""
        with QUEUE.labels("requests").track_inprogress():
            return await self._reply(content, Caller(client, Line(None, None)))

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
            return messages.error_reply(None, error)
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
            reply = messages.error_reply(request.id, error)
        except Exception as error:
            log.exception("a request failed on a fault of focusd", method=request.method)
            reply = messages.error_reply(request.id, error)
        return None if request.is_notification else reply

    async def _result(
        self, request: Request, pixels: list[Part], caller: Caller, is_long: bool = False
    ) -> Result | bytes:
        with self._charged(caller, is_long):
            params = request.checked_params()
        result = await self._answers.answer(request.method, params, pixels, caller)
        if request.method in CHANGING:
            self._look_at_state.set()
        return result

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
            state = await self._answers.state_or_fault()
            if state != self._state:
                self._state = state
                self._bus.publish(messages.STATE_TOPIC, state.model_dump())
            elif someone_is_new:
                self.publisher.greet(state.model_dump(), self._bus)
            await anyio.sleep(STATE_S)

    async def _beat(self) -> None:
        started_s = time.perf_counter()
        while True:
            self._answers.expire_runs()
            self._bus.publish("heartbeat", {"uptime_s": round(time.perf_counter() - started_s, 3)})
            await anyio.sleep(HEARTBEAT_S)


def _hasty() -> BusyError:
    return BusyError("this client sends too many requests (server.max_requests_per_s); wait a second")


def _cost(json: Part, bytes_a_request: int) -> float:
    """In requests."""
    return max(1.0, len(json) / bytes_a_request)
