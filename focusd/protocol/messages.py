"""What is on the wire: JSON-RPC 2.0 envelopes and event frames. No sockets.

Control: `[envelope…, b"", JSON-RPC 2.0]`. Events: `[b"focusd/1/<topic>", JSON]`. JSON is strict both ways:
NaN is refused when it comes in and sent as null.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from focusd.errors import FocusdError, RequestError
from focusd.protocol.failure import Failure
from focusd.protocol.methods import METHODS
from focusd.protocol.model import Finite, Model, Name, Result
from focusd.protocol.requests import PROTOCOL, Message, Params, PixelParams
from focusd.terminal import printable

STATE_TOPIC = "state"
TOPICS = (STATE_TOPIC, "job", "focus.progress", "focus.done", "focus.failed", "drift", "log", "heartbeat")

WITH_PIXELS = [name for name, method in METHODS.items() if issubclass(method.params, PixelParams)]
MAX_JSON_BYTES = 1 << 18
"""Ten times what any request needs: a thousand positions, or planes."""
MAX_FRAME_BYTES = 1 << 25
"""A client that sends a longer frame is disconnected: pixels of 4096×4096, 16 bit, still pass."""


MAX_PARAMS = 64
"""Of a request; each that does not exist costs time to be told."""
MAX_VALUES = 4096
"""Of a request's JSON: commas and colons. A thousand positions have 2,000; each value costs time to be read."""
MAX_PARTS = 80
"""Of a message: the envelope, the JSON frame and 64 frames of pixels."""
MAX_MESSAGE_BYTES = 96 << 20
"""Of all parts together."""
MAX_ENVELOPE_BYTES = 2048
"""It comes back with the reply."""
MAX_SUBSCRIPTION_BYTES = 1 << 10
"""Topics are shorter by far; what a client sends at first, to show its key, is 400 bytes."""
MAX_PAGE_BYTES = 1 << 18
"""Of the events in an answer, but for one that is longer by itself."""

Part = bytes | memoryview
"""A frame; one of pixels is not copied."""


class ParseError(FocusdError):
    """The request is not JSON."""

    code = -32700


class InvalidRequestError(FocusdError):
    """The request is JSON, but no JSON-RPC 2.0 request."""

    code = -32600


class UnknownMethodError(FocusdError):
    """There is no such method."""

    code = -32601


RequestId = Annotated[str, Field(max_length=256)] | Annotated[int, Field(ge=-(2**63), lt=2**63)] | Finite
"""It comes back with the reply, which waits for a client that does not read it."""


class Request(Message):
    """A JSON-RPC 2.0 request."""

    jsonrpc: Literal["2.0"]
    method: Name
    params: Annotated[dict[str, object], Field(max_length=MAX_PARAMS)] | list[object] = Field(
        default_factory=dict
    )
    id: RequestId | None = None

    @property
    def is_notification(self) -> bool:
        """Whether no reply is wanted: the id is left out, not null."""
        return "id" not in self.model_fields_set

    def checked_params(self) -> Params:
        """The params as the method's model.

        Raises:
            UnknownMethodError: there is no such method.
            RequestError: the params are wrong; the message names them.
        """
        method = METHODS.get(self.method)
        if method is None:
            raise UnknownMethodError(f"unknown method {self.method[:80]!r}; rpc.discover lists them all")
        if isinstance(self.params, list):
            raise RequestError("params must be an object: they are given by name")
        try:
            return method.params.model_validate(self.params)
        except ValidationError as error:
            raise RequestError(f"{self.method}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """The first wrong keys with their reasons."""
    items = error.errors(include_url=False, include_input=False, include_context=False)[:5]
    return printable(
        "; ".join(f"{'.'.join(map(str, item['loc']))[:80]}: {item['msg'][:200]}" for item in items)
    )


def encode(value: object) -> bytes:
    """JSON; NaN becomes null, NumPy's numbers and arrays become plain ones, and what UTF-8 cannot hold becomes ?."""
    try:
        return _json(value)
    except PydanticSerializationError:  # half of a character, as in a file name that is no text
        return _json(_encodable(value))


def _json(value: object) -> bytes:
    return to_json(
        value, inf_nan_mode="null", fallback=lambda other: getattr(other, "tolist", other.__str__)()
    )


def _encodable(value: object) -> object:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Model):
        return _encodable(value.model_dump())
    if isinstance(value, Mapping):
        return {_encodable(name): _encodable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


def read_request(content: Sequence[Part]) -> Request:
    """The frames after the delimiter as a request; pixels may follow the JSON frame only where a method takes them.

    Raises:
        ParseError: not JSON.
        InvalidRequestError: not one JSON-RPC 2.0 request.
    """
    if not content:
        raise InvalidRequestError("send one JSON frame after the empty one, not 0")
    if len(content[0]) > MAX_JSON_BYTES:
        raise InvalidRequestError(f"the JSON frame is longer than {MAX_JSON_BYTES} bytes")
    body = bytes(content[0])
    if body.count(b",") + body.count(b":") > MAX_VALUES:
        raise InvalidRequestError(f"the JSON frame holds more than {MAX_VALUES} values")
    asked = _read_json(body)
    if len(content) > 1 and asked.method not in WITH_PIXELS:
        raise InvalidRequestError(
            f"send one JSON frame after the empty one, not {len(content)}: only {' and '.join(WITH_PIXELS)} take pixels"
        )
    return asked


def _read_json(body: bytes) -> Request:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ParseError(f"not JSON in UTF-8: {str(error)[:200]}") from error
    if isinstance(value, list):
        raise InvalidRequestError("batches are not served: send one request a message")
    if isinstance(value, dict) and len(value) > MAX_PARAMS:
        raise InvalidRequestError(f"a request holds jsonrpc, id, method and params, not {len(value)} keys")
    try:
        return Request.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(f"not a JSON-RPC 2.0 request: {_explain(error)}") from error


def split_envelope(frames: Sequence[Part]) -> tuple[list[bytes], list[Part]]:
    """A ROUTER's frames as (what to send back in front of the reply, content).

    The envelope is all up to the first empty frame, whatever REQ (with REQ_CORRELATE) or a proxy put there.

    Raises:
        InvalidRequestError: no frame is empty, or there is too much.
    """
    size = sum(map(len, frames))
    if len(frames) > MAX_PARTS or size > MAX_MESSAGE_BYTES:
        raise InvalidRequestError(
            f"{len(frames)} frames of {size} bytes are too much for one message: send up to {MAX_PARTS} frames of "
            f"{MAX_MESSAGE_BYTES} bytes"
        )
    end = next((number for number, frame in enumerate(frames) if number and not len(frame)), None)
    if end is None:
        raise InvalidRequestError("send an empty frame before the JSON frame, as a REQ socket does")
    if sum(map(len, frames[:end])) > MAX_ENVELOPE_BYTES:
        raise InvalidRequestError(
            f"what comes before the empty frame is longer than {MAX_ENVELOPE_BYTES} bytes"
        )
    return [bytes(frame) for frame in frames[: end + 1]], list(frames[end + 1 :])


def request(method: str, params: Mapping[str, object], request_id: str | int) -> bytes:
    """A request's JSON."""
    return encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def result_reply(request_id: str | float | None, result: Result | bytes) -> bytes:
    """The reply's JSON to a request that succeeded; the result may be JSON already."""
    if isinstance(result, bytes):
        return b'{"jsonrpc":"2.0","id":' + encode(request_id) + b',"result":' + result + b"}"
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def one_page(events: Iterable[bytes]) -> list[bytes]:
    """The first of some events, encoded, as many as one answer to `events.since` holds."""
    taken: list[bytes] = []
    size = 0
    for event in events:
        size += len(event)
        if taken and size > MAX_PAGE_BYTES:
            break
        taken.append(event)
    return taken


def page(session: str, events: Iterable[bytes]) -> bytes:
    """The answer to `events.since`, as JSON."""
    return b'{"session":' + encode(session) + b',"events":[' + b",".join(one_page(events)) + b"]}"


def error_reply(request_id: str | float | None, error: Exception) -> bytes:
    """The reply's JSON to a request that failed."""
    return encode({"jsonrpc": "2.0", "id": request_id, "error": Failure.of(error)})


def is_subscription(prefix: bytes) -> bool:
    """Whether there is a topic that begins so."""
    return any(event_topic(topic).startswith(prefix) for topic in TOPICS)


def event_topic(topic: str) -> bytes:
    """The first frame of an event, and what to subscribe to: topics are prefixes."""
    return f"{PROTOCOL}/{topic}".encode()
