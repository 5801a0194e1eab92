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
TOPICS = (STATE_TOPIC, "job", "focus.progress", "focus.done", "focus.failed", "drift", "log", "heartbeat")

MAX_JSON_BYTES = 1 << 20
MAX_FRAME_BYTES = 1 << 25
"""A client that sends a longer frame is disconnected: pixels of 4096×4096, 16 bit, still pass."""

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
# Up to a metre, so that its square is a number too.
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6)]
Place = Annotated[tuple[Coordinate, Coordinate], Field(strict=False)]
Side = Annotated[int, Field(ge=1, le=16_384)]
Tags = Annotated[dict[Name, Finite | Name], Field(max_length=16)]
"""What a client wants to see beside the drift: a temperature, a channel."""


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
    lease_id: Name | None = None
    """Of the lease under which the job runs, if the client holds one."""

    ENVELOPE: ClassVar[frozenset[str]] = frozenset({"client", "wait", "request_key", "lease_id"})

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
    """`posterior` or `published`."""
    max_exposures: Annotated[int, Field(ge=2, le=100)] | None = None
    max_seconds: Length | None = None
    """No exposure is begun later than this."""
    max_dose_ms: Length | None = None
    """Exposure time in all."""
    target_um: Length | None = None
    """Standard uncertainty at which the posterior search ends."""
    prior: Annotated[tuple[Finite, Length], Field(strict=False)] | None = None
    """z and σ of the focus as far as it is known, µm: a warm start."""
    surface: Literal["mean", "median", "nearest"] | None = None
    """What of a field that is not flat is brought into focus."""


class MoveParams(LongParams):
    """Params of `stage.move`."""

    z_um: Finite


class MapAddParams(Params):
    """Params of `map.add`."""

    x_um: Coordinate
    y_um: Coordinate
    z_um: Coordinate | None = None
    """None, and σ with it: of the last refocus."""
    sigma_um: Annotated[float, Field(gt=0, le=1e4)] | None = None
    channel: Name | None = None
    """In which it was focused; None: the reference."""


class MapPredictParams(Params):
    """Params of `map.predict`."""

    positions: Annotated[list[Place], Field(min_length=1, max_length=1000)]
    """(x, y) in µm."""
    channel: Name | None = None
    tolerance: Annotated[float, Field(gt=0, le=100)] = 0.5
    """How far off an image may be, in depths of field."""


class MapOffsetParams(Params):
    """Params of `map.offset`."""

    channel: Annotated[Name, Field(min_length=1)]
    offset_um: Annotated[float, Field(ge=-1e4, le=1e4)] | None = None
    """What the channel's focus lies above the reference; left out, it is forgotten."""


class HoldParams(Params):
    """Params of `focus.hold`; None: as configured."""

    client: Name = ""
    """Who asks; shown to others while the focus is held."""
    roi: Roi | None = None
    """Region of interest (y, x, height, width) in pixels."""
    position: Name | None = None
    """The place on the sample, as the client calls it; each drift event has it."""
    tags: Tags = {}
    """Each drift event has them."""


class PixelFrame(Message):
    """What a frame of raw pixels, which follows the JSON frame, holds: row by row, little-endian."""

    dtype: Literal["uint8", "uint16"]
    shape: Annotated[tuple[Side, Side], Field(strict=False)]
    """(y, x)."""
    z_um: Finite | None = None
    """Where the stage stood; None: where it stands now."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.shape[0] * self.shape[1] * (1 if self.dtype == "uint8" else 2)


class ScoreParams(Params):
    """Params of `focus.score`; the pixels follow as frames of their own, one for each of `frames`."""

    frames: Annotated[list[PixelFrame], Field(min_length=1, max_length=64)]
    roi: Roi | None = None
    track: bool = False
    """They show the held field, in the channel and exposure that it is held with: the hold may learn from them."""
    tags: Tags = {}
    """Go with the drift event of these frames."""

    def check_pixels(self, pixels: Sequence[bytes]) -> None:
        """Raises RequestError if the pixels are not what the params say."""
        if len(pixels) != len(self.frames):
            raise RequestError(f"{len(self.frames)} frames are described, {len(pixels)} came")
        for number, (frame, content) in enumerate(zip(self.frames, pixels, strict=True)):
            if len(content) != frame.size:
                height, width = frame.shape
                raise RequestError(
                    f"frame {number}: {len(content)} bytes are not {height}×{width} pixels of {frame.dtype}"
                )


class LeaseParams(Params):
    """Params of `lease.acquire`."""

    client: Name = ""
    seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 60.0
    """It ends by itself after so long, whatever has become of its holder."""
    lease_id: Name | None = None
    """The lease to prolong."""


class LeaseIdParams(Params):
    """Params of `lease.release`."""

    lease_id: Name


class JobParams(Params):
    """Params of `job.status` and `job.cancel`."""

    job_id: Name


class SinceParams(Params):
    """Params of `events.since`."""

    seq: Annotated[int, Field(ge=0, le=2**62)]
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    session: Name | None = None
    """That of `seq`; None: the present one. After an earlier one's events come those of later ones."""


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
        Method("focus.hold", HoldParams, "Keep the sample in focus from now on."),
        Method("focus.release", Params, "End the hold; the stage rests where it is."),
        Method("focus.score", ScoreParams, "Scores of frames that the client sends as raw pixels."),
        Method("stage.move", MoveParams, "Long: move the stage to an absolute z, through the guard."),
        Method("job.cancel", JobParams, "Ask a job to end; does not wait for it."),
        Method("job.status", JobParams, "State of a job, and its result or error."),
        Method("lease.acquire", LeaseParams, "Keep all jobs and moves off while the client exposes."),
        Method("lease.release", LeaseIdParams, "Give the lease back."),
        Method("events.since", SinceParams, "Remembered events after a number, oldest first."),
        Method("map.add", MapAddParams, "Put the last refocus, or a focus given, on the slide's focus map."),
        Method("map.predict", MapPredictParams, "Focus at positions, and whether a refocus pays its dose."),
        Method("map.get", Params, "Positions, offsets and the surface through them."),
        Method("map.offset", MapOffsetParams, "Set what a channel's focus lies above the reference."),
        Method("map.clear", Params, "Forget the positions, for a new slide; offsets stay."),
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
    """The frames after the delimiter as a request; pixels may follow the JSON frame only where a method takes them.

    Raises:
        ParseError: not JSON.
        InvalidRequestError: not one JSON-RPC 2.0 request.
    """
    if not content:
        raise InvalidRequestError("send one JSON frame after the empty one, not 0")
    if len(content[0]) > MAX_JSON_BYTES:
        raise InvalidRequestError(f"the JSON frame is longer than {MAX_JSON_BYTES} bytes")
    asked = _read_json(content[0])
    if len(content) > 1 and asked.method != "focus.score":
        raise InvalidRequestError(
            f"send one JSON frame after the empty one, not {len(content)}: only focus.score takes pixels"
        )
    return asked


def _read_json(body: bytes) -> Request:
    try:
        value = from_json(body, allow_inf_nan=False)
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
