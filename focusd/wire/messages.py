"""What is on the wire: methods and their params, JSON-RPC 2.0 envelopes, event frames. No sockets.

Control: `[envelope…, b"", JSON-RPC 2.0]`. Events: `[b"focusd/1/<topic>", JSON]`. JSON is strict both ways:
NaN is refused when it comes in and sent as null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from focusd import __version__
from focusd.errors import FocusdError, RequestError

PROTOCOL = "focusd/1"
STATE_TOPIC = "state"
TOPICS = (STATE_TOPIC, "job", "focus.progress", "focus.done", "focus.failed", "log", "heartbeat")

JsonObject = dict[str, Any]


class ParseError(FocusdError):
    """The request is not JSON."""

    code = -32700


class InvalidRequestError(FocusdError):
    """The request is JSON, but no JSON-RPC 2.0 request."""

    code = -32600


class UnknownMethodError(FocusdError):
    """There is no such method."""

    code = -32601


class Message(BaseModel):
    """Anything that comes in: types as stated, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Finite = Annotated[float, Field(allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=64)]
Pixel = Annotated[int, Field(ge=0, le=1_000_000)]
Extent = Annotated[int, Field(ge=1, le=1_000_000)]
# JSON has no tuples: the array is accepted as one, its items stay strict.
Roi = Annotated[tuple[Pixel, Pixel, Extent, Extent], Field(strict=False)]


class Params(Message):
    """Params of a method without any."""


class HelloParams(Params):
    """Params of `system.hello`."""

    protocol: Name = PROTOCOL


class LongParams(Params):
    """What all long jobs take."""

    client: Name = ""
    """Who asks; shown to others while the job runs."""
    wait: bool = False
    """Answer at the end of the job instead of at once."""
    request_key: Annotated[str, Field(min_length=8, max_length=64)] | None = None
    """A UUID: asking again with the same key gives the same job."""

    ENVELOPE: ClassVar[frozenset[str]] = frozenset({"client", "wait", "request_key"})

    def operation(self) -> JsonObject:
        """The params of the operation itself."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in self.ENVELOPE}


class CalibrateParams(LongParams):
    """Params of `focus.calibrate`; None: as configured."""

    range_um: Length | None = None
    """Half the stack's extent."""
    step_um: Length | None = None
    planes_um: Annotated[list[Finite], Field(min_length=7, max_length=1000)] | None = None
    """The planes themselves, ascending, instead of range and step: for a recorded, irregular stack."""


class RefocusParams(LongParams):
    """Params of `focus.run`; None: as configured."""

    roi: Roi | None = None
    """Region of interest (y, x, height, width) in pixels."""
    strategy: Name | None = None
    max_exposures: Annotated[int, Field(ge=3, le=100)] | None = None


class MoveParams(LongParams):
    """Params of `stage.move`."""

    z_um: Finite


class JobParams(Params):
    """Params of `job.status` and `job.cancel`."""

    job_id: Name


class SinceParams(Params):
    """Params of `events.since`."""

    seq: Annotated[int, Field(ge=0)]
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


@dataclass(frozen=True)
class Method:
    """One method: its name, its params and what it does."""

    name: str
    params: type[Params]
    summary: str

    def openrpc(self) -> JsonObject:
        """This method's part of the OpenRPC document."""
        schema = self.params.model_json_schema()
        required = schema.get("required", [])
        params = [
            {"name": name, "required": name in required, "schema": part}
            for name, part in schema.get("properties", {}).items()
        ]
        result = {"name": "result", "schema": {"type": "object"}}
        return {
            "name": self.name,
            "summary": self.summary,
            "paramStructure": "by-name",
            "params": params,
            "result": result,
        }


METHODS = {
    method.name: method
    for method in (
        Method("system.hello", HelloParams, "Protocol, version, session, methods and topics."),
        Method("system.ping", Params, "Answers at once; names the session."),
        Method(
            "system.reconnect",
            Params,
            "After a fault that an operator has looked into: open the hardware again.",
        ),
        Method("state.get", Params, "What the rig is doing and where its stage stands."),
        Method(
            "focus.calibrate", CalibrateParams, "Long: take a calibration stack around the focus set by eye."
        ),
        Method("focus.run", RefocusParams, "Long: bring the sample into focus."),
        Method("stage.move", MoveParams, "Long: move the stage to an absolute z, through the guard."),
        Method("job.cancel", JobParams, "Ask a job to end; does not wait for it."),
        Method("job.status", JobParams, "State of a job, and its result or error."),
        Method("events.since", SinceParams, "Remembered events after a number, oldest first."),
        Method("rpc.discover", Params, "This document."),
    )
}


def openrpc() -> JsonObject:
    """The OpenRPC 1.3 document of this protocol."""
    info = {"title": PROTOCOL, "version": __version__}
    return {"openrpc": "1.3.2", "info": info, "methods": [method.openrpc() for method in METHODS.values()]}


class Request(Message):
    """A JSON-RPC 2.0 request."""

    jsonrpc: Literal["2.0"]
    method: str
    params: JsonObject | list[Any] = {}
    id: str | int | Finite | None = None

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
    return "; ".join(f"{'.'.join(map(str, item['loc']))[:80]}: {item['msg'][:200]}" for item in items)


def encode(value: Any) -> bytes:
    """JSON; NaN becomes null, NumPy's numbers and arrays become plain ones."""
    return to_json(
        value, inf_nan_mode="null", fallback=lambda other: getattr(other, "tolist", other.__str__)()
    )


def read_request(content: Sequence[bytes]) -> Request:
    """The frames after the delimiter as a request.

    Raises:
        ParseError: not JSON.
        InvalidRequestError: not one JSON-RPC 2.0 request.
    """
    if len(content) != 1:
        raise InvalidRequestError(f"send one JSON frame after the empty one, not {len(content)}")
    try:
        value = from_json(content[0], allow_inf_nan=False)
    except ValueError as error:
        raise ParseError(f"not JSON in UTF-8: {str(error)[:200]}") from error
    if isinstance(value, list):
        raise InvalidRequestError("batches are not served: send one request a message")
    try:
        return Request.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(f"not a JSON-RPC 2.0 request: {_explain(error)}") from error


def split_envelope(frames: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """A ROUTER's frames as (what to send back in front of the reply, content).

    The envelope is all up to the first empty frame, whatever REQ (with REQ_CORRELATE) or a proxy put there.

    Raises:
        InvalidRequestError: no frame is empty.
    """
    if b"" not in frames[1:]:
        raise InvalidRequestError("send an empty frame before the JSON frame, as a REQ socket does")
    end = frames.index(b"", 1) + 1
    return list(frames[:end]), list(frames[end:])


def request(method: str, params: JsonObject, request_id: str | int) -> bytes:
    """A request's JSON."""
    return encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def result_reply(request_id: str | float | None, result: JsonObject) -> bytes:
    """The reply's JSON to a request that succeeded."""
    return encode({"jsonrpc": "2.0", "id": request_id, "result": result})


def error_reply(request_id: str | float | None, error: JsonObject) -> bytes:
    """The reply's JSON to a request that failed; `error` holds code, message and data."""
    return encode({"jsonrpc": "2.0", "id": request_id, "error": error})


def rebuild_error(error: JsonObject) -> FocusdError:
    """The exception of the code in an error object; a plain FocusdError, the code in its data, for others."""
    kinds = {kind.code: kind for kind in FocusdError.__subclasses__() if "code" in vars(kind)}
    kind = kinds.get(error["code"], FocusdError)
    rebuilt = kind(str(error["message"]))
    rebuilt.data = dict(error.get("data") or {})
    if kind is FocusdError:
        rebuilt.data["code"] = error["code"]
    return rebuilt


def event_topic(topic: str) -> bytes:
    """The first frame of an event, and what to subscribe to: topics are prefixes."""
    return f"{PROTOCOL}/{topic}".encode()
