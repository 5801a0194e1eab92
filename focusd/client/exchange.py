"""A request and a subscription from the client's side, without their sockets: both clients share them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import from_json

from focusd.errors import RequestError, UnreachableError
from focusd.protocol import messages
from focusd.protocol.events import Event, read_event
from focusd.protocol.failure import Failure
from focusd.protocol.methods import PING, Method
from focusd.protocol.results import Started

R = TypeVar("R")

PATIENCE_S = 5.0
"""Silence after which a waiting client asks whether the daemon is still there."""


REFUSED = "A daemon that asks for keys is silent to a client whose key is not on its list (`focusctl keys`)"
"""What ZeroMQ does not tell: to a client that is refused, the daemon looks absent."""


class Exchange(Generic[R]):
    """One request from a client's side: what to send, how long to listen, when to give up. No I/O.

    A request that may take long has a ping in front and, after each silence, another: a daemon that is gone
    or was restarted is noticed long before the timeout.

    Attributes:
        results: the method's result, once the reply has come.
    """

    def __init__(
        self,
        endpoint: str,
        method: Method[..., R],
        params: Mapping[str, object],
        timeout_s: float,
        pixels: Sequence[bytes] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._endpoint = endpoint
        self._method = method
        self._key = params.get("request_key")
        self._timeout_s = timeout_s
        self._clock = clock
        self._deadline = clock() + timeout_s
        self._session: str | None = None
        self._is_job_alone = method.is_long and not params.get("wait")
        self._ping_is_out = bool(params.get("wait"))
        given = {name: value for name, value in params.items() if value is not None}
        self._outbox = [[self._ping()]] if self._ping_is_out else []
        self._outbox.append([messages.request(method.name, given, "request"), *pixels])
        self.results: list[R] = []

    def to_send(self) -> list[list[bytes]]:
        """The messages to send now."""
        sent, self._outbox = self._outbox, []
        return [[b"", *frames] for frames in sent]

    @property
    def listen_ms(self) -> int:
        """How long to listen before `silence`."""
        return max(0, round(1000 * min(PATIENCE_S, self._deadline - self._clock())))

    def receive(self, frames: Sequence[bytes]) -> None:
        """Take a message; `results` holds one when it was the reply.

        Raises:
            FocusdError: the daemon's error, as its own class.
            UnreachableError: another daemon has taken the place of the one that had the request, or it answers
                otherwise than this client understands.
        """
        reply = self._read(frames)
        try:
            if reply["id"] == "ping":
                self._pong(PING.read(reply["result"]).session)
            elif "error" in reply:
                raise Failure.model_validate(reply["error"]).error()
            else:
                self.results.append(self._result(reply["result"]))
        except ValidationError as error:
            raise self._unreachable(
                f"what {self._endpoint} answers to {self._method.name} is none of focusd/1 as this client knows it "
                f"({error.errors()[0]['msg']}): use the same version of focusd on both sides"
            ) from error

    def _result(self, answer: object) -> R:
        if self._is_job_alone:
            return cast(R, Started.model_validate(answer))
        return self._method.read(answer)

    def silence(self) -> None:
        """Nothing came while listening.

        Raises:
            UnreachableError: the daemon is gone, or the time is up.
        """
        if self._ping_is_out or self._session is None:
            raise self._unreachable(
                f"no answer from {self._endpoint}: is `focusd run` running there, "
                f"and is this its server.control? {REFUSED}"
            )
        if self._clock() >= self._deadline:
            raise self._unreachable(
                f"{self._method.name} has not ended within {self._timeout_s:g} s; focusd at {self._endpoint} "
                "is alive and goes on with it: wait longer, or cancel the job"
            )
        self._ping_is_out = True
        self._outbox.append([self._ping()])

    def _ping(self) -> bytes:
        return messages.request(PING.name, {}, "ping")

    def _pong(self, session: str) -> None:
        self._ping_is_out = False
        if self._session not in (None, session):
            raise self._unreachable(
                f"focusd at {self._endpoint} was restarted and has lost the request; ask again"
            )
        self._session = session

    def _read(self, frames: Sequence[bytes]) -> dict[str, Any]:
        """The reply as an object that has an id, and an object as its result or error."""
        try:
            reply: dict[str, Any] = from_json(frames[-1])
            outcome = reply.get("result", reply.get("error"))
            if "id" in reply and isinstance(outcome, dict):
                return reply
        except (ValueError, AttributeError):
            pass
        raise self._unreachable(f"what listens on {self._endpoint} is not a focusd")

    def _unreachable(self, message: str) -> UnreachableError:
        return UnreachableError(message, endpoint=self._endpoint, request_key=self._key)


class Inbox:
    """The events of one subscription: the wanted ones in order, and whether it is in place. No I/O."""

    def __init__(self, endpoint: str, topics: Sequence[str]) -> None:
        unknown = set(topics) - set(messages.TOPICS)
        if unknown:
            raise RequestError(f"no topic {min(unknown)!r}; there are {', '.join(messages.TOPICS)}")
        self._endpoint = endpoint
        self._topics = frozenset(topics)
        self.waiting: deque[Event] = deque()
        self.subscribed = False
        self._last: tuple[str, int] | None = None

    @property
    def subscriptions(self) -> list[bytes]:
        """What to subscribe to, in this order: the daemon answers the last one with the state."""
        if not self._topics:
            return [messages.event_topic("")]
        others = sorted(self._topics - {messages.STATE_TOPIC})
        return [messages.event_topic(topic) for topic in [*others, messages.STATE_TOPIC]]

    def receive(self, frames: Sequence[bytes]) -> None:
        """Take a message. The state that others are told when they subscribe is no news."""
        event = read_event(from_json(frames[-1]))
        self.subscribed = self.subscribed or event.topic == messages.STATE_TOPIC
        number = event.session, event.seq
        if number != self._last and (not self._topics or event.topic in self._topics):
            self.waiting.append(event)
            self._last = number

    def silence(self, seconds: float) -> UnreachableError:
        """The error to raise when nothing came for so long."""
        return UnreachableError(
            f"no event from {self._endpoint} within {seconds:g} s: is `focusd run` running there, "
            f"and is this its server.events? {REFUSED}",
            endpoint=self._endpoint,
        )
